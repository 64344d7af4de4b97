"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 80
"""Characters of a line, at most: the narrowest terminal that people use."""

MAX_ROWS = 10
"""Lines of evaluations, at most; of more, those in the middle are left out (``results.json`` has all)."""


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
    begins_trained = (results.get("start") or {}).get("run") is not None
    first = len(lines)
    for entry in results["evaluations"]:
        if done:
            name = f"after round {done}"
        else:
            # Without pre-training the target has been trained on (negative learning) before the first round; a run that
            # goes on from another begins with a network that has seen it.
            pretrained = results.get("pretrain_steps", results["evaluations"][0]["step"])
            is_source_only = not begins_trained and entry["step"] <= pretrained
            name = "source only" if is_source_only else "before round 1"
        row(name, entry["step"], entry["labelled_fraction"], entry)
        done += sum(1 for one in results["rounds"] if one["step"] == entry["step"])
    row("final", results["max_steps"], results["labelled_fraction"], results)
    if len(lines) - first > MAX_ROWS:
        lines[first + 2 : 3 - MAX_ROWS] = ["..."]
    columns = [("final", results)]
    if results["evaluations"]:
        columns.insert(0, ("first", results["evaluations"][0]))
    return "\n".join(lines) + "\n\n" + table(columns, subsets) + left_out(results.get("unreadable", ()))


def left_out(found: Sequence[Mapping[str, str]]) -> str:
    """Lines about files that could not be read and were skipped; empty where there are none.

    Args:
        found: ``unreadable`` of ``results.json``: part and file of each.
    """
    if not found:
        return ""
    counts = {part: sum(one["part"] == part for one in found) for part in ("source", "target", "val")}
    lines = ["\n\nleft out, because they could not be read:"]
    lines[0] += " " + ", ".join(f"{count} of {part}" for part, count in counts.items() if count)
    lines += [f"  {one['file']}" for one in found[:5]]
    return "\n".join(lines + ([f"  and {len(found) - 5} more"] if len(found) > 5 else []))


def table(columns: Sequence[tuple[str, Mapping[str, Any]]], subsets: Sequence[str] = ()) -> str:
    """IoU by class, in as many columns of classes as fit into :data:`WIDTH` characters.

    Args:
        columns: Name and scores of each: ``per_class_iou``, ``mIoU`` and the subsets.
        subsets: Names of further means.
    """
    names = list(columns[0][1]["per_class_iou"])
    longest = min(max(map(len, names)), 20)
    width = longest + 6 * len(columns)
    count = max(1, min(len(names), (WIDTH + 2) // (width + 2)))
    rows = -(-len(names) // count)
    count = -(-len(names) // rows)
    head = " " * longest + "".join(f"{name:>6}" for name, _ in columns)
    lines = ["IoU by class (%)", "  ".join([head] * count)]

    def cell(name: str) -> str:
        values = [scores["per_class_iou"].get(name) for _, scores in columns]
        short = name if len(name) <= longest else f"{name[: longest - 1]}~"
        return f"{short:<{longest}}" + "".join(f"{'-' if value is None else f'{value:.1f}':>6}" for value in values)

    lines += ["  ".join(cell(name) for name in names[row::rows]) for row in range(rows)]
    for key in ("mIoU", *subsets):
        name = "mean" if key == "mIoU" else key
        lines.append(f"{name:<{longest}}" + "".join(f"{scores[key]:>6.2f}" for _, scores in columns))
    return "\n".join(lines)
