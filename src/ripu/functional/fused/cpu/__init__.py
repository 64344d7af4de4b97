"""Kernels for CPUs, compiled by Numba."""

from ripu.functional.fused.cpu.maps import entropy_and_label
from ripu.functional.fused.cpu.picks import greedy_places
from ripu.functional.fused.cpu.windows import window_maps

__all__ = ["entropy_and_label", "greedy_places", "window_maps"]
