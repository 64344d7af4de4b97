"""One selection round: every target image is scored, the best places are picked, asked about and committed."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.acquisition import Acquisition, ScoreMaps
from ripu.datasets.errors import Fault, SkippedFileError
from ripu.io.errors import ConfigError
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Round, RoundConflictError, square_regions
from ripu.loading.order import seed_of
from ripu.regions import RegionShape
from ripu.selection.candidates import Candidates, check_fixed, fixed_candidates, global_cut, grown, window_candidates
from ripu.selection.forward import Forward
from ripu.selection.grid import TrainingGrid
from ripu.selection.oracles import Oracle
from ripu.selection.query import Query
from ripu.selection.ranks import Exchange, OneProcess, Ranks, SelectionError, Together

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """Somebody who looks at a few images while a round goes over all of them, e.g. for a report."""

    def wants(self, index: int) -> bool:
        """Whether an image, by its position, is one of them."""

    def see(self, number: int, index: int, logits: Tensor, maps: ScoreMaps) -> None:
        """Take the logits (1, C, h, w) and the maps (1, H, W) of an image in round ``number``, before it is asked about."""


@dataclass
class RoundTally:
    """What one rank did in a round.

    Attributes:
        images: Images scored.
        picks: Places picked.
        short: Images with fewer picks than the budget, by image id.
        unreadable: Files that could not be read; their images were asked for nothing.
        impurity: Sum over picks of the region impurity, where the score computes it.
        uncertainty: Sum over picks of the prediction uncertainty, where the score computes it.
    """

    images: int = 0
    picks: int = 0
    short: dict[str, int] = field(default_factory=dict)
    unreadable: list[Fault] = field(default_factory=list)
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
        region: The shape of regions; None for the squares of the query.
    """

    acquisition: Acquisition
    query: Query
    oracle: Oracle
    image_ids: tuple[str, ...]
    label_sizes: tuple[tuple[int, int], ...]
    train_size: tuple[int, int]
    seed: int
    excluded: Callable[[int], NDArray[np.bool_]] | None = None
    region: RegionShape | None = None

    def __post_init__(self) -> None:
        if self.is_fixed:
            if self.query.pixel:
                raise ConfigError(
                    "mode.pixel=true asks for single pixels and region._target_="
                    f"{type(self.region).__name__} for whole regions; use mode=ra, or region=square"
                )
            check_fixed(self.acquisition)
        for size in set(self.label_sizes):
            self._grid(size)

    @property
    def is_fixed(self) -> bool:
        """Whether images are cut into regions beforehand."""
        return self.region is not None and self.region.is_fixed

    @property
    def needs_image(self) -> bool:
        """Whether scores or regions read the image itself, not its logits alone."""
        is_cut_by_image = self.is_fixed and self.region is not None and self.region.needs_image
        return self.acquisition.needs_image or is_cut_by_image

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
        watch: Watch | None = None,
    ) -> RoundTally:
        """Score, pick, ask and commit one round.

        A round that is committed already (the run was stopped before its next checkpoint and takes the step again) stands
        as it is, whatever would be picked now: images are scored and counted, nobody is asked and nothing is written.

        Whole forward batches are dealt to the ranks in turn, in the order of the images, so that an image is in the same
        batch whatever the number of ranks.

        Args:
            store: The run's label store; open for writing on rank 0.
            index: Number of the round, from 0.
            step: Training step of the round.
            network: uint8 images (B, 3, h, w) -> logits (B, C, h, w), without gradient, in evaluation mode.
            pool: Makes a loader over the images of the given indices, in that order. Its batches hold ``index`` and
                ``image``; one that holds ``logits`` as well is not sent through the network, and needs an ``image`` only
                where :attr:`needs_image`.
            device: Where images are put.
            ranks: The processes that share the work; this one alone by default.
            progress: Called with images done and images of this rank.
            watch: Shown the maps of the images that it wants, on the rank that scores them.

        Returns:
            What this rank did.

        Raises:
            SelectionError: The round failed on this rank or on another; nothing is committed. Or it is committed, and a
                rank on another machine does not see it.
        """
        ranks = ranks or OneProcess()
        together = Together(ranks, f"round {index} at step {step}")
        spec, is_committed = together(lambda: self._begin(store, index, step))
        part = _Part(self, store, spec, is_committed, ranks.rank)
        mine = _dealt(list(range(len(self.image_ids))), pool, ranks)
        offers = part.candidates(pool, mine, Forward(network, device), progress, watch)
        if self.query.budget_per == "image":
            together(lambda: part.write(offers))
        else:
            exchange = Exchange(store.path, index, ranks)
            try:
                held: list[Candidates] = []
                together(lambda: exchange.write(held, offers))
                kept = together(lambda: self._kept(store, spec, exchange))
                together(lambda: part.write(offer.first(int(kept[offer.index])) for offer in held))
            finally:
                exchange.remove()
        if not is_committed:
            together(lambda: store.commit_round(spec, ranks.world_size) if ranks.rank == 0 else None)
            together(lambda: store.await_rounds(index + 1), "is committed, but not all processes see it")
        part.warn_of_short()
        return part.tally

    def would_ask(self, logits: Tensor, image: Tensor | None, size: tuple[int, int]) -> NDArray[np.int64]:
        """Where the first round would ask on an image outside the pool, e.g. for a picture.

        Args:
            logits: (1, C, h, w).
            image: (3, h, w) uint8 where :attr:`needs_image`.
            size: (H, W) of the result.

        Returns:
            (M,) int64 flat indices of pixels; none where the training grid does not fit into the size.
        """
        if self.query.grid == "training" and not all(
            own >= fed for own, fed in zip(size, self.train_size, strict=True)
        ):
            return np.zeros(0, dtype=np.int64)
        nothing = np.zeros(size, dtype=np.bool_)
        if self.is_fixed:
            limit = self.query.pixels_until(size, 0)
            regions = self._fixed(-1, logits, image, size, 0, nothing, None, limit, at_least_one=True).regions
            assert regions is not None
            return regions.indices
        grid = self._grid(size)
        maps = self._score(logits, image, size if grid is None else self.train_size, 0)
        picks = self.query.picks_per_round(size, self.train_size)
        nothing = nothing if grid is None else grid.sample(nothing)
        places = window_candidates(-1, maps, nothing, picks, self.query.suppress_radius).places
        places = places if grid is None else grid.to_label(places)
        return square_regions(places, self.query.reveal_radius, *size).indices

    def _begin(self, store: LabelStore, index: int, step: int) -> tuple[Round, bool]:
        """The round, and whether it is committed already."""
        spec = self._describe(store, index, step)
        if index >= store.num_rounds:
            return spec, False
        found = store.rounds[index]
        if found.to_json() != spec.to_json():
            raise RoundConflictError(
                f"{store.path}: round {index} is committed already with other settings ({found.to_json()}, now "
                f"{spec.to_json()}); go on with the same ones, or undo it first (python -m ripu.labels undo)"
            )
        return spec, True

    def _describe(self, store: LabelStore, index: int, step: int) -> Round:
        query, sizes = self.query, set(self.label_sizes)
        info: dict[str, Any] = {"acquisition": type(self.acquisition).__name__}
        if query.budget_per != "image":
            info["budget_per"] = query.budget_per
        if not self.is_fixed:
            most = max(query.most_picks(size, self.train_size) for size in sizes)
            suppressed = query.suppress_radius
            if query.grid == "training":
                info["grid"] = {"name": "training", "suppress_radius": suppressed}
                suppressed = min(self._grid(size).label_radius(suppressed, size) for size in sizes)  # type: ignore[union-attr]
            return store.begin_round(
                index, step, most, reveal_radius=query.reveal_radius, suppress_radius=suppressed, info=info
            )
        info["region"] = {"shape": type(self.region).__name__, **asdict(self.region)}  # type: ignore[call-overload]
        most = max(1, *(self._most_pixels(size, index) for size in sizes))  # if each were one pixel large
        return store.begin_round(index, step, most, info=info)

    def _candidates(
        self, store: LabelStore, spec: Round, index: int, logits: Tensor, image: Tensor | None
    ) -> Candidates:
        image_id, size = self.image_ids[index], self.label_sizes[index]
        key = self._key(spec, index)
        excluded = None if self.excluded is None else self.excluded(index)
        is_shared = self.query.budget_per != "image"
        try:
            if self.is_fixed:
                asked = store.asked_mask(image_id, spec.index)
                limit = self._most_pixels(size, spec.index) - (0 if is_shared else self._spent(store, spec)(index))
                return self._fixed(index, logits, image, size, key, asked, excluded, limit, at_least_one=is_shared)
            blocked = store.suppressed(image_id, spec.index)
            if store.carried:  # of any shape: no square may reach into it
                blocked |= grown(store.asked_mask(image_id, 0), self.query.reveal_radius)
            if excluded is not None:  # no square may reach into it either
                blocked |= grown(excluded, self.query.reveal_radius)
            grid = self._grid(size)
            if grid is not None:
                blocked = grid.sample(blocked)
                before = [(one, store.picks(image_id, one.index)) for one in store.rounds_as_of(spec.index)]
                for earlier, record in (*store.carried_picks(image_id), *before):
                    if "grid" in earlier.info:  # such a round kept its distance on the grid, which is a little more
                        blocked |= grid.near(record.picks, int(earlier.info["grid"]["suppress_radius"]))
            maps = self._score(logits, image, size if grid is None else self.train_size, key)
        except ValueError as error:
            raise SelectionError(f"image {image_id!r} cannot be scored: {error}") from error
        most = self.query.most_picks(size, self.train_size)
        offer = window_candidates(index, maps, blocked, most, self.query.suppress_radius)
        return offer if grid is None else replace(offer, places=grid.to_label(offer.places))

    def _grid(self, size: tuple[int, int]) -> TrainingGrid | None:
        """The pixels that picks are restricted to; None where they may lie anywhere on the label."""
        return TrainingGrid.between(size, self.train_size) if self.query.grid == "training" else None

    def _key(self, spec: Round, index: int) -> int:
        return seed_of(self.seed, spec.index, zlib.crc32(self.image_ids[index].encode()), index)

    def _maps(self, spec: Round, index: int, logits: Tensor, image: Tensor | None) -> ScoreMaps:
        """The maps of windows or pixels, also where regions are of fixed shape."""
        return self._score(logits, image, self.label_sizes[index], self._key(spec, index))

    def _most_pixels(self, size: tuple[int, int], round_index: int) -> int:
        """Most pixels of fixed regions: until the round's end, or in the round where images share the budget."""
        if self.query.budget_per == "image":
            return self.query.pixels_until(size, round_index)
        return int(round(self.query.image_cap * size[0] * size[1] * self.query.budget / self.query.num_rounds, 9))

    def _fixed(
        self,
        index: int,
        logits: Tensor,
        image: Tensor | None,
        size: tuple[int, int],
        key: int,
        asked: NDArray[np.bool_],
        excluded: NDArray[np.bool_] | None,
        limit_px: int,
        *,
        at_least_one: bool,
    ) -> Candidates:
        assert self.region is not None
        picture = (
            image.permute(1, 2, 0).contiguous().cpu().numpy() if self.region.needs_image and image is not None else None
        )
        partition = self.region.partition(size, picture)
        if excluded is not None:
            partition = np.where(excluded, np.int32(-1), partition)
        return fixed_candidates(
            index,
            self.acquisition,
            logits,
            partition,
            key,
            asked,
            limit_px,
            at_least_one=at_least_one,
            extra=self._extra(image),
        )

    def _extra(self, image: Tensor | None) -> dict[str, Any]:
        if not self.acquisition.needs_image:
            return {}
        assert image is not None
        return {"images": image.permute(1, 2, 0)[None].contiguous()}

    def _score(self, logits: Tensor, image: Tensor | None, size: tuple[int, int], key: int) -> ScoreMaps:
        return self.acquisition(logits, size, [key], **self._extra(image))

    def _spent(self, store: LabelStore, spec: Round) -> Callable[[int], int]:
        """Pixels of an image that earlier rounds of this run asked for; 0 where the budget counts picks."""
        if not self.is_fixed:
            return lambda index: 0
        return lambda index: int(store.asked_mask(self.image_ids[index], spec.index, with_carried=False).sum())

    def _kept(self, store: LabelStore, spec: Round, exchange: Exchange) -> NDArray[np.int64]:
        """How many candidates of each image are asked for, after every rank has written its own."""
        scores, costs = exchange.read(len(self.image_ids))
        if self.is_fixed:
            spent = sum(
                map(self._spent(store, spec), range(len(self.image_ids)))
            )  # also of images that offer nothing now
            budget = sum(self.query.pixels_until(size, spec.index) for size in self.label_sizes) - spent
        else:
            budget = sum(self.query.picks_per_round(size, self.train_size) for size in self.label_sizes)
            offered = sum(len(one) for one in scores)
            if offered < budget and exchange.ranks.rank == 0:
                _log.warning("round %d: only %d places are left for a budget of %d picks", spec.index, offered, budget)
        return global_cut(scores, costs, budget)


