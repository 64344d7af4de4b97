"""Comparison of what several scores queried on the same images, with each other and with the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset
from ripu.labelstore import LabelStore


def compare(stores: Mapping[str, LabelStore], scenes: SceneDataset, num_rounds: int) -> dict[str, Any]:
    """Compare the pixels that label stores of the same images ask about with the truth and with each other.

    Args:
        stores: Label stores by name.
        scenes: The images with their labels; images without a label count in the overlap only.
        num_rounds: Number of rounds that count; a store may have fewer.

    Returns:
        ``asked``: by name ``asked_fraction`` (of all pixels), ``void_fraction`` (of the queried pixels),
        ``class_shares`` (of the revealed pixels without void) and ``classes_per_image`` (mean number of revealed
        classes);
        ``truth``: the same for all pixels; ``overlap``: by name and other name, the share of the former's pixels that
        the latter queries too (null if the former queries none).
    """
    names = list(stores)
    num_classes = scenes.taxonomy.num_classes
    counts = {name: np.zeros(256, dtype=np.int64) for name in (*names, "truth")}
    kinds = dict.fromkeys((*names, "truth"), 0)
    both = np.zeros((len(names), len(names)), dtype=np.int64)
    total = labelled = 0
    for index, scene in enumerate(scenes.scenes):
        masks = [
            store.asked_mask(scene.image_id, min(num_rounds, store.num_rounds), with_carried=False).reshape(-1)
            for store in stores.values()
        ]
        total += masks[0].size
        flat = np.stack(masks).astype(np.float64)
        both += np.rint(flat @ flat.T).astype(np.int64)
        if scene.label is None:
            continue
        labelled += 1
        truth = scenes.read_label(index).reshape(-1)
        for name, part in (("truth", truth), *((name, truth[mask]) for name, mask in zip(names, masks, strict=True))):
            found = np.bincount(part, minlength=256)
            counts[name] += found
            kinds[name] += int((found[:num_classes] > 0).sum())

    def facts(name: str, pixels: int) -> dict[str, Any]:
        """Return the figures of a store, which asks about so many pixels, or of the truth."""
        known, revealed = int(counts[name].sum()), int(counts[name][:num_classes].sum())
        return {
            "asked_fraction": pixels / total,
            "void_fraction": 1.0 - revealed / known if known else None,
            "classes_per_image": kinds[name] / labelled if labelled else None,
            "class_shares": {
                kind: int(counts[name][number]) / revealed if revealed else None
                for number, kind in enumerate(scenes.taxonomy.class_names)
            },
        }

    return {
        "truth": facts("truth", total),
        "asked": {name: facts(name, int(both[number, number])) for number, name in enumerate(names)},
        "overlap": _overlap(names, both),
    }


def _overlap(names: Sequence[str], both: NDArray[np.int64]) -> dict[str, dict[str, float | None]]:
    """Return the shares of shared pixels; ``both`` counts them, row by column, on the diagonal those of one store."""
    return {
        name: {
            other: float(both[row, column] / both[row, row]) if both[row, row] else None
            for column, other in enumerate(names)
            if column != row
        }
        for row, name in enumerate(names)
    }


def summary(results: Mapping[str, Any]) -> str:
    """Return the table of a replay: the pixels that each score reveals, and their overlap."""
    columns = {"truth": results["truth"], **results["asked"]}
    width = max(8, *(len(name) + 2 for name in columns))

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:<24}" + "".join(f"{cell:>{width}}" for cell in cells)

    def percent(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{100 * value:.{digits}f}"

    facts, overlap = list(columns.values()), results["overlap"]
    kinds = [column["classes_per_image"] for column in facts]
    lines = [
        line("", list(columns)),
        line("pixels asked (%)", [percent(column["asked_fraction"]) for column in facts]),
        line("of these void (%)", [percent(column["void_fraction"]) for column in facts]),
        line("classes an image", ["-" if kind is None else f"{kind:.1f}" for kind in kinds]),
        "class shares without void (%)",
    ]
    for name in results["truth"]["class_shares"]:
        lines.append(line(f"  {name}", [percent(column["class_shares"][name], 1) for column in facts]))
    if len(overlap) > 1:
        lines += ["", line("also asked by (%)", ["", *overlap])]
        for name, row in overlap.items():
            lines.append(line(f"  of {name}", ["", *(percent(row[by], 1) if by in row else "" for by in overlap)]))
    return "\n".join(lines)
