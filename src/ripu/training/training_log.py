"""Metrics of training itself (loss, learning rates, speed, memory), and ``metrics.csv``: one row per step."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from ripu.io.reading import UntrustedError
from ripu.io.writing import write_bytes
from ripu.training.peak_memory import peak_memory_gib


class MetricsFile(Logger):
    """Writes ``metrics.csv`` in the run's folder.

    New columns may appear at any time. A resumed run replaces the rows after its step.
    """

    name = "metrics"
    version = "0"

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / "metrics.csv"
        self._rows: dict[int, dict[str, float]] = {}
        self._columns: list[str] = []
        self._is_fresh = True
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                try:
                    for row in csv.DictReader(file):
                        values = {name: float(value) for name, value in row.items() if name != "step" and value}
                        self._add(int(row["step"]), values)
                except (ValueError, KeyError, TypeError, csv.Error) as error:
                    raise UntrustedError(
                        f"{self.path} is damaged ({error!r}); remove it, or restore it from a copy of the run"
                    ) from error

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        step = step or 0
        if self._is_fresh:  # this process logs the rows after its first step again
            # The row of the step itself stays: it has the evaluation and the round before its checkpoint.
            self._rows = {done: row for done, row in self._rows.items() if done <= step}
            self._is_fresh = False
        self._add(step, {name: float(value) for name, value in metrics.items() if name != "epoch"})

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.setdefault(step, {}).update(values)
        self._columns += [name for name in values if name not in self._columns]

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["step", *self._columns])
        writer.writeheader()
        for step in sorted(self._rows):
            writer.writerow({"step": step, **self._rows[step]})
        write_bytes(self.path, table.getvalue().encode())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file one last time."""
        self.save()


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

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
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
    """Return :func:`ripu.training.peak_memory.peak_memory_gib` by the names of the log, as far as it is known."""
    named = zip(("system/memory_gib", "system/device_memory_gib"), peak_memory_gib(device).values(), strict=True)
    return {name: value for name, value in named if value is not None}
