"""The peak memory of a run: of its process, and of its GPU."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from ripu.io.peak_memory import process_peak_gib


def peak_memory_gib(device: torch.device) -> dict[str, float | None]:
    """Return the peaks since the run began, in GiB; None where the system cannot tell.

    Returns:
        ``process``: resident memory, see :func:`ripu.io.peak_memory.process_peak_gib`;
        ``device``: what torch has allocated on the GPU; None without an NVIDIA GPU.
    """
    is_cuda = device.type == "cuda"
    return {
        "process": process_peak_gib(),
        "device": torch.cuda.max_memory_allocated(device) / 2**30 if is_cuda else None,
    }


def largest_peak_gib(trainer: pl.Trainer) -> dict[str, float | None]:
    """Return the largest :func:`peak_memory_gib` of all ranks, each of which calls this; None if one cannot tell."""
    strategy = trainer.strategy
    own = peak_memory_gib(strategy.root_device)
    if trainer.world_size == 1:
        return own
    # The largest is infinite if a rank does not know its own.
    values = [float("inf") if value is None else value for value in own.values()]
    largest = strategy.reduce(torch.tensor(values, device=strategy.root_device), reduce_op="max")
    found = largest.tolist()
    return {name: None if value == float("inf") else value for name, value in zip(own, found, strict=True)}
