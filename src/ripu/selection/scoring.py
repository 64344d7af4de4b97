"""From the logits of a target image to its candidates, under the query and the rounds so far."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import Acquisition, Features, ScoreMaps
from ripu.acquisition.nested import (
    Survey,
    arguments_of,
    check_split,
    for_round,
    needs_features,
    split,
    survey,
    survey_source,
    surveying,
    with_kept,
    with_parts,
    with_pool,
    with_source,
)
from ripu.datasets.proportions import Fit, fitted
from ripu.functional import check_finite
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelReader, Round, square_regions
from ripu.loading.order import seed_of
from ripu.regions import RegionShape
from ripu.selection.candidates import Candidates, fixed_candidates, grown, joined, whole_candidate
from ripu.selection.forward import Output
from ripu.selection.grid import TrainingGrid
from ripu.selection.picks import fair_picks, picks_and_values, values_at
from ripu.selection.query import Query
from ripu.selection.ranks import SelectionError


@dataclass(frozen=True)
class Scorer:
    """Scores the target images of a run.

    Attributes:
        acquisition: The score.
        query: Radii and budget.
        image_ids: Image ids in the order of the data set.
        label_sizes: (H, W) of every label, in the same order.
        train_size: (h, w) that images are fed at, or into which they fit; see :meth:`fed_size`.
        seed: Seed of random scores.
        excluded: Reads the static mask of an image, (H, W) bool, True where nothing may be queried; None for no mask.
        region: The shape of regions; None for the squares of the query.
        fit: ``stretch`` images to ``train_size``, or keep their proportions inside it.
        first_round: The score of the first round; None for that of all rounds.
    """

    acquisition: Acquisition
    query: Query
    image_ids: tuple[str, ...]
    label_sizes: tuple[tuple[int, int], ...]
    train_size: tuple[int, int]
    seed: int
    excluded: Callable[[int], NDArray[np.bool_]] | None = None
    region: RegionShape | None = None
    fit: Fit = "stretch"
    first_round: Acquisition | None = None

    def __post_init__(self) -> None:
        for score in self._scores:
            check_split(score)
        single = [type(score).__name__ for score in self._scores if not getattr(score, "is_comparable", True)]
        if self.has_shared_budget and single:
            raise ConfigError(
                "mode.budget_per=dataset compares the scores of all images, but this score shares out the picks of "
                f"each image ({', '.join(single)}); use mode.budget_per=image, or another score"
            )
        if self.is_fixed:
            if self.query.pixel:
                raise ConfigError(
                    "mode.pixel=true asks for single pixels and region._target_="
                    f"{type(self.region).__name__} for whole regions; use mode=ra, or region=square"
                )
            numerics = {getattr(part, "numerics", "exact") for score in self._scores for part in with_parts(score)}
            if numerics != {"exact"}:
                raise ConfigError(
                    "acquisition.numerics=released (protocol.score_numerics, where that is not given) is defined "
                    "only for square windows; give acquisition.numerics=exact, or region=square"
                )
        for size in set(self.label_sizes):
            self.grid(size)

    @property
    def _scores(self) -> tuple[Acquisition, ...]:
        return (self.acquisition,) if self.first_round is None else (self.first_round, self.acquisition)

    def of_round(self, round_index: int) -> Scorer:
        """Return this scorer with the score of a round as that of all rounds."""
        score = self._scores[min(round_index, 1) if self.first_round is not None else 0]
        return replace(self, acquisition=for_round(score, round_index, self.query.num_rounds), first_round=None)

    @property
    def needs_survey(self) -> bool:
        """True if the score must know the pool before it scores the first image."""
        return any(surveying(self.acquisition))

    @property
    def needs_features(self) -> bool:
        """True if the score reads features of the network."""
        return needs_features(self.acquisition)

    @property
    def source_images(self) -> int:
        """The most images of the source that the score wants to know; 0 for most scores."""
        return max((one.source_images for one in surveying(self.acquisition, "survey_source")), default=0)

    def survey(self, index: int, output: Output, label: Tensor | None = None) -> list[Survey]:
        """Return what the score wants to know of the ``index``-th image, or with a ``label`` of that of the source.

        Raises:
            SelectionError: The output of the network is not finite.
        """
        try:
            if label is not None:
                return survey_source(self.acquisition, output.logits, output.features, label)
            return survey(self.acquisition, output.logits, output.features)
        except ValueError as error:
            name = f"image {self.image_ids[index]!r}" if label is None else f"image {index} of the source (from 0)"
            raise SelectionError(f"{name} cannot be scored: {error}") from error

    def with_pool(self, found: Sequence[Sequence[Survey]]) -> Scorer:
        """Return this scorer with a score that knows what :meth:`survey` found, in the order of the images."""
        return replace(self, acquisition=with_pool(self.acquisition, found))

    def with_source(self, found: Sequence[Sequence[Survey]]) -> Scorer:
        """Return this scorer with a score that knows what :meth:`survey` found in the source."""
        return replace(self, acquisition=with_source(self.acquisition, found))

    def with_kept(self, kept: Any) -> Scorer:
        """Return this scorer with a score that knows what the objective keeps beside the network."""
        return replace(self, acquisition=with_kept(self.acquisition, kept))

    @property
    def is_fixed(self) -> bool:
        """True if images are cut into regions beforehand."""
        return self.region is not None and self.region.is_fixed

    @property
    def needs_image(self) -> bool:
        """True if scores or regions read the image itself, not only its logits."""
        return self.acquisition.needs_image or (self.region is not None and self.is_fixed and self.region.needs_image)

    @property
    def has_shared_budget(self) -> bool:
        """True if all images share the budget."""
        return self.query.budget_per != "image"

    def grid(self, size: tuple[int, int]) -> TrainingGrid | None:
        """Return the pixels of a label of this size that picks are restricted to; None if they may lie anywhere."""
        return TrainingGrid.between(size, self.fed_size(size)) if self.query.grid == "training" else None

    def fed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) at which the network sees an image whose label has ``size``."""
        return fitted(size, self.train_size, self.fit)

    def most_pixels(self, size: tuple[int, int], round_index: int) -> int:
        """Return the most pixels of fixed regions by the end of the round, or in it if images share the budget."""
        if not self.has_shared_budget:
            return self.query.pixels_until(size, round_index)
        return int(round(self.query.image_cap * size[0] * size[1] * self.query.budget / self.query.num_rounds, 9))

    def spent_pixels(self, store: LabelReader, round_index: int, index: int) -> int:
        """Return the pixels of an image that earlier rounds of this run queried."""
        return int(store.asked_mask(self.image_ids[index], round_index, with_carried=False).sum())

    def candidates(
        self,
        store: LabelReader,
        spec: Round,
        index: int,
        logits: Tensor,
        image: Tensor | None,
        features: Features | None = None,
    ) -> Candidates:
        """Return the candidates of the ``index``-th image in a round, after the rounds so far in ``store``.

        Args:
            logits: (1, C, h, w).
            image: (bands, h, w) uint8 if :attr:`needs_image`.
            features: Those of the image if :attr:`needs_features`.

        Raises:
            SelectionError: The image cannot be scored, e.g. because its logits are not finite.
        """
        image_id, size, key = self.image_ids[index], self.label_sizes[index], self._key(spec.index, index)
        seen = _Seen(index, key, logits, image, features)
        try:
            if self.query.whole_image:
                return whole_candidate(
                    index, seen.scored(self.acquisition, size), self._closed(store, spec.index, index)
                )
            excluded = None if self.excluded is None else self.excluded(index)
            if self.is_fixed:
                asked = store.asked_mask(image_id, spec.index)
                limit = self.most_pixels(size, spec.index)
                if not self.has_shared_budget:
                    limit -= self.spent_pixels(store, spec.index, index)
                return self._fixed(seen, asked, excluded, limit, self.has_shared_budget)
            blocked = self._blocked(store, spec.index, index, excluded)
            return self._windows(seen, blocked, self.query.most_picks(size, self.fed_size(size)))
        except ValueError as error:
            raise SelectionError(f"image {image_id!r} cannot be scored: {error}") from error

    def open_pixels(self, store: LabelReader, round_index: int, index: int) -> NDArray[np.int64]:
        """Return the pixels that a pick of the whole ``index``-th image asks about, flat indices (M,) int64, ascending.

        They are those that no earlier round asked about, and nothing excludes.
        """
        return np.flatnonzero(~self._closed(store, round_index, index))

    def _closed(self, store: LabelReader, round_index: int, index: int) -> NDArray[np.bool_]:
        """Return where a whole image is not asked about, (H, W) bool."""
        asked = store.asked_mask(self.image_ids[index], round_index)
        return asked if self.excluded is None else asked | self.excluded(index)

    def maps(
        self, round_index: int, index: int, logits: Tensor, image: Tensor | None, features: Features | None = None
    ) -> ScoreMaps:
        """Return the maps of windows or pixels of an image, even if regions have a fixed shape."""
        seen = _Seen(index, self._key(round_index, index), logits, image, features)
        try:
            return seen.scored(self.acquisition, self.label_sizes[index])
        except ValueError as error:
            raise SelectionError(f"image {self.image_ids[index]!r} cannot be scored: {error}") from error

    def would_ask(self, logits: Tensor, image: Tensor | None, size: tuple[int, int]) -> NDArray[np.int64]:
        """Return the pixels that the first round would query in an image outside the pool, e.g. for a picture.

        They are (M,) int64 flat indices for an image of ``size`` (H, W); none if the training grid does not fit into
        it. For ``logits`` and ``image`` see :meth:`candidates`.
        """
        is_on_grid, fed = self.query.grid == "training", self.fed_size(size)
        if self.query.whole_image:  # it would be all or nothing
            return np.zeros(0, dtype=np.int64)
        if is_on_grid and (size[0] < fed[0] or size[1] < fed[1]):
            return np.zeros(0, dtype=np.int64)
        scorer, nothing = replace(self, image_ids=("",), label_sizes=(size,)), np.zeros(size, dtype=np.bool_)
        if self.is_fixed:
            limit = self.query.pixels_until(size, 0)
            regions = scorer._fixed(_Seen(0, 0, logits, image), nothing, None, limit, at_least_one=True).regions
            assert regions is not None
            return regions.indices
        blocked = np.zeros(fed, dtype=np.bool_) if is_on_grid else nothing
        num_picks = self.query.picks_per_round(size, fed)
        places = scorer._windows(_Seen(0, 0, logits, image), blocked, num_picks).places
        return square_regions(places, self.query.reveal_radius, *size).indices

    def _blocked(
        self, store: LabelReader, round_index: int, index: int, excluded: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        """Return where nothing may be picked, (H, W) bool, or (h, w) on the training grid."""
        image_id, radius = self.image_ids[index], self.query.reveal_radius
        blocked = store.suppressed(image_id, round_index)
        if store.carried:  # may have any shape: no square may reach into it
            blocked |= grown(store.asked_mask(image_id, 0), radius)
        if excluded is not None:
            blocked |= grown(excluded, radius)
        grid = self.grid(self.label_sizes[index])
        if grid is None:
            return blocked
        blocked = blocked[np.ix_(grid.rows, grid.columns)]
        for earlier, record in store.picks_as_of(image_id, round_index):
            if "grid" in earlier.info:  # its picks kept their distance on the grid, which is a little more
                blocked |= grid.near(record.picks, int(earlier.info["grid"]["suppress_radius"]))
        return blocked

    def _windows(self, seen: _Seen, blocked: NDArray[np.bool_], num_picks: int) -> Candidates:
        """Return the places that the scores of the acquisition pick, each its share of them."""
        found: list[Candidates] = []
        radius, grid, share = self.query.suppress_radius, self.grid(self.label_sizes[seen.index]), 0.0
        for part, score in split(self.acquisition):
            share += part
            wanted = math.ceil(round(share * num_picks, 9)) - sum(map(len, found))
            if found and wanted == 0:
                continue
            if found:
                picked = found[-1].places
                if grid is None:
                    near = np.zeros_like(blocked)
                    near[picked[:, 0], picked[:, 1]] = True
                    blocked = blocked | grown(near, radius)
                else:
                    blocked = blocked | grid.near(picked, radius)
            found.append(self._best_windows(score, seen, blocked, wanted))
        return joined(found)

    def _best_windows(
        self, acquisition: Acquisition, seen: _Seen, blocked: NDArray[np.bool_], num_picks: int
    ) -> Candidates:
        size = self.label_sizes[seen.index]
        grid = self.grid(size)
        maps = seen.scored(acquisition, size if grid is None else self.fed_size(size))
        score, tie_break = maps.score[0], None if maps.tie_break is None else maps.tie_break[0]
        available = torch.from_numpy(~blocked).to(score.device) if blocked.any() else None
        rule = (num_picks, self.query.suppress_radius, available, tie_break)
        parts = [None if batch is None else batch[0] for batch in (maps.impurity, maps.uncertainty)]
        wanted = [score, *(part for part in parts if part is not None)]
        if maps.group is None:
            places, values = picks_and_values(score, *rule, wanted)
        else:
            picks = fair_picks(score, maps.group[0], *rule)
            places, values = picks.cpu().numpy(), values_at(picks, wanted)
        found = iter(values[1:].astype(np.float64))
        impurity, uncertainty = (None if part is None else next(found) for part in parts)
        return Candidates(
            seen.index,
            places if grid is None else np.stack([grid.rows[places[:, 0]], grid.columns[places[:, 1]]], axis=1),
            values[0],
            np.ones(len(places), dtype=np.int64),
            None,
            impurity,
            uncertainty,
        )

    def _fixed(
        self,
        seen: _Seen,
        asked: NDArray[np.bool_],
        excluded: NDArray[np.bool_] | None,
        limit_px: int,
        at_least_one: bool,
    ) -> Candidates:
        """Return the regions that the scores of the acquisition pick, each its share of the pixels."""
        assert self.region is not None
        picture = None
        if self.region.needs_image and seen.image is not None:
            picture = _picture(seen.image).cpu().numpy()
        partition = self.region.partition(self.label_sizes[seen.index], picture)
        if excluded is not None:
            partition = np.where(excluded, np.int32(-1), partition)
        if hasattr(self.region, "merge"):
            check_finite(seen.logits)
            partition = self.region.merge(partition, seen.logits[0].float().softmax(dim=0).cpu().numpy(), asked)
        found: list[Candidates] = []
        share = 0.0
        for part, score in split(self.acquisition):
            share += part
            limit = int(round(share * limit_px, 9)) - sum(int(offer.pixels.sum()) for offer in found)
            if found and limit <= 0:
                continue
            if found:
                assert found[-1].regions is not None
                asked = asked.copy()
                asked.ravel()[found[-1].regions.indices] = True
            more: dict[str, Any] = {"at_least_one": at_least_one, "extra": seen.arguments(score)}
            found.append(fixed_candidates(seen.index, score, seen.logits, partition, seen.key, asked, limit, **more))
        return joined(found)

    def _key(self, round_index: int, index: int) -> int:
        """Return the key of an image's random scores in a round."""
        return seed_of(self.seed, round_index, zlib.crc32(self.image_ids[index].encode()), index)


@dataclass(frozen=True)
class _Seen:
    """An image of a round, by number, key of random scores, logits (1, C, h, w) and what else scores may read of it."""

    index: int
    key: int
    logits: Tensor
    image: Tensor | None
    features: Features | None = None

    def arguments(self, score: Acquisition) -> dict[str, Any]:
        """Return the further arguments that a score needs."""
        given: dict[str, Any] = {} if self.features is None else {"features": self.features}
        if score.needs_image:
            assert self.image is not None
            given["images"] = _picture(self.image)[None]
        return arguments_of(score, given)

    def scored(self, score: Acquisition, size: tuple[int, int]) -> ScoreMaps:
        """Return the maps of a score."""
        return score(self.logits, size, [self.key], **self.arguments(score))


def _picture(image: Tensor) -> Tensor:
    """Return the first three bands of (bands, h, w) as (h, w, 3); the first one three times if there are fewer."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return shown.permute(1, 2, 0).contiguous()
