"""One selection round: every target image is scored, the best places are picked, asked about and committed."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.acquisition import Acquisition, ScoreMaps
from ripu.datasets.taxonomy import VOID
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Round, square_regions
from ripu.sampling import seed_of
from ripu.selection.oracle import Oracle
from ripu.selection.picks import greedy_picks
from ripu.selection.query import Query

_log = logging.getLogger(__name__)


class SelectionError(RuntimeError):
    """A round failed; nothing of it was committed."""


class Ranks(Protocol):
    """The processes of a job, as far as a round needs them."""

    rank: int
    world_size: int

    def all_true(self, value: bool) -> bool:
        """Whether the value is True on every rank; waits for all of them."""


class OneProcess:
    """A job of one process."""

    rank = 0
    world_size = 1

    def all_true(self, value: bool) -> bool:
        """The value itself."""
        return value


@dataclass
class RoundTally:
    """What one rank did in a round.

    Attributes:
        images: Images scored.
        picks: Places picked.
        short: Images with fewer picks than the budget, by image id.
        impurity: Sum over picks of the region impurity, where the score computes it.
        uncertainty: Sum over picks of the prediction uncertainty, where the score computes it.
    """

    images: int = 0
    picks: int = 0
    short: dict[str, int] = field(default_factory=dict)
    impurity: float = 0.0
    uncertainty: float = 0.0


@dataclass(frozen=True)
class SelectionEngine:
    """Runs rounds.

    Attributes:
        acquisition: The score.
        query: Radii and budget.
        oracle: Who answers.
        image_ids: Image ids in the order of the data set.
        label_sizes: (H, W) of every label, in the same order.
        train_size: (h, w) that images are fed at.
        seed: Seed of random scores.
        excluded: Reads the static mask of an image, (H, W) bool, True where nothing may be asked; None for no mask.
    """

    acquisition: Acquisition
    query: Query
    oracle: Oracle
    image_ids: tuple[str, ...]
    label_sizes: tuple[tuple[int, int], ...]
    train_size: tuple[int, int]
    seed: int
    excluded: Callable[[int], NDArray[np.bool_]] | None = None

    def run(
        self,
        store: LabelStore,
        index: int,
        step: int,
        *,
        network: Callable[[Tensor], Tensor],
        pool: Callable[[list[int]], DataLoader[Any]],
        device: torch.device,
        ranks: Ranks | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> RoundTally:
        """Score, pick, ask and commit one round.

        Args:
            store: The run's label store; open for writing on rank 0.
            index: Number of the round, from 0.
            step: Training step of the round.
            network: uint8 images (B, 3, h, w) -> logits (B, C, h, w), without gradient, in evaluation mode.
            pool: Makes a loader over the images of the given indices, in that order.
            device: Where images are put.
            ranks: The processes that share the work; this one alone by default.
            progress: Called with images done and images of this rank.

        Returns:
            What this rank did.

        Raises:
            SelectionError: The round failed on this rank or on another; nothing is committed.
        """
        ranks = ranks or OneProcess()
        tally = RoundTally()
        spec = store.begin_round(
            index,
            step,
            max(self.query.picks_per_round(size, self.train_size) for size in self.label_sizes),
            reveal_radius=self.query.reveal_radius,
            suppress_radius=self.query.suppress_radius,
            info={"acquisition": type(self.acquisition).__name__},
        )
        mine = list(range(ranks.rank, len(self.image_ids), ranks.world_size))

        def attempt(work: Callable[[], Any]) -> None:
            failure: Exception | None = None
            try:
                work()
            except Exception as error:
                failure = error
            if not ranks.all_true(failure is None):
                cause = f"{type(failure).__name__}: {failure}" if failure else "another process of the job failed"
                raise SelectionError(f"round {index} at step {step} was not committed: {cause}") from failure

        attempt(
            lambda: store.write_shard(
                spec, ranks.rank, self._records(store, spec, mine, network, pool, device, tally, progress)
            )
        )
        attempt(lambda: store.commit_round(spec, ranks.world_size) if ranks.rank == 0 else None)
        if tally.short:
            _log.warning(
                "round %d: %d images had fewer places left than the budget of %d picks: %s",
                index,
                len(tally.short),
                spec.budget,
                dict(list(tally.short.items())[:5]),
            )
        return tally

    def _records(
        self,
        store: LabelStore,
        spec: Round,
        indices: list[int],
        network: Callable[[Tensor], Tensor],
        pool: Callable[[list[int]], DataLoader[Any]],
        device: torch.device,
        tally: RoundTally,
        progress: Callable[[int, int], None],
    ) -> Iterator[ImagePicks | ImageAnswers]:
        for batch in pool(indices):
            with torch.no_grad():
                logits = network(batch["image"].to(device))
            for item, index in enumerate(batch["index"]):
                maps = self._score(logits[item : item + 1], batch["image"][item], index, spec.index)
                yield from self._ask(store, spec, index, maps, tally)
                tally.images += 1
                progress(tally.images, len(indices))

    def _score(self, logits: Tensor, image: Tensor, index: int, round_index: int) -> ScoreMaps:
        extra: Mapping[str, Any] = {}
        if self.acquisition.needs_image:
            extra = {"images": image.permute(1, 2, 0)[None].contiguous()}
        key = seed_of(self.seed, round_index, zlib.crc32(self.image_ids[index].encode()), index)
        try:
            return self.acquisition(logits, self.label_sizes[index], [key], **extra)
        except ValueError as error:
            raise SelectionError(f"image {self.image_ids[index]!r} cannot be scored: {error}") from error

    def _ask(
        self, store: LabelStore, spec: Round, index: int, maps: ScoreMaps, tally: RoundTally
    ) -> Iterator[ImagePicks | ImageAnswers]:
        image_id, (height, width) = self.image_ids[index], self.label_sizes[index]
        blocked = store.suppressed(image_id, spec.index)
        if self.excluded is not None:
            blocked |= self.excluded(index)
        budget = self.query.picks_per_round((height, width), self.train_size)
        score = maps.score[0]
        tie_break = None if maps.tie_break is None else maps.tie_break[0]
        available = torch.from_numpy(~blocked).to(score.device)
        picks = greedy_picks(score, budget, self.query.suppress_radius, available, tie_break)
        rows, columns = picks[:, 0], picks[:, 1]
        if len(picks) < budget:
            tally.short[image_id] = len(picks)
        tally.picks += len(picks)
        if maps.impurity is not None:
            tally.impurity += float(maps.impurity[0][rows, columns].double().sum())
        if maps.uncertainty is not None:
            tally.uncertainty += float(maps.uncertainty[0][rows, columns].double().sum())
        places = picks.cpu().numpy()
        yield ImagePicks(image_id, places, score[rows, columns].float().cpu().numpy())
        pixels = square_regions(places, self.query.reveal_radius, height, width).indices
        labels, is_known = store.answered(image_id, pixels)
        missing = pixels[~is_known]
        if len(missing):
            answer = self.oracle.answer(image_id, missing // width, missing % width)
            if answer is None:  # nobody has answered yet; what is known stays known
                pixels, labels = pixels[is_known], labels[is_known]
            else:
                labels = labels.copy()
                labels[~is_known] = answer
        if len(pixels):
            yield ImageAnswers(image_id, pixels, labels)


@dataclass(frozen=True)
class RoundReport:
    """What a round revealed, over all ranks.

    Attributes:
        index: Number of the round, from 0.
        step: Training step.
        picks: Places picked in this round.
        labelled_fraction: Share of all target pixels that have been asked about so far.
        void_fraction: Share of the pixels asked about so far whose answer was void.
        class_pixels: Revealed pixels so far by class name.
        seconds: Duration of the round.
        images_per_second: Images scored a second, over all ranks.
        mean_impurity: Mean region impurity of this rank's picks in nats; None where the score has none.
        mean_uncertainty: Mean uncertainty of this rank's picks in nats; None where the score has none.
    """

    index: int
    step: int
    picks: int
    labelled_fraction: float
    void_fraction: float
    class_pixels: Mapping[str, int]
    seconds: float
    images_per_second: float
    mean_impurity: float | None
    mean_uncertainty: float | None


def report_round(store: LabelStore, index: int, tally: RoundTally, started: float) -> RoundReport:
    """Sum up a committed round.

    Args:
        store: The label store after the commit.
        index: Number of the round.
        tally: What this rank did.
        started: ``time.monotonic()`` at the start of the round.
    """
    seconds = time.monotonic() - started
    spec = store.rounds[index]
    counts = np.zeros(256, dtype=np.int64)
    picks = asked = total = 0
    for image in store.images:
        total += image.height * image.width
        regions = [store.asked(image.image_id, earlier) for earlier in range(index + 1)]
        picks += len(regions[index])
        labels, is_known = store.answered(image.image_id, np.concatenate([region.indices for region in regions]))
        asked += len(labels)
        counts += np.bincount(labels[is_known], minlength=256)
    return RoundReport(
        index=index,
        step=spec.step,
        picks=picks,
        labelled_fraction=asked / total,
        void_fraction=float(counts[VOID]) / asked if asked else 0.0,
        class_pixels={name: int(counts[train_id]) for train_id, name in enumerate(store.class_names)},
        seconds=seconds,
        images_per_second=len(store.images) / seconds,
        mean_impurity=tally.impurity / tally.picks if tally.picks and tally.impurity else None,
        mean_uncertainty=tally.uncertainty / tally.picks if tally.picks and tally.uncertainty else None,
    )
