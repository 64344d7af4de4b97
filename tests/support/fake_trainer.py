"""A trainer that only saves checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ripu.training.checkpoint_callback import RunCheckpoint


class FakeStrategy:
    def broadcast(self, value: Any) -> Any:
        return value


class FakeTrainer:
    """The parts of a trainer that saving needs."""

    is_global_zero = True
    world_size = 1
    strategy = FakeStrategy()
    loggers = ()

    def __init__(self, folder: Path) -> None:
        self.global_step = 0
        folder.mkdir(exist_ok=True)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        path.write_text(f"state of step {self.global_step}")


def save(callback: RunCheckpoint, trainer: Any, *steps: int) -> None:
    """Save a checkpoint at each of the steps."""
    for step in steps:
        trainer.global_step = step
        callback.save(trainer)
