"""Rules for values: what a key may be, and how messages describe it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A rule for values; ``one | other`` allows what either allows."""

    allowed: str  # the end of a message that begins with "it must be"
    is_good: Callable[[Any], bool]
    names: tuple[str, ...] = ()  # the words that are allowed, to suggest the nearest

    def __or__(self, other: Rule) -> Rule:
        return Rule(
            f"{self.allowed}, or {other.allowed}",
            lambda value: self.is_good(value) or other.is_good(value),
            self.names + other.names,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def number(
    allowed: str, above: float = -math.inf, least: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Rule:
    """Allow finite numbers with ``above`` < value < ``below`` and ``least`` <= value <= ``most``."""
    return Rule(allowed, lambda value: _is_number(value) and above < value < below and least <= value <= most)


def whole(least: int, also: str = "", most: int = 10**9) -> Rule:
    """Allow whole numbers from ``least`` to ``most``."""
    return Rule(
        f"a whole number from {least} to {most if most < 10**9 else '10**9'}{also}",
        lambda value: _is_whole(value) and least <= value <= most,
    )


def one_of(*names: str) -> Rule:
    """Allow some words."""
    return Rule("one of " + ", ".join(names), lambda value: isinstance(value, str) and value in names, names)


def some_of(*names: str) -> Rule:
    """Allow a non-empty list of some words."""
    return Rule(
        "a list of some of " + ", ".join(names),
        lambda value: isinstance(value, list) and bool(value) and all(one in names for one in value),
    )


YES_NO = Rule("true or false", lambda value: isinstance(value, bool))
NOTHING = Rule("null", lambda value: value is None)
TEXT = Rule("text", lambda value: isinstance(value, str) and value != "")
POSITIVE = number("above 0", above=0)
NOT_NEGATIVE = number("0 or more", least=0)
SHARE = number("between 0 and 1", least=0, most=1)
PART = number("above 0, 1 at most", above=0, most=1)
BELOW_ONE = number("0 or more and below 1", least=0, below=1)
BETWEEN = number("between 0 and 1", above=0, below=1)
SEED = Rule("a whole number from 0, below 2**63", lambda value: _is_whole(value) and 0 <= value < 2**63)
NODES = Rule("a list of entries with _target_", lambda value: isinstance(value, list))
SIZE = Rule(
    "[height, width], each a whole number of 32 or more, at most 2**27 pixels",
    lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_whole(side) and side >= 32 for side in value)
        and value[0] * value[1] <= 2**27
    ),
)
STEPS = Rule(
    "a list of whole numbers, e.g. [100,200]",
    lambda value: isinstance(value, list) and all(_is_whole(step) for step in value),
)
FRACTIONS = Rule(
    "a list of increasing fractions of the run between 0 and 1",
    lambda value: (
        isinstance(value, list)
        and all(_is_number(one) and 0 <= one < 1 for one in value)
        and all(one < next_one for one, next_one in pairwise(value))
    ),
)
BETAS = Rule(
    "two numbers of 0 or more and below 1",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(BELOW_ONE.is_good, value)),
)
BANDS = Rule(
    "a list of band numbers from 1, e.g. [1,2,3,4], each at most once",
    lambda value: (
        isinstance(value, list)
        and 0 < len(value) == len(set(map(str, value)))
        and all(_is_whole(one) and 1 <= one <= 1000 for one in value)
    ),
)
RANGE = Rule(
    "[low,high] with low < high, or a list of one such pair for each band",
    lambda value: _is_pair(value) or (isinstance(value, list) and bool(value) and all(map(_is_pair, value))),
)
ACCELERATOR = one_of("auto", "cpu", "gpu", "cuda", "mps")
DEVICES = Rule(
    "auto, a number of devices or a list of distinct device numbers",
    lambda value: (
        value in ("auto", -1, "-1")
        or (_is_whole(value) and value >= 1)
        or (isinstance(value, str) and all(part.strip().isdigit() for part in value.split(",")))
        or (
            isinstance(value, list)
            and bool(value)
            and all(_is_whole(one) and one >= 0 for one in value)
            and len(set(value)) == len(value)
        )
    ),
)


_OF_TYPES = {
    frozenset({bool}): YES_NO,
    frozenset({int}): Rule("a whole number", _is_whole),
    frozenset({float}): Rule("a number", _is_number),
    frozenset({int, float}): Rule("a number", _is_number),
    frozenset({str}): Rule("text, or null", lambda value: value is None or isinstance(value, str)),
    frozenset({list}): Rule("a list", lambda value: isinstance(value, list)),
}


def of_types(types: frozenset[type]) -> Rule | None:
    """Return the rule that the types of a key in ``conf/`` make; None if anything goes."""
    return _OF_TYPES.get(types - {type(None)})
