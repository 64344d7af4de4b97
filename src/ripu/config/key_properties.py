"""Properties of a configuration key, and the combinations in which it has no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ripu.config.value_rules import Rule

Target = Literal["", "network", "score", "oracle", "shape", "objective", "optimizer", "loader", "class table", "any"]
"""A kind of object; ``any`` if it is made only from the user's own configuration, never from a file."""

GIVEN = object()
"""Any value but null, in a condition."""


@dataclass(frozen=True)
class Unused:
    """A combination in which a key has no effect."""

    when: Mapping[str, Any]  # values of other keys, all of which must match; a tuple lists alternatives
    why: str  # the reason; {key} stands for the value of a key


@dataclass(frozen=True)
class Key:
    """The properties of a key, or of every key of a group."""

    rule: Rule | None = None  # the values that are allowed; None: those of the type that the key has in conf/
    may_change: bool = False  # a resumed run may have another value: it does not change what is learnt
    is_compared: bool = True  # runs with different values are different rows of a table
    before_rounds: bool = True  # it counts before the first round: runs with another value share no beginning
    target: Target = ""  # the kind of object that _target_ may name here in a configuration from a file
    is_open: bool = False  # the names below it are the user's own words
    is_optional: bool = False  # it is read if it is given, and most yaml files lack it
    unused: tuple[Unused, ...] = ()  # when it has no effect


def _class_name(target: object) -> str:
    return str(target).rpartition(".")[2]


def applies(unused: Unused, get: Callable[[str], Any]) -> bool:
    """Return whether a combination is the present one; ``get`` returns the value of a key, or None."""
    for key, wanted in unused.when.items():
        value = get(key)
        if key.endswith("._target_") and wanted is not GIVEN:  # the class counts, wherever it is imported from
            value, wanted = _class_name(value), tuple(map(_class_name, wanted))
        if wanted is GIVEN:
            is_met = value is not None
        elif isinstance(wanted, bool):
            is_met = value is wanted
        else:
            is_met = value in wanted if isinstance(wanted, tuple) else value == wanted
        if not is_met:
            return False
    return True