@dataclass
class _Part:
    """One rank's part of a round."""

    engine: SelectionEngine
    store: LabelStore
    spec: Round
    is_committed: bool
    rank: int
    tally: RoundTally = field(default_factory=RoundTally)

    def candidates(
        self,
        pool: Callable[[list[int]], DataLoader[Any]],
        images: list[int],
        forward: Forward,
        progress: Callable[[int, int], None],
        watch: Watch | None,
    ) -> Iterator[Candidates]:
        """What each of the images offers; begins to read when it is first asked for one."""
        engine, tally = self.engine, self.tally
        for batch in pool(images):
            for fault in batch.get("fault", ()):
                tally.unreadable.append(fault)
                tally.images += 1
                progress(tally.images, len(images))
            for item, (image, logits) in enumerate(zip(batch["index"], forward(batch), strict=True)):
                pixels = batch["image"][item] if engine.needs_image else None
                offer = engine._candidates(self.store, self.spec, int(image), logits, pixels)
                if watch is not None and watch.wants(offer.index):
                    watch.see(
                        self.spec.index, offer.index, logits, engine._maps(self.spec, offer.index, logits, pixels)
                    )
                yield offer
                tally.images += 1
                progress(tally.images, len(images))

    def write(self, offers: Iterator[Candidates]) -> None:
        """Ask about what is offered and write picks and answers; of a committed round, compare the picks."""
        oracle = _Nobody() if self.is_committed else self.engine.oracle
        records = (record for offer in offers for record in self._ask(offer, oracle))
        if not self.is_committed:
            self.store.write_shard(self.spec, self.rank, records)
            return
        differing = sum(_differs(self.store, self.spec, one) for one in records if isinstance(one, ImagePicks))
        if differing:
            _log.warning(
                "round %d is committed, and on %d images this device now computes other picks than it did then; the "
                "committed ones stand, nobody is asked again",
                self.spec.index,
                differing,
            )

    def _ask(self, offer: Candidates, oracle: Oracle) -> Iterator[ImagePicks | ImageAnswers]:
        """Picks and answers of one image; nothing of one whose answers cannot be read."""
        engine, tally = self.engine, self.tally
        image_id, (height, width) = engine.image_ids[offer.index], engine.label_sizes[offer.index]
        if offer.regions is None:
            pixels = square_regions(offer.places, engine.query.reveal_radius, height, width).indices
        else:
            pixels = offer.regions.indices
        labels, is_known = self.store.answered(image_id, pixels)
        missing = pixels[~is_known]
        answer = None
        if len(missing):
            try:
                answer = oracle.answer(image_id, missing // width, missing % width)
            except SkippedFileError as skipped:
                tally.unreadable.append(skipped.fault)
                return
        has_own_budget = not engine.is_fixed and engine.query.budget_per == "image"
        if has_own_budget and len(offer) < engine.query.picks_per_round((height, width), engine.train_size):
            tally.short[image_id] = len(offer)
        tally.picks += len(offer)
        if offer.impurity is not None:
            tally.impurity += float(torch.from_numpy(offer.impurity).sum())
        if offer.uncertainty is not None:
            tally.uncertainty += float(torch.from_numpy(offer.uncertainty).sum())
        yield ImagePicks(image_id, offer.places, offer.scores, offer.regions)
        if len(missing):
            if answer is None:  # nobody has answered yet; what is known stays known
                pixels, labels = pixels[is_known], labels[is_known]
            else:
                labels = labels.copy()
                labels[~is_known] = answer
        if len(pixels):
            yield ImageAnswers(image_id, pixels, labels)

    def warn_of_short(self) -> None:
        """Say which images had less to offer than the budget."""
        if self.tally.short:
            _log.warning(
                "round %d: %d images had fewer places left than the budget of %d picks: %s",
                self.spec.index,
                len(self.tally.short),
                self.spec.budget,
                dict(list(self.tally.short.items())[:5]),
            )


def _dealt(images: list[int], pool: Callable[[list[int]], DataLoader[Any]], ranks: Ranks) -> list[int]:
    """The images of this rank: whole batches of the pool, in turn."""
    size = getattr(pool(images), "batch_size", None) or 1
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    return [image for batch in batches[ranks.rank :: ranks.world_size] for image in batch]


class _Nobody:
    """Answers nothing: for rounds that are not to be asked again."""

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """See :class:`ripu.selection.oracles.Oracle`."""


def _differs(store: LabelStore, spec: Round, record: ImagePicks) -> bool:
    committed = store.picks(record.image_id, spec.index).picks
    return not np.array_equal(committed, np.asarray(record.picks))
