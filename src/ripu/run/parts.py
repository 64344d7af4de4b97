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
    """Seconds by phase of a run.

    Attributes:
        since: ``time.monotonic()`` of the last lap.
        seconds: Seconds by phase.
    """

    since: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, phase: str) -> None:
        """Count everything since the last lap to a phase."""
        now = time.monotonic()
        self.seconds[phase] = now - self.since
        self.since = now


@dataclass
class Run:
    """A run that is open: everything that its phases share.

    Attributes:
        spec: Its description.
        scenes: Its data.
        module: The network with its losses.
        datamodule: Mixes source and target batches.
        trainer: Lightning's trainer, with all callbacks.
        selection: The callback that selects; has the learning curve.
        engine: Selects; None without rounds.
        store: The label store; None in settings without revealed labels.
        skipped: Files that could not be read.
        checkpoint: Where training resumes; None at the start.
        clock: Seconds by phase.
    """

    spec: RunSpec
    scenes: Scenes
    module: RipuModule
    datamodule: RipuDataModule
    trainer: pl.Trainer
    selection: SelectionCallback
    engine: SelectionEngine | None
    store: LabelStore | None
    skipped: SkippedFiles
    checkpoint: Path | None = None
    clock: Clock = field(default_factory=Clock)
