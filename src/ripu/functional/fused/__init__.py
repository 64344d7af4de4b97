"""Fused kernels behind functions of this package and of the picks; :func:`is_used` decides, alone.

There are kernels for NVIDIA GPUs, which Triton compiles (:mod:`ripu.functional.fused.cuda`), and for CPUs, which Numba
does (:mod:`ripu.functional.fused.cpu`, the extra ``fused``). The plain torch code is the reference, and the fallback
wherever :func:`is_used` says no. The kernels import their compilers, so they are imported only after a yes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import os

import torch
from torch import Tensor

from ripu.functional.fused.interface import Found, Kernels

__all__ = ["SWITCH", "Found", "Kernels", "compiler", "is_used", "kernels_on"]

SWITCH = "RIPU_FUSED"
"""Environment variable; 0 turns the kernels off."""

_log = logging.getLogger(__name__)


def is_used(*tensors: Tensor | None) -> bool:
    """Return whether the kernels compute on these tensors, which then are on one kind of device.

    They do on NVIDIA GPUs, if Triton and a compiler are there, unless torch is asked for deterministic algorithms; and
    on CPUs, if Numba is there. Nowhere with ``RIPU_FUSED=0`` in the environment.
    """
    devices = [tensor.device for tensor in tensors if tensor is not None]
    kind = devices[0].type
    if os.environ.get(SWITCH, "1") == "0" or any(device.type != kind for device in devices):
        return False
    if kind == "cuda":
        return torch.version.hip is None and not torch.are_deterministic_algorithms_enabled() and _works(devices[0])
    return kind == "cpu" and _has_numba() and _works(devices[0])


def kernels_on(device: torch.device) -> Kernels:
    """Return the kernels for a device, after a yes of :func:`is_used`."""
    kernels: Kernels = importlib.import_module(f"{__name__}.{device.type}")
    return kernels


def compiler(device_type: str) -> str | None:
    """Return name and version of what compiles the kernels for a type of device; None without it or with the switch.

    It is asked of the installation alone: nothing is imported.
    """
    name = {"cpu": "numba", "cuda": "triton"}.get(device_type)
    if name is None or os.environ.get(SWITCH, "1") == "0" or importlib.util.find_spec(name) is None:
        return None
    return f"{name} {importlib.metadata.version(name)}"


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _works(device: torch.device) -> bool:
    """Return whether the kernels run on the device and compute what the plain code does; if not, say once why."""
    try:
        from ripu.functional.fused.check import first_difference

        difference = first_difference(kernels_on(device), device)
    except Exception as error:  # compilers raise what they, the C compiler or the driver raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _log.warning("the fused kernels do not run on %s (%s); plain torch computes instead", device, reason)
        return False
    if difference is not None:
        _log.warning(
            "on %s, the fused kernels and plain torch disagree about %s; plain torch computes instead. Please report "
            "this with the output of: python -m torch.utils.collect_env",
            device,
            difference,
        )
    return difference is None
