"""The nearest valid name, for messages about an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

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


def near(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: ``; did you mean X?``, or nothing where no name is near.

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
        tails = difflib.get_close_matches(last, {one.rpartition(".")[2] for one in known}, 1, 0.8)
        found = [one for one in known if one.rpartition(".")[2] in tails]
        found = sorted(found, key=lambda one: (not one.startswith("mode."), one.count(".")))[:3]
    if not found:
        found = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""
