"""What could not be read in a run: told once in the log, and kept in the run's folder for its results."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ripu.datasets.errors import Fault
from ripu.io.writing import writing

_log = logging.getLogger(__name__)

SKIPPED_FILE = "unreadable.jsonl"
"""A line a file that could not be read, appended to by every process of a job when it first meets the file."""

_INSTEAD = {
    "source": "training draws another image in its place",
    "target": "training draws another image in its place, and rounds ask nothing of it",
    "val": "it is left out of the measure",
}


class SkippedFiles(pl.Callback):
    """Collects what batches say of unreadable files, under the policy ``data.unreadable=skip``.

    A run that is picked up knows what was found before; the lines are kept in :data:`SKIPPED_FILE`.
    """

    def __init__(self, run: Path | None, start: Iterable[Fault] = ()) -> None:
        """Collect for a run.

        Args:
            run: Its folder; None keeps nothing on disk.
            start: What was found before training.
        """
        self._path = None if run is None else run / SKIPPED_FILE
        self._start = list(start)
        self._seen: dict[tuple[str, str], dict[str, str]] = {}
        self._known = False

    def add(self, faults: Iterable[Fault]) -> None:
        """Tell of files that could not be read; of each once."""
        for fault in faults:
            self._read_known()
            key = (fault.part, fault.file)
            if key in self._seen:
                continue
            self._seen[key] = fault.to_json()
            _log.warning(
                "%s: %s; %s (data.unreadable=skip)", fault.part, fault.cause, _INSTEAD.get(fault.part, "it is left out")
            )
            if self._path is not None:
                with writing(self._path):
                    _append(self._path, json.dumps(fault.to_json()) + "\n")

    def found(self) -> list[dict[str, str]]:
        """Everything that was found in the run, by all processes, sorted: part, image_id, file, cause."""
        self._known = False
        self._read_known()
        return sorted(self._seen.values(), key=lambda one: (one["part"], one["file"]))

    def _read_known(self) -> None:
        if self._known or self._path is None:
            return
        self._known = True
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    one = {name: str(json.loads(line)[name]) for name in Fault._fields}
                except (ValueError, KeyError, TypeError, RecursionError):  # the end of a line that a crash cut off
                    continue
                self._seen.setdefault((one["part"], one["file"]), one)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell of what was found before training."""
        self.add(self._start)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read what the batches of both domains say."""
        for part in batch.values():
            self.add(part.get("fault", ()))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read what a batch says."""
        self.add(batch.get("fault", ()))

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read what a batch says."""
        self.add(batch.get("fault", ()))


def _append(path: Path, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())  # in one piece: processes of a job append to one file
    finally:
        os.close(handle)
