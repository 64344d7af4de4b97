"""Findings: each is one problem in a data set, with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        level: ``error``: training would be wrong or stop; ``warning``: probably unintended; ``note``: good to know.
        part: ``source``, ``target``, ``val``, or two of them.
        what: The problem, in one line.
        remedy: The way out.
        count: Number of scenes or files.
        examples: Some of them.
    """

    level: str
    part: str
    what: str
    remedy: str
    count: int = 1
    examples: tuple[str, ...] = ()


def listed(level: str, part: str, what: str, remedy: str, items: Sequence[str]) -> list[Finding]:
    """Return a finding that counts some items and shows the first five; nothing if there are none."""
    if not items:
        return []
    return [Finding(level, part, f"{what}: {len(items)}", remedy, len(items), tuple(items[:5]))]
