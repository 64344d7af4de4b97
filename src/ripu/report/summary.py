"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 80  # most characters in a line: the narrowest terminal in use
MAX_ROWS = 10  # most lines of evaluations; further ones are left out in the middle (results.json has all)


def summary(results: Mapping[str, Any], subsets: Sequence[str] = ()) -> str:
    """Format the table of ``results.json``: mIoU after every phase, and the classes.

    Each of the ``subsets``, further means in it such as ``mIoU13``, gets a column and a line.
    """
    widths = {name: max(8, len(name) + 2) for name in subsets}
    lines = [
        f"\n{'':<22}{'step':>7}{'labelled':>10}{'mIoU':>8}" + "".join(f"{n:>{width}}" for n, width in widths.items())
    ]

    def row(name: str, step: int, scores: Mapping[str, Any]) -> str:
        more = "".join(f"{scores[subset]:>{width}.2f}" for subset, width in widths.items())
        return f"{name:<22}{step:>7}{100 * scores['labelled_fraction']:>9.2f}%{scores['mIoU']:>8.2f}{more}"

    evaluations, done = results["evaluations"], 0
    # Without a source, or from a run that has seen the target, nothing is known of the source alone.
    begins_otherwise = results.get("setting") == "target_only" or (results.get("start") or {}).get("run") is not None
    for entry in evaluations:
        name = f"after round {done}"
        if not done:
            # Without pre-training, the target is trained on (negative learning) before the first round; a warm start
            # brings a network that has seen it.
            pretrained = results.get("pretrain_steps", evaluations[0]["step"])
            name = "source only" if not begins_otherwise and entry["step"] <= pretrained else _before(results, entry)
        lines.append(row(name, entry["step"], entry))
        done += sum(1 for one in results["rounds"] if one["step"] == entry["step"])
    lines.append(row("final", results["max_steps"], results))
    if len(lines) - 1 > MAX_ROWS:
        lines[3 : 3 - MAX_ROWS] = ["..."]
    columns = [*([("first", evaluations[0])] if evaluations else []), ("final", results)]
    return "\n".join(lines) + "\n\n" + table(columns, subsets) + left_out(results.get("unreadable", ()))


def _before(results: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return the name of an evaluation before any round: by the renewals so far in a run that has no rounds."""
    if results["rounds"] or not (renewals := results.get("renewal_steps")):
        return "before round 1"
    done = sum(step < entry["step"] for step in renewals)
    return f"after renewal {done}" if done else "before renewal 1"


def left_out(found: Sequence[Mapping[str, str]]) -> str:
    """List the files that could not be read and were skipped (``unreadable`` of ``results.json``), if any."""
    if not found:
        return ""
    counts = {part: sum(one["part"] == part for one in found) for part in ("source", "target", "val")}
    listed = ", ".join(f"{count} of {part}" for part, count in counts.items() if count)
    lines = [f"\n\nskipped, because they could not be read: {listed}", *(f"  {one['file']}" for one in found[:5])]
    return "\n".join(lines + ([f"  and {len(found) - 5} more"] if len(found) > 5 else []))


def table(columns: Sequence[tuple[str, Mapping[str, Any]]], subsets: Sequence[str] = ()) -> str:
    """Format IoU by class, in as many columns of classes as fit into :data:`WIDTH` characters.

    A column has a name and scores: ``per_class_iou``, ``mIoU`` and the subsets (further means).
    """
    names = list(columns[0][1]["per_class_iou"])
    longest = min(max(map(len, names)), 20)
    width = longest + 6 * len(columns)
    count = max(1, min(len(names), (WIDTH + 2) // (width + 2)))
    rows = -(-len(names) // count)
    head = " " * longest + "".join(f"{name:>6}" for name, _ in columns)
    lines = ["IoU by class (%)", "  ".join([head] * -(-len(names) // rows))]

    def cell(name: str) -> str:
        values = [scores["per_class_iou"].get(name) for _, scores in columns]
        short = name if len(name) <= longest else f"{name[: longest - 1]}~"
        return f"{short:<{longest}}" + "".join(f"{'-' if value is None else f'{value:.1f}':>6}" for value in values)

    lines += ["  ".join(cell(name) for name in names[row::rows]) for row in range(rows)]
    for key in ("mIoU", *subsets):
        name = "mean" if key == "mIoU" else key
        lines.append(f"{name:<{longest}}" + "".join(f"{scores[key]:>6.2f}" for _, scores in columns))
    return "\n".join(lines)
