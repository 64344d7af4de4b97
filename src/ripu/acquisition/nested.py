"""Scores that contain other scores: what a round or a pool changes in one of them, it changes in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.interface import Acquisition

Survey = NDArray[np.float64]
"""Facts about one image of the pool that a score asks for; of the same shape for all images."""


def parts_of(score: Acquisition) -> dict[str, Acquisition]:
    """Return the scores that are fields of a score, by name."""
    own: Any = score
    values = {field.name: getattr(own, field.name) for field in fields(own)} if is_dataclass(own) else {}
    return {name: value for name, value in values.items() if hasattr(value, "needs_image")}


def with_parts(score: Acquisition) -> Iterator[Acquisition]:
    """Yield a score and all scores inside it."""
    yield score
    for part in parts_of(score).values():
        yield from with_parts(part)


def changed(score: Acquisition, change: Callable[[Any], Any]) -> Acquisition:
    """Return a score with ``change`` applied to every score inside it, and then to itself."""
    parts = {name: changed(part, change) for name, part in parts_of(score).items()}
    result: Acquisition = change(replace(score, **parts) if parts else score)  # type: ignore[type-var]
    return result


def of_single_pixels(score: Acquisition) -> Acquisition:
    """Return the score of pixels by themselves: in PA mode, if it has one, with windows of one pixel."""

    def change(one: Any) -> Any:
        names = {field.name for field in fields(one)}
        return replace(one, **{name: value for name, value in (("pixel", True), ("radius", 0)) if name in names})

    return changed(score, change)


def for_round(score: Acquisition, index: int, num_rounds: int) -> Acquisition:
    """Return a score as a round uses it: ``for_round(index, num_rounds)`` of every score that has this method."""
    return changed(score, lambda one: one.for_round(index, num_rounds) if hasattr(one, "for_round") else one)


def surveying(score: Acquisition) -> Iterator[Any]:
    """Yield the scores, innermost first, that must know the pool (have ``survey`` and ``with_pool``)."""
    for part in parts_of(score).values():
        yield from surveying(part)
    if hasattr(score, "survey"):
        yield score


def survey(score: Acquisition, logits: Tensor) -> list[Survey]:
    """Return what the scores of :func:`surveying` want to know of an image, by its logits (1, C, h, w)."""
    return [one.survey(logits) for one in surveying(score)]


def with_pool(score: Acquisition, found: Sequence[Sequence[Survey]]) -> Acquisition:
    """Return a score that knows the pool: what :func:`survey` returned for every image, in the order of the images."""
    columns = iter(list(zip(*found, strict=True)))
    return changed(score, lambda one: one.with_pool(np.stack(next(columns))) if hasattr(one, "survey") else one)
