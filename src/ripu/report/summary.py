"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def summary(results: Mapping[str, Any], subsets: Sequence[str] = ()) -> str:
    """The table of a run: mIoU after every phase, and the classes.

    Args:
        results: The content of ``results.json``.
        subsets: Names of further means in it, e.g. ``mIoU13``: a column and a line each.
    """
    wide = [max(8, len(name) + 2) for name in subsets]
    head = "".join(f"{name:>{width}}" for name, width in zip(subsets, wide, strict=True))
    lines = [f"\n{'':<22}{'step':>7}{'labelled':>10}{'mIoU':>8}{head}"]

    def row(name: str, step: int, labelled: float, scores: Mapping[str, Any]) -> None:
        more = "".join(f"{scores[subset]:>{width}.2f}" for subset, width in zip(subsets, wide, strict=True))
        lines.append(f"{name:<22}{step:>7}{100 * labelled:>9.2f}%{scores['mIoU']:>8.2f}{more}")

    done = 0
    for entry in results["evaluations"]:
        if done:
            name = f"after round {done}"
        else:
            name = "source only" if entry is results["evaluations"][0] else "before round 1"
        row(name, entry["step"], entry["labelled_fraction"], entry)
        done += sum(1 for one in results["rounds"] if one["step"] == entry["step"])
    row("final", results["max_steps"], results["labelled_fraction"], results)
    columns = [("final", results)]
    if results["evaluations"]:
        columns.insert(0, ("first", results["evaluations"][0]))
    return "\n".join(lines) + "\n\n" + table(columns, subsets)


def table(columns: Sequence[tuple[str, Mapping[str, Any]]], subsets: Sequence[str] = ()) -> str:
    """IoU by class.

    Args:
        columns: Name and scores of each: ``per_class_iou``, ``mIoU`` and the subsets.
        subsets: Names of further means.
    """
    lines = [f"{'IoU by class (%)':<22}" + "".join(f"{name:>8}" for name, _ in columns)]
    for name in columns[0][1]["per_class_iou"]:
        values = [scores["per_class_iou"].get(name) for _, scores in columns]
        lines.append(f"  {name:<20}" + "".join(f"{'-' if value is None else f'{value:.1f}':>8}" for value in values))
    for key in ("mIoU", *subsets):
        name = "mean" if key == "mIoU" else key
        lines.append(f"  {name:<20}" + "".join(f"{scores[key]:>8.2f}" for _, scores in columns))
    return "\n".join(lines)
