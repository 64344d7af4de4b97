"""Judgement of ids in label files: wrong kind of file, wrong subset, unknown ids, empty classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID, Taxonomy
from ripu.doctor.findings import ERROR, NOTE, WARNING, Finding
from ripu.doctor.reading import SceneFacts


def judge_ids(name: str, taxonomy: Taxonomy, facts: Sequence[SceneFacts], few: int) -> list[Finding]:
    """Find ids that cannot be what they are taken for.

    Args:
        name: Name of the part.
        taxonomy: The classes that the ids should stand for.
        facts: The facts of its scenes.
        few: So many labels are too few to tell a constant background from a damaged file.
    """
    labels = [one.disk_ids for one in facts if one.disk_ids]
    if not labels:
        return []
    counts: Counter[int] = Counter()
    for one in labels:
        counts.update(one)
    labelled, total, seen = len(labels), counts.total(), set(counts)
    void = sum(count for number, count in counts.items() if number not in taxonomy.disk_to_train) / total

    def error(what: str, remedy: str) -> Finding:
        return Finding(ERROR, name, what, remedy, labelled)

    if seen == {0} and 0 not in taxonomy.disk_to_train:
        remedy = "use the unchanged label files: programs that keep only 8 bits turn 16-bit labels (SYNTHIA) into zeros"
        return [error(f"all {labelled} labels are zeros, and 0 is not a class", remedy)]
    if seen == {0} and labelled > 1 and taxonomy.num_classes > 2:
        what = f"all {labelled} labels hold only the id 0, {taxonomy.class_names[taxonomy.disk_to_train[0]]}"
        remedy = "use the label files unchanged: conversion to 8 bits gives zeros everywhere, and so do empty masks"
        return [Finding(ERROR if labelled > few else WARNING, name, what, remedy, labelled)]
    if taxonomy.look_like_train_ids(counts):
        what = f"labels hold train ids (0..18), not label ids: read as those, {100 * void:.0f} % of the pixels are void"
        return [error(what, "give *_gtFine_labelIds.png, not *_gtFine_labelTrainIds.png")]
    found = []
    known = taxonomy.file_ids or frozenset(range(256))
    strange = sorted(seen - known - set(taxonomy.disk_to_train))
    if strange:
        share = 100 * sum(counts[number] for number in strange) / total
        what = (
            f"{len(strange)} ids in labels that the data set does not have: {strange[:8]}, {share:.1f} % of the pixels"
        )
        remedy = "give the class-id files, not instance files or grey or smoothed copies of colour images"
        found.append(Finding(ERROR if share > 0.5 else WARNING, name, what, remedy, len(strange)))
    highest = max(seen - {VOID}, default=0)
    if taxonomy.name.startswith("synthia") and labelled >= few and highest <= 12 and len(seen) > 4:
        what = f"labels hold no id above {highest}: they are not of SYNTHIA-RAND-CITYSCAPES, whose ids go up to 22"
        remedy = 'download "SYNTHIA-RAND-CITYSCAPES (CVPR16)"; SYNTHIA-RAND and the sequences have other classes'
        found.append(error(what, remedy))
    elif void > 0.5:
        is_nearly_all = void > 0.95 and not strange
        level = ERROR if is_nearly_all and name != "target" else WARNING
        what = f"{100 * void:.{int(is_nearly_all)}f} % of the label pixels have no class"
        remedy = f"compare the ids in the files ({sorted(seen)[:12]}) with those of taxonomy {taxonomy.name}"
        if is_nearly_all and name == "target":  # queries elsewhere just find no class
            remedy += ", unless the target is labelled only in places"
        found.append(Finding(level, name, what, remedy, labelled))
    return found


def class_pixels(taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> NDArray[np.int64]:
    """Return (C + 1,) int64 pixels of each class, and of void at the end."""
    total = np.zeros(taxonomy.num_classes + 1, dtype=np.int64)
    for one in facts:
        if one.train_pixels:
            total += np.array([*one.train_pixels, one.void], dtype=np.int64)
    return total


def judge_classes(name: str, taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find classes without a pixel."""
    pixels = class_pixels(taxonomy, facts)
    empty = [one for one, count in zip(taxonomy.class_names, pixels[:-1], strict=True) if not count]
    if not empty or len(empty) == taxonomy.num_classes:
        return []
    remedy = {
        "source": "pre-training learns nothing about them; nothing to do if the source does not have them",
        "target": "no round can reveal them",
        "val": "their IoU is null and left out of the mean; add images that show them",
    }[name]
    level = NOTE if name == "target" else WARNING
    return [Finding(level, name, f"classes without a pixel: {', '.join(empty)}", remedy, len(empty))]
