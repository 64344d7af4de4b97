"""One selection round: score every target image, pick the best places, ask about them, commit the answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.acquisition import Features
from ripu.acquisition.nested import Survey
from ripu.datasets.taxonomy import VOID
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelReader, LabelStore, Round, RoundConflictError
from ripu.labelstore.cut import FOLDER as ANNOTATION_FOLDER
from ripu.labelstore.cut import set_aside
from ripu.labelstore.predictions import remove_predictions
from ripu.loading.order import evenly_spread
from ripu.selection.candidates import Candidates, global_cut
from ripu.selection.forward import Labelled, Network, Source, reading, share_of_rank
from ripu.selection.oracles import Oracle
from ripu.selection.rank_part import RankPart, RoundTally, Watch
from ripu.selection.ranks import Exchange, Ranks, SelectionError, Together
from ripu.selection.scoring import Scorer

_ALONE = Ranks()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectionEngine:
    """Runs rounds: the scorer finds the candidates of an image, and the oracle answers.

    Attributes:
        scorer: Finds the candidates.
        oracle: Answers.
        begins_trained: The run begins with a network that knows the classes; people may see its labels in any round.
    """

    scorer: Scorer
    oracle: Oracle
    begins_trained: bool = False

    @property
    def asks_people(self) -> bool:
        """True if answers come after the round; an oracle that does not say so answers at once."""
        return bool(getattr(self.oracle, "is_person", False))

    def run(
        self,
        store: LabelStore,
        index: int,
        step: int,
        *,
        network: Callable[[Tensor], Tensor],
        pool: Callable[[list[int]], DataLoader[Any]],
        device: torch.device,
        ranks: Ranks = _ALONE,
        progress: Callable[[int, int], None] = lambda done, total: None,
        watch: Watch | None = None,
        with_features: Callable[[Tensor], tuple[Tensor, Features]] | None = None,
        source: Labelled | None = None,
        kept: Any = None,
    ) -> RoundTally:
        """Score, pick, ask and commit round ``index``, from 0, at a training step; return the work of this rank.

        A round that is committed already stands as it is (the run was stopped before its next checkpoint and reaches
        the step again): images are scored and counted, but nothing is asked or written.

        Args:
            store: The run's label store; open for writing on rank 0.
            network: uint8 images (B, 3, h, w) -> logits (B, C, h, w), without gradient, in evaluation mode.
            pool: Makes a loader over the images of the given indices, in that order. Its batches contain ``index`` and
                ``image``. A batch with ``logits`` skips the network, and needs an ``image`` only if the scorer
                ``needs_image``.
            progress: Called with the number of images done and of all images of this rank; an image counts each time
                that it passes through the network.
            watch: Receives the maps of the images it wants, on the rank that scores them.
            with_features: The network with its features, for scores that need them.
            source: The images of the source, for scores that know it.
            kept: What the objective keeps beside the network, for scores that know it.

        Raises:
            SelectionError: The round failed on this rank or on another; nothing is committed. Or it is committed, but a
                rank on another machine does not see it.
        """
        engine = replace(self, scorer=self.scorer.of_round(index).with_kept(kept))
        images = share_of_rank(list(range(len(self.scorer.image_ids))), pool, ranks)
        together = Together(ranks, f"round {index} at step {step}")
        forward = reading(network, with_features, needs_features=engine.scorer.needs_features)
        surveys = [*engine._of_source(source, forward, ranks, device)]
        if engine.scorer.needs_survey:
            surveys.append((Source(pool, images, forward, device), "survey"))
        done, total = 0, sum(len(part.images) for part, _ in surveys) + len(images)
        for survey, content in surveys:
            exchange = Exchange(store.path, index, ranks, content)
            engine = engine._surveyed(exchange, survey, together, _after(done, total, progress))
            done += len(survey.images)
        spec, is_committed = together(lambda: engine._begin(store, index, step))
        suggests = False
        if self.asks_people and not is_committed:
            suggests = together(lambda: self._knows_classes(store, step, has_source=source is not None))
            together(lambda: remove_predictions(_annotation(store), index) if ranks.rank == 0 else None)
        part = RankPart(engine.scorer, self.oracle, suggests, store, spec, is_committed, ranks.rank)
        offers = part.candidates(Source(pool, images, forward, device), _after(done, total, progress), watch)
        return engine._run(part, offers, together)

    def _knows_classes(self, store: LabelReader, step: int, *, has_source: bool) -> bool:
        """Return whether the network has seen any label, before the run or in it."""
        if self.begins_trained or step == 0:
            return self.begins_trained
        return has_source or any((store.revealed_label(image.image_id) != VOID).any() for image in store.images)

    def _of_source(
        self, source: Labelled | None, forward: Network, ranks: Ranks, device: torch.device
    ) -> Iterator[tuple[Source, str]]:
        """Yield the images of the source that this rank looks at, if the score wants to know any."""
        if not (wanted := self.scorer.source_images):
            return
        if source is None:
            raise ConfigError("the score compares target and source, and there is no source; use another acquisition")
        images = share_of_rank(evenly_spread(source.count, wanted), source.loader, ranks)
        yield Source(source.loader, images, forward, device), "source"

    def _surveyed(
        self, exchange: Exchange, source: Source, together: Together, progress: Callable[[int, int], None]
    ) -> SelectionEngine:
        """Return this engine with a score that knows what it wants to know of all images of all ranks.

        Raises:
            SelectionError: A rank failed, or no image of the source could be read.
        """

        def own() -> Iterator[tuple[int, list[Survey]]]:
            done = 0
            for batch, outputs in source.batches():
                done += len(batch.get("fault", ()))
                for item, (number, output) in enumerate(zip(batch["index"], outputs, strict=True)):
                    label = batch["label"][item] if exchange.content == "source" else None
                    yield int(number), self.scorer.survey(int(number), output, label)
                    done += 1
                    progress(done, len(source.images))

        try:
            together(lambda: exchange.write_surveys(own()))
            found = together(lambda: _read_surveys(exchange))
        finally:
            exchange.remove()
        if not found:
            return self
        scorer = self.scorer.with_source(found) if exchange.content == "source" else self.scorer.with_pool(found)
        return replace(self, scorer=scorer)

    def _run(self, part: RankPart, offers: Iterator[Candidates], together: Together) -> RoundTally:
        """Ask about the candidates of this rank, and commit the round."""
        ranks, store, spec = together.ranks, part.store, part.spec
        if self.scorer.has_shared_budget:
            exchange = Exchange(store.path, spec.index, ranks)
            try:
                held = together(lambda: exchange.write(offers))
                kept = together(lambda: self._kept(store, spec, exchange))
                together(lambda: part.write(offer.first(int(kept[offer.index])) for offer in held))
            finally:
                exchange.remove()
        else:
            together(lambda: part.write(offers))
        if not part.is_committed:
            together(lambda: self._commit(store, spec, ranks.world_size) if ranks.rank == 0 else None)
            together(lambda: store.await_rounds(spec.index + 1), "is committed, but not all processes see it")
        short = part.tally.short
        if short:
            _log.warning(
                "round %d: %d images had fewer places left than the budget of %d picks: %s",
                spec.index + 1,
                len(short),
                spec.budget,
                dict(list(short.items())[:5]),
            )
        return part.tally

    def _begin(self, store: LabelStore, index: int, step: int) -> tuple[Round, bool]:
        """Return the round, and whether it is committed already."""
        scorer, query, sizes = self.scorer, self.scorer.query, set(self.scorer.label_sizes)
        info: dict[str, Any] = {"acquisition": type(scorer.acquisition).__name__}
        if scorer.has_shared_budget:
            info["budget_per"] = query.budget_per
        radii = {}
        if query.whole_image:
            most = 1
        elif scorer.is_fixed:
            region: Any = scorer.region
            info["region"] = {"shape": type(region).__name__, **asdict(region)}
            most = max(1, *(scorer.most_pixels(size, index) for size in sizes))  # picks, if all were one pixel large
        else:
            most = max(query.most_picks(size, scorer.fed_size(size)) for size in sizes)
            radius = query.suppress_radius
            if query.grid == "training":
                info["grid"] = {"name": "training", "suppress_radius": radius}
                radius = min(scorer.grid(size).label_radius(radius, size) for size in sizes)  # type: ignore[union-attr]
            radii = {"reveal_radius": query.reveal_radius, "suppress_radius": radius}
        spec = store.begin_round(index, step, most, **radii, info=info)
        if index >= store.num_rounds:
            return spec, False
        found = store.rounds[index]
        if found.to_json() != spec.to_json():
            raise RoundConflictError(
                f"{store.path}: round {index} is committed already with other settings ({found.to_json()}, now "
                f"{spec.to_json()}); resume with the same settings, or undo the round first (python -m ripu.labels "
                "undo)"
            )
        return spec, True

    def _commit(self, store: LabelStore, spec: Round, world_size: int) -> None:
        """Commit the round; nobody has answered it before, whatever was closed under its number."""
        if self.asks_people:
            set_aside(_annotation(store), spec.index)
        store.commit_round(spec, world_size)

    def _kept(self, store: LabelStore, spec: Round, exchange: Exchange) -> NDArray[np.int64]:
        """Return how many candidates of each image become picks, after every rank has written its own."""
        scorer, query = self.scorer, self.scorer.query
        scores, costs = exchange.read(len(scorer.image_ids))
        if query.whole_image:
            earlier = ((image, number) for image in scorer.image_ids for number in range(spec.index))
            spent = sum(len(store.picks(image, number).picks) for image, number in earlier)
            budget = query.images_until(len(scorer.image_ids), spec.index) - spent
        elif scorer.is_fixed:  # what was spent also counts for images without candidates
            spent = sum(scorer.spent_pixels(store, spec.index, index) for index in range(len(scorer.image_ids)))
            budget = sum(query.pixels_until(size, spec.index) for size in scorer.label_sizes) - spent
        else:
            budget = sum(query.picks_per_round(size, scorer.fed_size(size)) for size in scorer.label_sizes)
            offered = sum(len(part) for part in scores)
            if offered < budget and exchange.ranks.rank == 0:
                number = spec.index + 1
                _log.warning("round %d: only %d places are left for a budget of %d picks", number, offered, budget)
        return global_cut(scores, costs, budget)


def _annotation(store: LabelStore) -> Path:
    return store.path.parent / ANNOTATION_FOLDER


def _read_surveys(exchange: Exchange) -> list[list[Survey]]:
    """Return what is known of the images of all ranks; nothing known of the source is an error."""
    found = exchange.read_surveys()
    if not found and exchange.content == "source":
        raise SelectionError(
            "none of the source images that the score compares the target with could be read; restore the files "
            "(python -m ripu.doctor lists them), or use another acquisition"
        )
    return found


def _after(before: int, total: int, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Return the progress of a pass that begins after ``before`` of ``total`` images."""
    return lambda done, _: progress(before + done, total)
