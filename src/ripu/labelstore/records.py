"""Picks and answers of one image, in memory, and their checks.

Legend: N picks, M pixels, (H, W) the label's full size; a flat index is ``row * W + column``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripu.labelstore.errors import BadLabelError, BadPickError, OverBudgetError, RevealedTwiceError
from ripu.labelstore.files import canonical_json

VOID = 255
"""The answer "this pixel has no class"; in a revealed label also "not revealed"."""

MAX_CLASSES = 254
"""254 marks "not answered" in memory and 255 is void."""

IntArray = NDArray[np.int64]
LabelArray = NDArray[np.uint8]
Pixels = tuple[IntArray, LabelArray]
"""Answers for one image: flat indices and labels."""


@dataclass(frozen=True)
class TargetImage:
    """A target image of the run and the size of its full-resolution label."""

    image_id: str  # any text, unique in the store; never used as a path
    height: int
    width: int


def export_name(number: int, image_id: str) -> str:
    """Return a file name (without extension) for an image id that is not trusted.

    It is unique by ``number``, the image's position in the store, has at most 140 characters of ``A-Za-z0-9._-``, and
    no folder part.

    >>> export_name(3, "../../etc/passwd")
    '000003_.._.._etc_passwd'
    """
    return f"{number:06d}_" + re.sub(r"[^A-Za-z0-9._-]", "_", image_id)[-120:]


@dataclass(frozen=True)
class Round:
    """The part of a round that all images share.

    Attributes:
        index: Number of the round, 0 first, without gaps.
        step: Training step at which it was selected; increases from round to round.
        budget: Most picks per image in this round.
        reveal_radius: A pick asks about the square of side ``2 * reveal_radius + 1`` around it, clipped at the border
            (0: one pixel), unless its record has regions of its own.
        suppress_radius: Later picks keep a Chebyshev distance of more than this from every pick.
        info: Free JSON data, e.g. the acquisition's name and a digest of its inputs.
    """

    index: int
    step: int
    budget: int
    reveal_radius: int
    suppress_radius: int
    info: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {**vars(self), "info": dict(self.info)}


@dataclass(frozen=True)
class Regions:
    """One set of pixels per pick, ragged: pick n asks about ``indices[offsets[n]:offsets[n + 1]]``."""

    offsets: IntArray  # (N + 1,)
    indices: IntArray  # (M,) flat indices, ascending inside a pick

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def pick_of_pixel(self) -> IntArray:
        """The number of the pick that asks about each pixel, (M,) int64."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    @classmethod
    def from_sets(cls, sets: Sequence[ArrayLike]) -> Regions:
        """Build regions from one array of flat indices per pick."""
        arrays = [np.sort(np.asarray(one, dtype=np.int64).ravel()) for one in sets]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in arrays], out=offsets[1:])
        return cls(offsets, np.concatenate([np.zeros(0, np.int64), *arrays]))


@dataclass(frozen=True)
class ImagePicks:
    """The picks of one image in a round."""

    image_id: str
    picks: NDArray[np.integer]  # (N, 2) rows and columns in picking order
    scores: NDArray[np.floating] | None = None  # (N,) float32; None if they are not kept
    regions: Regions | None = None  # the pixels that each pick asks about; None for the round's squares
    digest: str = ""  # free ASCII text, at most 200 characters, e.g. a digest of the score map


def no_picks(image_id: str) -> ImagePicks:
    """Return the record of an image that nothing is asked about."""
    return ImagePicks(image_id, np.zeros((0, 2), dtype=np.int64))


@dataclass(frozen=True)
class ImageAnswers:
    """Answers for pixels of one image."""

    image_id: str
    indices: NDArray[np.integer]  # (M,) flat indices, each once, in any order
    labels: NDArray[np.integer]  # (M,) class indices, or 255 for void


def square_regions(picks: NDArray[np.integer], radius: int, height: int, width: int) -> Regions:
    """Return the squares around picks, clipped at the image border.

    Picks are (N, 2) rows and columns inside the image; the side of a square is ``2 * radius + 1`` pixels, which come in
    row-major order.

    Example:
        >>> square_regions(np.array([[0, 0], [2, 2]]), 1, 4, 4).indices.tolist()
        [0, 1, 4, 5, 5, 6, 7, 9, 10, 11, 13, 14, 15]
    """
    centres = np.asarray(picks, dtype=np.int64).reshape(-1, 2)
    radius = min(radius, max(height, width))  # a larger one adds nothing
    span = np.arange(-radius, radius + 1, dtype=np.int64)
    is_inner = ((centres >= radius) & (centres < (height - radius, width - radius))).all()
    if is_inner:  # the usual case, and this is on the data loader's path
        around = (span[:, None] * width + span).reshape(-1)
        inner = ((centres[:, :1] * width + centres[:, 1:]) + around).reshape(-1)
        return Regions(np.arange(len(centres) + 1, dtype=np.int64) * len(around), inner)
    rows, cols = centres[:, :1] + span, centres[:, 1:] + span
    flat = (rows * width)[:, :, None] + cols[:, None, :]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    offsets = np.zeros(len(centres) + 1, dtype=np.int64)
    np.cumsum(inside.sum(axis=(1, 2)), out=offsets[1:])
    return Regions(offsets, flat[inside])


