"""Lines for the user about keys: a value that is not allowed, a key without effect, the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ripu.config.key_properties import applies
from ripu.config.keys import key_of, rule_of

ALIASES: Mapping[str, str] = {
    "tau": "objective.negative_threshold",
    "alpha1": "objective.consistency_weight",
    "alpha2": "objective.negative_weight",
    "k": "mode.radius",
    "rounds": "selection_steps",
    "lr": "optimizer.learning_rate",
    "batch_size": "data.source_batch",
    "steps": "trainer.max_steps",
    "gpus": "trainer.devices",
}
"""Names from the paper and from other programs -> keys."""


def fault(key: str, value: Any, types: frozenset[type] = frozenset()) -> str | None:
    """Return a line about a plain value that is not allowed, with the key and the rule; None if it is allowed."""
    rule = rule_of(key, types)
    if rule is None or rule.is_good(value) or (value is None and type(None) in types):
        return None
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    hint = near(str(value), rule.names) if rule.names and isinstance(value, str) else ""
    return f"{key}={shown} is not allowed; it must be {rule.allowed}{hint}"


def without_effect(get: Callable[[str], Any], given: Sequence[str]) -> list[str]:
    """Return a line for each key or group that the user gave and this combination does not use.

    ``get`` returns the value of a key, or None.
    """
    lines = []
    for name in given:
        unused = next((unused for unused in key_of(name).unused if applies(unused, get)), None)
        if unused is not None:
            why = re.sub(r"\{([\w.]+)\}", lambda match: str(get(match[1])), unused.why)
            lines.append(f"{name} has no effect: {why}")
    return lines


def near(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: ``; did you mean X?``, or nothing if no name is near.

    >>> near("trainer.max_step", ["seed", "trainer.max_steps"])
    '; did you mean trainer.max_steps?'
    >>> near("radius", ["acquisition.radius", "mode.radius", "seed"])
    '; did you mean mode.radius or acquisition.radius?'
    >>> near("xyz", ["seed"])
    ''
    """
    known = list(dict.fromkeys(names))
    found = difflib.get_close_matches(name, known, 1, 0.75)
    last = name.rpartition(".")[2]
    alias = ALIASES.get(last.replace("_", "") if last.startswith("alpha") else last)
    if not found and alias in known:
        found = [str(alias)]
    if not found:  # a key without its group, or in the wrong one
        tails = difflib.get_close_matches(last, {key.rpartition(".")[2] for key in known}, 1, 0.8)
        found = [key for key in known if key.rpartition(".")[2] in tails]
        found = sorted(found, key=lambda key: (not key.startswith("mode."), key.count(".")))[:3]
    if not found:
        found = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""
