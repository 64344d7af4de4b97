"""From the logits of a target image to its candidates, under the query and the rounds so far."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ripu.acquisition import Acquisition, ScoreMaps
from ripu.acquisition.nested import Survey, for_round, survey, surveying, with_parts, with_pool
from ripu.datasets.proportions import Fit, fitted
from ripu.functional import check_finite
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelReader, Round, square_regions
from ripu.loading.order import seed_of
from ripu.regions import RegionShape
from ripu.selection.candidates import Candidates, fixed_candidates, grown
from ripu.selection.picks import fair_picks, greedy_picks
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

    def survey(self, index: int, logits: Tensor) -> list[Survey]:
        """Return what the score wants to know of the ``index``-th image, by its logits (1, C, h, w).

        Raises:
            SelectionError: The logits are not finite.
        """
        try:
            return survey(self.acquisition, logits)
        except ValueError as error:
            raise SelectionError(f"image {self.image_ids[index]!r} cannot be scored: {error}") from error

    def with_pool(self, found: Sequence[Sequence[Survey]]) -> Scorer:
        """Return this scorer with a score that knows what :meth:`survey` found, in the order of the images."""
        return replace(self, acquisition=with_pool(self.acquisition, found))

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
        self, store: LabelReader, spec: Round, index: int, logits: Tensor, image: Tensor | None
    ) -> Candidates:
        """Return the candidates of the ``index``-th image in a round, after the rounds so far in ``store``.

        Args:
            logits: (1, C, h, w).
            image: (bands, h, w) uint8 if :attr:`needs_image`.

        Raises:
            SelectionError: The image cannot be scored, e.g. because its logits are not finite.
        """
        image_id, size, key = self.image_ids[index], self.label_sizes[index], self._key(spec.index, index)
        excluded = None if self.excluded is None else self.excluded(index)
        try:
            if self.is_fixed:
                asked = store.asked_mask(image_id, spec.index)
                limit = self.most_pixels(size, spec.index)
                if not self.has_shared_budget:
                    limit -= self.spent_pixels(store, spec.index, index)
                return self._fixed(index, logits, image, key, asked, excluded, limit, self.has_shared_budget)
            blocked = self._blocked(store, spec.index, index, excluded)
            num_picks = self.query.most_picks(size, self.fed_size(size))
            return self._windows(index, logits, image, key, blocked, num_picks)
        except ValueError as error:
            raise SelectionError(f"image {image_id!r} cannot be scored: {error}") from error

    def maps(self, round_index: int, index: int, logits: Tensor, image: Tensor | None) -> ScoreMaps:
        """Return the maps of windows or pixels of an image, even if regions have a fixed shape."""
        try:
            return self._score(logits, image, self.label_sizes[index], self._key(round_index, index))
        except ValueError as error:
            raise SelectionError(f"image {self.image_ids[index]!r} cannot be scored: {error}") from error

    def would_ask(self, logits: Tensor, image: Tensor | None, size: tuple[int, int]) -> NDArray[np.int64]:
        """Return the pixels that the first round would query in an image outside the pool, e.g. for a picture.

        They are (M,) int64 flat indices for an image of ``size`` (H, W); none if the training grid does not fit into
        it. For ``logits`` and ``image`` see :meth:`candidates`.
        """
        is_on_grid, fed = self.query.grid == "training", self.fed_size(size)
        if is_on_grid and (size[0] < fed[0] or size[1] < fed[1]):
            return np.zeros(0, dtype=np.int64)
        scorer, nothing = replace(self, image_ids=("",), label_sizes=(size,)), np.zeros(size, dtype=np.bool_)
        if self.is_fixed:
            limit = self.query.pixels_until(size, 0)
            regions = scorer._fixed(0, logits, image, 0, nothing, None, limit, at_least_one=True).regions
            assert regions is not None
            return regions.indices
        blocked = np.zeros(fed, dtype=np.bool_) if is_on_grid else nothing
        num_picks = self.query.picks_per_round(size, fed)
        places = scorer._windows(0, logits, image, 0, blocked, num_picks).places
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

    def _windows(
        self, index: int, logits: Tensor, image: Tensor | None, key: int, blocked: NDArray[np.bool_], num_picks: int
    ) -> Candidates:
        size = self.label_sizes[index]
        grid = self.grid(size)
        maps = self._score(logits, image, size if grid is None else self.fed_size(size), key)
        score, tie_break = maps.score[0], None if maps.tie_break is None else maps.tie_break[0]
        available = torch.from_numpy(~blocked).to(score.device)
        rule = (num_picks, self.query.suppress_radius, available, tie_break)
        picks = greedy_picks(score, *rule) if maps.group is None else fair_picks(score, maps.group[0], *rule)
        rows, columns = picks.unbind(1)

        def at_picks(batch: Tensor | None) -> NDArray[np.float64] | None:
            return None if batch is None else batch[0][rows, columns].cpu().double().numpy()

        places = picks.cpu().numpy()
        return Candidates(
            index,
            places if grid is None else np.stack([grid.rows[places[:, 0]], grid.columns[places[:, 1]]], axis=1),
            score[rows, columns].float().cpu().numpy(),
            np.ones(len(places), dtype=np.int64),
            None,
            at_picks(maps.impurity),
            at_picks(maps.uncertainty),
        )

    def _fixed(
        self,
        index: int,
        logits: Tensor,
        image: Tensor | None,
        key: int,
        asked: NDArray[np.bool_],
        excluded: NDArray[np.bool_] | None,
        limit_px: int,
        at_least_one: bool,
    ) -> Candidates:
        assert self.region is not None
        picture = None
        if self.region.needs_image and image is not None:
            picture = _picture(image).cpu().numpy()
        partition = self.region.partition(self.label_sizes[index], picture)
        if excluded is not None:
            partition = np.where(excluded, np.int32(-1), partition)
        if hasattr(self.region, "merge"):
            check_finite(logits)
            partition = self.region.merge(partition, logits[0].float().softmax(dim=0).cpu().numpy(), asked)
        more: dict[str, Any] = {"at_least_one": at_least_one, "extra": self._extra(image)}
        return fixed_candidates(index, self.acquisition, logits, partition, key, asked, limit_px, **more)

    def _score(self, logits: Tensor, image: Tensor | None, size: tuple[int, int], key: int) -> ScoreMaps:
        return self.acquisition(logits, size, [key], **self._extra(image))

    def _extra(self, image: Tensor | None) -> dict[str, Any]:
        """Return the further arguments of scores that read the image."""
        if not self.acquisition.needs_image:
            return {}
        assert image is not None
        return {"images": _picture(image)[None]}

    def _key(self, round_index: int, index: int) -> int:
        """Return the key of an image's random scores in a round."""
        return seed_of(self.seed, round_index, zlib.crc32(self.image_ids[index].encode()), index)


