"""Selection: the pixels or regions of the target that the annotator is asked about, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ripu.selection.query import Query

if TYPE_CHECKING:
    from ripu.selection.picks import greedy_picks

__all__ = ["Query", "greedy_picks"]


def __getattr__(name: str) -> Any:
    """Import the picker on first use: it needs torch, and checking a query does not."""
    if name != "greedy_picks":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ripu.selection.picks import greedy_picks

    return greedy_picks
