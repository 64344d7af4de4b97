"""Wait for people: after a round, the run ends, or holds until the round is closed, and then takes its answers."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ripu.io.console import command_line
from ripu.labelstore import LabelStore
from ripu.labelstore.cut import FOLDER, Cut, WaitingForAnswers, is_closed, take_cut
from ripu.schedule import Plan
from ripu.selection.callback import SelectionCallback

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""Time between two checks of whether the round is closed."""


class WaitForAnswers(pl.Callback):
    """Acts after each round, and after the checkpoint of its step; must follow both in the list of callbacks."""

    def __init__(
        self,
        run: Path,
        plan: Plan,
        store: LabelStore,
        selection: SelectionCallback,
        *,
        hold_minutes: float | None,
        serve: bool = False,
    ) -> None:
        """Wait for the rounds of a run.

        Args:
            run: The folder of the run.
            plan: Its schedule.
            store: Its label store; open for writing on rank 0.
            selection: The callback that keeps the entries of the rounds.
            hold_minutes: Hold the run this long; None to end it at once.
            serve: Serve the page while the run holds.
        """
        self.run, self.plan, self.store, self.selection = run, plan, store, selection
        self.hold_minutes, self.serve = hold_minutes, serve

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the answers that were taken when the run was opened (:func:`take_answers`)."""
        step = trainer.global_step
        if step in self.plan.selection_steps and len(self.selection.rounds) > self.plan.selection_steps.index(step):
            self._count(trainer, self.plan.selection_steps.index(step))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait after a round at step 0."""
        if trainer.state.fn == "validate" and trainer.global_step in self.plan.selection_steps:
            self._wait(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait after a round."""
        if trainer.global_step in self.plan.selection_steps:
            self._wait(trainer)

    def _wait(self, trainer: pl.Trainer) -> None:
        index = self.plan.selection_steps.index(trainer.global_step)
        if not self._taken(trainer, index):
            if self.hold_minutes is not None:
                self._hold(trainer, index)
            if not self._taken(trainer, index):
                trainer.strategy.barrier()
                raise WaitingForAnswers(self.run, index)
        self._count(trainer, index)

    def _taken(self, trainer: pl.Trainer, index: int) -> bool:
        """Take the answers of a closed round on rank 0; return whether it is closed, on all ranks."""
        taken = None
        if trainer.is_global_zero and take_cut(self.store, self.run / FOLDER, index) is not None:
            taken = len(self.store.log.answers)
        taken = trainer.strategy.broadcast(taken)
        if taken is not None:
            self.store.await_answers(taken)
        return taken is not None

    def _hold(self, trainer: pl.Trainer, index: int) -> None:
        assert self.hold_minutes is not None
        end = time.monotonic() + 60 * self.hold_minutes
        if trainer.is_global_zero:
            _log.warning(
                "round %d waits for answers for at most %g minutes (oracle.hold_minutes)%s",
                index + 1,
                self.hold_minutes,
                "" if self.serve else f": {command_line('annotate', [str(self.run)])}",
            )
        with self._serving(trainer.is_global_zero and self.serve):
            go_on = True
            while go_on:
                if trainer.is_global_zero:
                    time.sleep(LOOK_SECONDS)
                    go_on = not is_closed(self.run / FOLDER, index) and time.monotonic() < end
                go_on = trainer.strategy.broadcast(go_on)

    @contextlib.contextmanager
    def _serving(self, is_wanted: bool) -> Iterator[None]:
        if not is_wanted:
            yield
            return
        server = subprocess.Popen([sys.executable, "-m", "ripu.annotate", str(self.run)])
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()

    def _count(self, trainer: pl.Trainer, index: int) -> None:
        facts: Any = None
        if trainer.is_global_zero:
            facts = Cut(self.run / FOLDER, self.store, index).facts
        self.selection.count_again(trainer, index, trainer.strategy.broadcast(facts))
        if trainer.is_global_zero and trainer.state.fn == "fit":  # after a round at step 0, training starts next
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._warn_without_labels(self.selection.rounds[index], data.source is not None)

    def _warn_without_labels(self, entry: Mapping[str, Any], has_source: bool) -> None:
        """Say so if a round gave no label: the phase that follows cannot do what it was planned for."""
        if not entry["picks"] or any(entry["new_class_pixels"].values()):
            return
        if any(entry["class_pixels"].values()):
            consequence = "training continues with the labels known before"
        elif has_source:
            consequence = "training continues on the source, without any target label"
        else:
            consequence = "no target label is known yet and there is no source, so training cannot learn any class"
        number = entry["index"] + 1
        if entry["people"]["answered"]:
            _log.warning("round %d is closed, and all its answers are void: %s", number, consequence)
            return
        _log.warning(
            "round %d is closed without an answer: %s; to ask its questions again, stop the run before round %d, run "
            "%s, and resume",
            number,
            consequence,
            number + 1,
            command_line("labels", ["undo", str(self.run)]),
        )


def take_answers(store: LabelStore, run: Path, plan: Plan, step: int) -> None:
    """Take the answers of the round that a run resumes after, on rank 0, before its data are read.

    Rounds before it were taken before their phase began. Later answers wait for the next round to be closed.

    Args:
        store: The label store, open for writing.
        run: The folder of the run.
        plan: Its schedule.
        step: The step that it resumes from.

    Raises:
        WaitingForAnswers: The round is not closed.
    """
    if step not in plan.selection_steps:
        return
    index = plan.selection_steps.index(step)
    if index < store.num_rounds and take_cut(store, run / FOLDER, index) is None:
        raise WaitingForAnswers(run, index)