@dataclass(frozen=True)
class TrainingGrid:
    """The places of the training pixels in the label: strictly increasing (h,) rows and (w,) columns, int64.

    Training resizes a label by taking the nearest label pixel for each of its own (Pillow's centre-sampled nearest).
    It never sees the others.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def between(cls, label_size: tuple[int, int], train_size: tuple[int, int]) -> TrainingGrid:
        """Return the grid of a label size (H, W) and a training size (h, w).

        Raises:
            ConfigError: The label is smaller than the training size, so one of its pixels would stand for several.

        >>> TrainingGrid.between((5, 8), (4, 4)).rows.tolist()
        [0, 1, 3, 4]
        """
        if label_size[0] < train_size[0] or label_size[1] < train_size[1]:
            raise ConfigError(
                f"protocol.pixel_grid=training needs labels of at least the training size, but data.target_size="
                f"{list(train_size)} is larger than a label of {list(label_size)}; use protocol.pixel_grid=label"
            )
        return cls(_nearest(label_size[0], train_size[0]), _nearest(label_size[1], train_size[1]))

    def near(self, places: NDArray[np.integer], radius: int) -> NDArray[np.bool_]:
        """Return an (h, w) mask of the pixels within ``radius`` (Chebyshev, on the grid) of (N, 2) label pixels."""
        mask = np.zeros((len(self.rows), len(self.columns)), dtype=np.bool_)
        rows, columns = np.searchsorted(self.rows, places[:, 0]), np.searchsorted(self.columns, places[:, 1])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            mask[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1] = True
        return mask

    def label_radius(self, radius: int, label_size: tuple[int, int]) -> int:
        """Return a distance on the label that pixels more than ``radius`` apart on the grid are sure to exceed."""
        scale = min(label_size[0] / len(self.rows), label_size[1] / len(self.columns))
        return int(radius * scale)


def _picture(image: Tensor) -> Tensor:
    """Return the first three bands of (bands, h, w) as (h, w, 3); the first one three times if there are fewer."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return shown.permute(1, 2, 0).contiguous()


@lru_cache(maxsize=64)
def _nearest(length: int, new_length: int) -> NDArray[np.int64]:
    """Return the positions that Pillow's nearest filter samples when ``length`` pixels become ``new_length``."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    taken: NDArray[np.int64] = np.asarray(line.resize((new_length, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    taken.flags.writeable = False
    return taken
