"""Renewals: at scheduled steps, a method looks at every target image anew, e.g. to give them pseudo-labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import Features
from ripu.datasets.errors import Fault, SceneError
from ripu.loading.order import evenly_spread
from ripu.loading.pseudo_labels import PseudoLabels
from ripu.models.interface import evaluating
from ripu.module import RipuModule
from ripu.schedule import Plan
from ripu.selection.forward import Network, Output, Source, reading, share_of_rank
from ripu.selection.ranks import Exchange, Ranks, Together

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def images_of_renewal(objective: Any, count: int) -> int:
    """Return how many of ``count`` images a renewal looks at; an image counts twice if it is surveyed and labelled."""
    surveyed = len(evenly_spread(count, getattr(objective, "most_surveyed", None)))
    return surveyed * hasattr(objective, "survey") + count * hasattr(objective, "pseudo_label")


class Renewals(pl.Callback):
    """Runs the renewals of a plan, each right after the evaluation of its step and a round at the same step.

    Nothing of it is in the label store, and nothing counts as revealed. It depends on the weights alone, so a resumed
    run that reaches the step again does the same again.

    Attributes:
        seconds: The time of all renewals so far.
    """

    def __init__(
        self, plan: Plan, run: Path, on_unreadable: Callable[[list[Fault]], None] = lambda faults: None
    ) -> None:
        """Keep pseudo-labels in the folder ``run``; ``on_unreadable`` receives files that were skipped."""
        self.plan, self.run, self._on_unreadable = plan, run, on_unreadable
        self.seconds = 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the renewal of step 0 after the evaluation before training."""
        if trainer.state.fn == "validate":
            self._run(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the renewal that is due at this step."""
        self._run(trainer, pl_module)

    def _run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if step not in self.plan.renewal_steps:
            return
        assert isinstance(pl_module, RipuModule)
        began = time.monotonic()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        image_ids = tuple(scene.image_id for scene in data.target.scenes)
        number = self.plan.renewal_steps.index(step)
        ranks = Ranks(trainer.global_rank, trainer.world_size, trainer.strategy.reduce_boolean_decision)
        together = Together(ranks, f"renewal {number} at step {step}")
        forward = _forward(trainer, pl_module)

        def part(most: int | None) -> Source:
            images = share_of_rank(evenly_spread(len(image_ids), most), data.pool_loader, ranks)
            return Source(data.views_loader, images, forward, pl_module.device)

        renewal = _Renewal(pl_module.objective, pl_module.kept, number, part, together, self.run, len(image_ids))
        with evaluating(pl_module):
            learnt = renewal.learn()
            if hasattr(pl_module.objective, "pseudo_label"):
                facts = {"step": step, **renewal.facts(learnt)}
                renewal.label(learnt, PseudoLabels.of_renewal(self.run, number, image_ids), facts)
        self._on_unreadable(renewal.faults)
        if trainer.is_global_zero:
            _log.info("renewal %d of %d at step %d is done", number + 1, len(self.plan.renewal_steps), step)
        if pl_module.device.type == "cuda":
            torch.cuda.empty_cache()
        self.seconds += time.monotonic() - began


def averaged(views: Sequence[Output]) -> Output:
    """Return the output whose probabilities are the means of those of the views of an image; one view as it is.

    Raises:
        SceneError: The views have different sizes.
    """
    if len(views) == 1:
        return views[0]
    sizes = [tuple(view.logits.shape[-2:]) for view in views]
    if len({*sizes}) > 1:
        raise SceneError(
            f"an image and its translation reach the network in different sizes, {sizes}; give translations of the "
            "same proportions, or data.fit=stretch"
        )
    return Output(torch.stack([view.logits.float().softmax(dim=1) for view in views]).mean(dim=0).log())


def _forward(trainer: pl.Trainer, module: RipuModule) -> Network:
    """Return the network in the precision of training, with its features if the objective needs them."""
    read = reading(module, module.with_features, needs_features=getattr(module.objective, "needs_features", False))

    def forward(image: Tensor) -> tuple[Tensor, Features | None]:
        with trainer.precision_plugin.forward_context():
            return read(image)

    return forward


def _checked(found: list[_T]) -> list[_T]:
    """Return what was found of the images that could be read; refuse nothing."""
    if not found:
        raise SceneError(
            "none of the target images could be read; restore the files (python -m ripu.doctor lists them)"
        )
    return found


@dataclass
class _Renewal:
    """One renewal on one rank."""

    objective: Any
    kept: Any
    number: int
    part: Callable[[int | None], Source]  # this rank's share of at most so many images
    together: Together
    run: Path
    num_images: int  # all target images; greater numbers are their translations

    def __post_init__(self) -> None:
        self.faults: list[Fault] = []

    def _batches(self, most: int | None = None) -> Iterator[tuple[int, Output]]:
        """Yield the images that can be read, by their positions, with the outputs of the network.

        That of an image with a translation is the average of both (:func:`averaged`).
        """
        for index, views in groupby(self._views(most), lambda view: view[0] % self.num_images):
            found = dict(views)
            if index in found:
                yield index, averaged(list(found.values()))

    def _views(self, most: int | None) -> Iterator[tuple[int, Output]]:
        for batch, outputs in self.part(most).batches():
            self.faults += batch.get("fault", ())
            yield from zip(map(int, batch["index"]), outputs, strict=True)

    def learn(self) -> Any:
        """Look at the images, and return what the objective has learnt; the same on all ranks.

        Raises:
            SelectionError: A rank failed, or no image could be read.
        """
        if not hasattr(self.objective, "survey"):
            return None
        exchange = Exchange(self.run, self.number, self.together.ranks, "renewal")
        adds = getattr(self.objective, "adds_surveys", False)
        try:
            self.together(lambda: exchange.write_surveys(self._sum() if adds else self._each()), "failed")
            found = [part for (part,) in self.together(lambda: _checked(exchange.read_surveys()), "failed")]
        finally:
            exchange.remove()
        return self.objective.learn(np.sum(found, axis=0) if adds else np.stack(found), self.kept, self.number)

    def facts(self, learnt: Any) -> dict[str, Any]:
        """Return what is worth knowing of this renewal."""
        found: dict[str, Any] = self.objective.facts(learnt) if hasattr(self.objective, "facts") else {}
        return found

    def label(self, learnt: Any, labels: PseudoLabels, facts: dict[str, Any]) -> None:
        """Give every image that can be read its pseudo-labels.

        Raises:
            SelectionError: A rank failed, or no image could be read.
        """
        is_first = self.together.ranks.rank == 0
        self.together(lambda: labels.begin() if is_first else None, "failed")

        def write() -> None:
            for index, output in self._batches():
                labels.write(index, self.objective.pseudo_label(output.logits, learnt)[0].cpu().numpy())

        self.together(write, "failed")
        written = self.together(lambda: _checked(labels.written()) if is_first else [], "failed")
        self.together(lambda: labels.finish(written, facts) if is_first else None, "failed")

    def _each(self) -> Iterator[tuple[int, list[NDArray[Any]]]]:
        for index, output in self._batches(getattr(self.objective, "most_surveyed", None)):
            yield index, [self.objective.survey(output.logits, output.features)]

    def _sum(self) -> Iterator[tuple[int, list[NDArray[Any]]]]:
        total: NDArray[Any] | None = None
        for _, (found,) in self._each():
            if total is None:
                total = found
            else:
                total += found
        if total is not None:
            yield self.together.ranks.rank, [total]
