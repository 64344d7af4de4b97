"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def summary(results: Mapping[str, Any]) -> str:
    """The table of a run: mIoU after every phase, and the classes."""
    lines = [f"\n{'':<22}{'step':>7}{'labelled':>10}{'mIoU':>8}"]

    def row(name: str, step: int, labelled: float, miou: float) -> None:
        lines.append(f"{name:<22}{step:>7}{100 * labelled:>9.2f}%{miou:>8.2f}")

    done = 0
    for entry in results["evaluations"]:
        if done:
            name = f"after round {done}"
        else:
            name = "source only" if entry is results["evaluations"][0] else "before round 1"
        row(name, entry["step"], entry["labelled_fraction"], entry["mIoU"])
        done += sum(1 for one in results["rounds"] if one["step"] == entry["step"])
    row("final", results["max_steps"], results["labelled_fraction"], results["mIoU"])
    columns = [("final", results["per_class_iou"], results["mIoU"])]
    if results["evaluations"]:
        first = results["evaluations"][0]
        columns.insert(0, ("first", first["per_class_iou"], first["mIoU"]))
    return "\n".join(lines) + "\n\n" + table(columns)


def table(columns: Sequence[tuple[str, Mapping[str, float | None], float]]) -> str:
    """IoU by class, a column for each (name, IoU by class, mIoU)."""
    lines = [f"{'IoU by class (%)':<22}" + "".join(f"{name:>8}" for name, _, _ in columns)]
    for name in columns[0][1]:
        values = [iou.get(name) for _, iou, _ in columns]
        lines.append(f"  {name:<20}" + "".join(f"{'-' if value is None else f'{value:.1f}':>8}" for value in values))
    lines.append(f"  {'mean':<20}" + "".join(f"{mean:>8.2f}" for _, _, mean in columns))
    return "\n".join(lines)