def regions_of(picks: ImagePicks, spec: Round, image: TargetImage) -> Regions:
    """Return the pixels that each pick of a record asks about, squares written out."""
    if picks.regions is not None:
        return picks.regions
    return square_regions(picks.picks, spec.reveal_radius, image.height, image.width)


def check_picks(picks: ImagePicks, spec: Round, image: TargetImage) -> ImagePicks:
    """Check a record and return its canonical form: int64 picks, float32 scores, regions that ascend inside each pick.

    Raises:
        BadPickError, OverBudgetError, RevealedTwiceError: The record breaks an invariant.
    """
    where = f"round {spec.index}, image {image.image_id!r}"
    array = _integers(picks.picks, f"{where}: picks")
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise BadPickError(f"{where}: picks have shape {array.shape}; give (N, 2) rows and columns")
    outside = ((array < 0) | (array >= (image.height, image.width))).any(axis=1)
    if outside.any():
        row, col = array[outside][0].tolist()
        raise BadPickError(
            f"{where}: pick (row {row}, column {col}) lies outside the {image.height} x {image.width} label; "
            "picks are rows and columns at full label resolution"
        )
    if len(array) > spec.budget:
        raise OverBudgetError(
            f"{where}: {len(array)} picks, the budget of the round is {spec.budget} per image; give fewer"
        )
    scores = picks.scores
    if scores is not None:
        scores = np.ascontiguousarray(scores, dtype=np.float32)
        if scores.shape != (len(array),):
            raise BadPickError(f"{where}: scores have shape {scores.shape} for {len(array)} picks; give one per pick")
    if len(picks.digest) > 200 or not picks.digest.isascii():
        raise BadPickError(f"{where}: the digest has to be ASCII and at most 200 characters long")
    regions = picks.regions
    if regions is not None:
        regions = _check_regions(regions, len(array), image, where)
    record = ImagePicks(image.image_id, array, scores, regions, picks.digest)
    check_disjoint(regions_of(record, spec, image).indices, None, where, image.width)
    return record


def check_disjoint(indices: IntArray, asked: NDArray[np.bool_] | None, where: str, width: int) -> None:
    """Refuse (M,) flat indices that are asked about twice, with a :class:`RevealedTwiceError`.

    ``asked``, (H * W,) bool, was asked about before; None compares the indices with one another.
    """
    if asked is None:
        ordered = np.sort(indices)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        by = "two picks of this round"
    else:
        again = indices[asked[indices]]
        by = "an earlier round"
    if again.size:
        row, col = divmod(int(again[0]), width)
        raise RevealedTwiceError(
            f"{where}: pixel (row {row}, column {col}) is asked about again, {by} asked about it; "
            "keep squares apart with a suppress_radius of at least twice the reveal_radius"
        )


def check_answers(answers: ImageAnswers, num_classes: int, image: TargetImage) -> tuple[IntArray, LabelArray]:
    """Check answers; return (M,) int64 ascending flat indices and (M,) uint8 labels.

    Raises:
        BadLabelError: Shapes differ, a pixel is outside or occurs twice, or a label is neither a class nor 255.
    """
    where = f"answers for image {image.image_id!r}"
    try:
        indices, labels = _integers(answers.indices, "indices"), _integers(answers.labels, "labels")
    except BadPickError as error:
        raise BadLabelError(f"{where}: {error}") from error
    if indices.ndim != 1 or indices.shape != labels.shape:
        raise BadLabelError(f"{where}: {indices.shape} indices and {labels.shape} labels; give two (M,) arrays")
    if indices.size and not 0 <= indices.min() <= indices.max() < image.height * image.width:
        raise BadLabelError(
            f"{where}: flat indices {indices.min()}..{indices.max()} leave the {image.height} x {image.width} label"
        )
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != VOID)]
    if wrong.size:
        raise BadLabelError(
            f"{where}: label {wrong[0]} is neither a class 0..{num_classes - 1} nor {VOID} (void); give train ids"
        )
    order = np.argsort(indices, kind="stable")
    indices = indices[order]
    if (indices[1:] == indices[:-1]).any():
        raise BadLabelError(f"{where}: a pixel occurs twice; give each pixel one answer")
    return indices, labels[order].astype(np.uint8)


def content_digest(spec: Round) -> hashlib._Hash:
    """Return a running SHA-256 of a round's content, begun with its shared part."""
    return hashlib.sha256(canonical_json(spec.to_json()))


def _check_regions(regions: Regions, num_picks: int, image: TargetImage, where: str) -> Regions:
    offsets = _integers(regions.offsets, f"{where}: region offsets")
    indices = _integers(regions.indices, f"{where}: region indices")
    is_ragged = offsets.shape == (num_picks + 1,) and indices.ndim == 1
    if not is_ragged or offsets[0] != 0 or offsets[-1] != len(indices) or (np.diff(offsets) < 1).any():
        raise BadPickError(
            f"{where}: region offsets do not cut {indices.shape} pixels into {num_picks} non-empty sets; "
            "build regions with Regions.from_sets"
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < image.height * image.width:
        raise BadPickError(
            f"{where}: region pixels {indices.min()}..{indices.max()} leave the {image.height} x {image.width} label"
        )
    canonical = Regions(offsets, indices)
    return Regions(offsets, indices[np.lexsort((indices, canonical.pick_of_pixel))])


def _integers(values: ArrayLike, what: str) -> IntArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise BadPickError(f"{what}: dtype {array.dtype} is not an integer type; cast explicitly")
    return array.astype(np.int64)
