"""Triton kernels for CUDA behind functions of this package and of the picks; :func:`is_used` decides, alone.

The plain torch code is the reference, and the fallback wherever :func:`is_used` says no. The modules beside this one
import Triton, so they are imported only after a yes.
"""

from __future__ import annotations

import functools
import logging
import os

import torch
from torch import Tensor

SWITCH = "RIPU_FUSED"
"""Environment variable; 0 turns the kernels off."""

_log = logging.getLogger(__name__)


def is_used(*tensors: Tensor | None) -> bool:
    """Return whether the kernels compute on these tensors.

    They do on NVIDIA GPUs, if Triton and a compiler are there, unless torch is asked for deterministic algorithms or
    the environment has ``RIPU_FUSED=0``.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(tensor.is_cuda for tensor in given)
        and os.environ.get(SWITCH, "1") != "0"
        and torch.version.hip is None
        and not torch.are_deterministic_algorithms_enabled()
        and _works(given[0].device)
    )


@functools.cache
def _works(device: torch.device) -> bool:
    """Return whether the kernels run on the device and compute what the plain code does; if not, say once why."""
    try:
        from ripu.functional.fused.check import first_difference

        difference = first_difference(device)
    except Exception as error:  # Triton raises what its compiler, the C compiler or the driver raises
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
