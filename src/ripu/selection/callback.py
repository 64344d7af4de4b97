"""The selection Callback: keeps the learning curve, and runs a round at every scheduled step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ripu.acquisition import Features
from ripu.datasets.errors import Fault
from ripu.labelstore import LabelStore
from ripu.models.interface import evaluating
from ripu.module import RipuModule
from ripu.schedule import Plan
from ripu.selection.engine import SelectionEngine
from ripu.selection.forward import Labelled
from ripu.selection.rank_part import Watch
from ripu.selection.ranks import Ranks
from ripu.selection.round_report import carried_fraction, count_answers, report_round, round_metrics
from ripu.training.progress import ProgressBar


class SelectionCallback(pl.Callback):
    """Runs the rounds of a plan, each right after the optimiser step and the evaluation of its step.

    A phase of the plan is one Lightning epoch, so the loaders of the next phase are made after the round is committed.
    A round at step 0 follows the evaluation before training.

    Attributes:
        evaluations: One entry per evaluation during training: step, labelled_fraction, mIoU, per_class_iou.
        rounds: One entry per round; see :func:`ripu.selection.round_report.report_round`.
    """

    def __init__(
        self,
        plan: Plan,
        engine: SelectionEngine | None,
        store: LabelStore | None,
        truth: Callable[[], Mapping[str, int] | None] = lambda: None,
        watch: Watch | None = None,
        on_unreadable: Callable[[list[Fault]], None] = lambda faults: None,
    ) -> None:
        """Select for a run; engine and store are None in settings without selection.

        Args:
            truth: Counts the pixels of each class in all target labels, for reports; gives None without labels.
            watch: Receives some images of every round.
            on_unreadable: Receives the unreadable files that a round has skipped.
        """
        self.plan, self.engine, self.store = plan, engine, store
        self._truth, self._watch, self._on_unreadable = truth, watch, on_unreadable
        self.evaluations: list[dict[str, Any]] = []
        self.rounds: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the learning curve so far."""
        return {"evaluations": self.evaluations, "rounds": self.rounds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the learning curve of a checkpoint."""
        self.evaluations, self.rounds = list(state_dict["evaluations"]), list(state_dict["rounds"])

    @cached_property
    def true_class_pixels(self) -> Mapping[str, int] | None:
        """Pixels of each class in all target labels, to compare the revealed ones with; counted on first use."""
        return self._truth()

    @property
    def labelled_fraction(self) -> float:
        """Share of the target pixels queried so far, before the run too."""
        return float(self.rounds[-1]["labelled_fraction"]) if self.rounds else self._carried_fraction

    @cached_property
    def _carried_fraction(self) -> float:
        return 0.0 if self.store is None else carried_fraction(self.store)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let every phase but the last end with an evaluation; the test follows the last one at once."""
        is_last = self.plan.phase(trainer.global_step)[1] == self.plan.max_steps
        trainer.limit_val_batches = 0.0 if is_last else 1.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add an evaluation to the learning curve; after the one before training, run the round of step 0."""
        assert isinstance(pl_module, RipuModule)
        scores = pl_module.scores
        assert scores is not None
        self.evaluations.append(
            {
                "step": trainer.global_step,
                "labelled_fraction": self.labelled_fraction,
                "mIoU": scores.miou,
                "per_class_iou": dict(scores.per_class_iou),
                **scores.subsets,
            }
        )
        if trainer.state.fn == "validate" and trainer.global_step in self.plan.selection_steps:
            self._select(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the round that is due at this step."""
        if trainer.global_step in self.plan.selection_steps:
            self._select(trainer, pl_module)

    def count_again(self, trainer: pl.Trainer, index: int, people: Mapping[str, Any]) -> None:
        """Bring the entry of a round up to date after people have answered it (all ranks call this).

        Args:
            trainer: The trainer.
            index: The round.
            people: What is known of their work: counts, seconds, agreement.
        """
        assert self.store is not None
        counts: Any = count_answers(self.store, index) if trainer.is_global_zero else None
        found: dict[str, Any] = {**self.rounds[index], **trainer.strategy.broadcast(counts)}
        found |= {"human_hours": people["seconds"] / 3600, "people": dict(people)}
        if found != self.rounds[index]:
            self.rounds[index] = found
            for logger in trainer.loggers:
                logger.log_metrics(round_metrics(found), step=found["step"])

    def _select(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.engine is None or self.store is None:
            return
        assert isinstance(pl_module, RipuModule)
        step = trainer.global_step
        index = self.plan.selection_steps.index(step)
        bar, started = trainer.progress_bar_callback, time.monotonic()

        def network(image: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context():
                return pl_module(image)  # type: ignore[no-any-return]

        module: Any = pl_module

        def with_features(image: Tensor) -> tuple[Tensor, Features]:
            with trainer.precision_plugin.forward_context():
                return module.with_features(image)  # type: ignore[no-any-return]

        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        source = None if data.source is None else Labelled(len(data.source), data.source_pool_loader)
        with evaluating(pl_module):
            tally = self.engine.run(
                self.store,
                index,
                step,
                network=network,
                pool=data.pool_loader,
                device=pl_module.device,
                ranks=Ranks(trainer.global_rank, trainer.world_size, trainer.strategy.reduce_boolean_decision),
                progress=bar.on_selection(index, len(self.plan.selection_steps))
                if isinstance(bar, ProgressBar)
                else lambda done, total: None,
                watch=self._watch,
                with_features=with_features,
                source=source,
                kept=pl_module.kept,
            )
        self._on_unreadable(tally.unreadable)
        report: Any = report_round(self.store, index, tally, started) if trainer.is_global_zero else None
        report = trainer.strategy.broadcast(report)
        self.rounds.append(report)
        for logger in trainer.loggers:
            logger.log_metrics(round_metrics(report), step=step)
        if pl_module.device.type == "cuda":
            torch.cuda.empty_cache()
