"""Triton kernels for NVIDIA GPUs."""

from ripu.functional.fused.cuda.maps import entropy_and_label
from ripu.functional.fused.cuda.picks import greedy_places
from ripu.functional.fused.cuda.windows import window_maps

__all__ = ["entropy_and_label", "greedy_places", "window_maps"]
