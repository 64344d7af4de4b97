"""The unreadable files of a run: reported once in the log, and kept in the run's folder for its results."""

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

_INSTEAD = {
    "source": "training draws another image in its place",
    "target": "training draws another image in its place, and rounds ask nothing about it",
    "val": "the evaluation leaves it out",
}


class SkippedFiles(pl.Callback):
    """Collects the unreadable files that batches report, under the policy ``data.unreadable=skip``.

    ``unreadable.jsonl`` has a line per file, which tells a resumed run what was found before. Every process of a job
    appends the files that it is the first to meet.
    """

    def __init__(self, run: Path | None, start: Iterable[Fault] = ()) -> None:
        """Write into the folder ``run``, or nowhere; ``start`` are files that were found before training."""
        self._path = None if run is None else run / "unreadable.jsonl"
        self._start = list(start)
        self._seen: dict[tuple[str, str], dict[str, str]] = {}
        self._known = False

    def add(self, faults: Iterable[Fault]) -> None:
        """Report files that could not be read, each once."""
        for fault in faults:
            self._read_known()
            key = (fault.part, fault.file)
            if key in self._seen:
                continue
            self._seen[key] = fault._asdict()
            instead = _INSTEAD.get(fault.part, "it is left out")
            _log.warning("%s: %s; %s (data.unreadable=skip)", fault.part, fault.cause, instead)
            if self._path is not None:
                with writing(self._path):
                    handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                    try:  # in one piece, as all processes of a job append to the file
                        os.write(handle, (json.dumps(fault._asdict()) + "\n").encode())
                    finally:
                        os.close(handle)

    def found(self) -> list[dict[str, str]]:
        """Return all unreadable files of the run, of all processes, sorted: part, image_id, file, cause."""
        self._known = False
        self._read_known()
        return [entry for _, entry in sorted(self._seen.items())]

    def _read_known(self) -> None:
        if self._known or self._path is None:
            return
        self._known = True
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            try:
                entry = {name: str(json.loads(line)[name]) for name in Fault._fields}
            except (ValueError, KeyError, TypeError, RecursionError):  # a line that a crash cut off
                continue
            self._seen.setdefault((entry["part"], entry["file"]), entry)

    def setup(self, *_: Any, **__: Any) -> None:
        """Report the files that were found before training."""
        self.add(self._start)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, *_: Any, **__: Any) -> None:
        """Collect from the batches of both domains."""
        for part in batch.values():
            self.add(part.get("fault", ()))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, *_: Any, **__: Any) -> None:
        """Collect from a batch."""
        self.add(batch.get("fault", ()))

    on_test_batch_start = on_validation_batch_start
