"""The parts of an open run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl

from ripu.config.spec import RunSpec
from ripu.datamodule import RipuDataModule
from ripu.datasets.scenes import Scenes
from ripu.labelstore import LabelStore
from ripu.module import RipuModule
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.training.skipped_files import SkippedFiles


@dataclass
class Clock:
    """Seconds by phase of a run."""

    since: float = field(default_factory=time.monotonic)  # time.monotonic() of the last lap
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, phase: str) -> None:
        """Count everything since the last lap to a phase."""
        now = time.monotonic()
        self.seconds[phase] = now - self.since
        self.since = now


@dataclass
class Run:
    """A run that is open: everything that its phases share."""

    spec: RunSpec
    scenes: Scenes
    module: RipuModule
    datamodule: RipuDataModule
    trainer: pl.Trainer  # with all callbacks
    selection: SelectionCallback  # has the learning curve
    engine: SelectionEngine | None  # None without rounds
    store: LabelStore | None  # None in settings without revealed labels
    skipped: SkippedFiles
    checkpoint: Path | None = None  # where training resumes; None at the start
    clock: Clock = field(default_factory=Clock)
