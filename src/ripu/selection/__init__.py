"""Selection: which pixels or regions of the target are shown to the annotator, and when."""

from ripu.selection.picks import greedy_picks
from ripu.selection.query import Query

__all__ = ["Query", "greedy_picks"]
