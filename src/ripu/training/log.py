"""Metrics of training itself: the terms of the loss, learning rates, speed and memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor


@runtime_checkable
class HasStepLosses(Protocol):
    """A LightningModule that takes a step after several micro-batches and keeps its losses."""

    accumulate: int  # micro-batches in an optimiser step
    step_losses: dict[str, Tensor]  # the terms of the last step and their sum, "loss"


class TrainingLog(pl.Callback):
    """Logs every ``trainer.log_every_n_steps`` optimiser steps, under the number of the step before (the first is 0).

    Losses are means over the micro-batches of the step. Learning rates are those of the step. Images per second count
    all ranks since the last entry.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._images = 0
        self._rates: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock, so that evaluations and rounds do not count."""
        self._since, self._images = time.monotonic(), 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the learning rates."""
        self._rates = {f"lr/{group['name']}": group["lr"] for group in trainer.optimizers[0].param_groups}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images, and log when it is time."""
        assert isinstance(pl_module, HasStepLosses)
        self._images += trainer.world_size * sum(len(part["image"]) for part in batch.values())
        step = trainer.global_step
        is_due = (batch_idx + 1) % pl_module.accumulate == 0 and step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if not is_due or not trainer.is_global_zero:
            return
        now = time.monotonic()
        values = {
            **self._rates,
            "train/images_per_second": self._images / max(now - self._since, 1e-9),
            **memory(pl_module.device),
            **{f"train/{name}": float(term) for name, term in pl_module.step_losses.items()},
        }
        self._since, self._images = now, 0
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step - 1)
            logger.save()


def memory(device: torch.device) -> dict[str, float]:
    """Return the peak memory so far in GiB: of this process, and of the device if it is a GPU."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere
    values = {"system/memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device.type == "cuda":
        values["system/device_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return values
