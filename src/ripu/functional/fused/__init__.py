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
    """Return whether a first kernel runs on the device; if not, say once why."""
    try:
        from ripu.functional.fused.maps import entropy_and_label

        logits = torch.zeros((1, 2, 1, 1), device=device)
        entropy_and_label(logits, (1, 1), 0.0, torch.uint8)[2].check()
    except Exception as error:  # Triton raises what its compiler, the C compiler or the driver raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _log.warning("the fused kernels do not run on %s (%s); plain torch computes instead", device, reason)
        return False
    return True
