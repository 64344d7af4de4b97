"""Scores that contain other scores: what a round or a pool changes in one of them, it changes in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.interface import Acquisition, Features
from ripu.io.errors import ConfigError

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


def needs_features(score: Acquisition) -> bool:
    """Return whether a score, or one inside it, reads the features of the network."""
    return any(getattr(one, "needs_features", False) for one in with_parts(score))


def arguments_of(score: Acquisition, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the given arguments, ``images`` and ``features``, that the call of a score needs."""
    wanted = {"images": score.needs_image, "features": needs_features(score)}
    return {name: value for name, value in given.items() if wanted[name]}


def split(score: Acquisition) -> list[tuple[float, Acquisition]]:
    """Return the scores that share out the picks of an image, each with its share; most have all of them."""
    found: list[tuple[float, Acquisition]] = score.split() if hasattr(score, "split") else [(1.0, score)]
    return found


def check_split(score: Acquisition) -> None:
    """Refuse a score that contains one which shares out the picks: only a score by itself can do that.

    Raises:
        ConfigError: There is such a score.
    """
    for part in parts_of(score).values():
        for inner in with_parts(part):
            if hasattr(inner, "split"):
                raise ConfigError(
                    f"{type(score).__name__} contains {type(inner).__name__}, which shares out the picks of an image "
                    f"between scores and cannot be part of another score; use {type(inner).__name__} by itself, with "
                    "the other score inside it"
                )


def surveying(score: Acquisition, member: str = "survey") -> Iterator[Any]:
    """Yield the scores, innermost first, that must know the pool (``survey``) or the source (``survey_source``)."""
    for part in parts_of(score).values():
        yield from surveying(part, member)
    if hasattr(score, member):
        yield score


def survey(score: Acquisition, logits: Tensor, features: Features | None = None) -> list[Survey]:
    """Return what the scores of :func:`surveying` want to know of an image, by its logits (1, C, h, w)."""
    given = {"features": features}
    return [one.survey(logits, **arguments_of(one, given)) for one in surveying(score)]


def survey_source(score: Acquisition, logits: Tensor, features: Features | None, label: Tensor) -> list[Survey]:
    """Return what scores want to know of an image of the source, as :func:`survey` does, by its label, too."""
    return [one.survey_source(logits, features, label) for one in surveying(score, "survey_source")]


def with_kept(score: Acquisition, kept: Any) -> Acquisition:
    """Return a score that knows what the objective keeps: ``with_kept(kept)`` of every score that has this method."""
    return changed(score, lambda one: one.with_kept(kept) if hasattr(one, "with_kept") else one)


def with_pool(score: Acquisition, found: Sequence[Sequence[Survey]]) -> Acquisition:
    """Return a score that knows the pool: what :func:`survey` returned for every image, in the order of the images."""
    return _knowing(score, found, "survey", "with_pool")


def with_source(score: Acquisition, found: Sequence[Sequence[Survey]]) -> Acquisition:
    """Return a score that knows the source: what :func:`survey_source` returned, in the order of the images."""
    return _knowing(score, found, "survey_source", "with_source")


def _knowing(score: Acquisition, found: Sequence[Sequence[Survey]], member: str, learn: str) -> Acquisition:
    columns = iter(list(zip(*found, strict=True)))
    return changed(score, lambda one: getattr(one, learn)(np.stack(next(columns))) if hasattr(one, member) else one)
