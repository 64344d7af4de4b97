"""Checks of a data set: files, ids, classes, duplicates and partners. Each returns findings with a remedy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.class_masks import ClassMasks
from ripu.datasets.coco_labels import CocoLabels
from ripu.datasets.pairing import composed, label_fit
from ripu.datasets.proportions import squashed
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID, Taxonomy
from ripu.datasets.value_ranges import ONE_PAGE, dark_fault
from ripu.doctor.reading import SceneFacts

ERROR, WARNING, NOTE = "error", "warning", "note"

SAMPLED = 4
"""Labels per part that are read before each run; too few to tell a constant background from a damaged file."""

NEAR_LEVELS = 1.5
"""Grey levels (of 255, root mean square over a small copy) below which two images are one, re-encoded."""

_AGAIN = "copy or download the files again, or take them out"

_LABEL_PROBLEMS = {
    "one id per pixel": (
        "labels that are colour images",
        "give the id files (Cityscapes: *_gtFine_labelIds.png), not the colour ones made for viewing",
    ),
    "16-bit": (
        "labels that are not the 16-bit files of SYNTHIA",
        "give the files of GT/LABELS unchanged: converting them to 8 bits turns them into zeros",
    ),
    "neither in": (
        "labels with undeclared ids or colours",
        "add them to the class map or to the ignored ones (docs/your-own-data.md)",
    ),
}
"""Part of a decoder's message -> the problem, and the remedy."""


@dataclass(frozen=True)
class Finding:
    """One problem in a data set."""

    level: str  # error: training would be wrong or stop; warning: probably unintended; note: good to know
    part: str  # source, target, val, or two of them
    what: str  # the problem, in one line
    remedy: str
    count: int = 1  # scenes or files
    examples: tuple[str, ...] = ()


def _listed(level: str, part: str, what: str, remedy: str, items: Sequence[str]) -> list[Finding]:
    """Return a finding that counts some items and shows the first five; nothing if there are none."""
    return [Finding(level, part, f"{what}: {len(items)}", remedy, len(items), tuple(items[:5]))] if items else []


# ---- files


def label_problem(fault: str) -> tuple[str, str]:
    """Return the problem behind a decoder's message, and its remedy."""
    known = (problem for phrase, problem in _LABEL_PROBLEMS.items() if phrase in fault)
    return next(known, ("labels that cannot be read", _AGAIN))


def judge_files(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find images and labels that cannot be read, and images without a label."""
    pairs = list(zip(scenes.scenes, facts, strict=True))
    images = [f"{scene.image}: {one.image_fault}" for scene, one in pairs if one.image_fault]
    found = _listed(ERROR, name, "images that cannot be read", _AGAIN, images)
    problems: dict[tuple[str, str], list[str]] = {}
    for scene, one in pairs:
        if one.label_fault:
            problems.setdefault(label_problem(one.label_fault), []).append(f"{scene.label}: {one.label_fault}")
    for (what, remedy), labels in problems.items():
        found += _listed(ERROR, name, what, remedy, labels)
    unlabelled = [scene.image_id for scene in scenes.scenes if scene.label is None]
    if unlabelled:
        level, remedy = ERROR, "add the labels or take the images out"
        if name == "target":
            level, remedy = NOTE, "nothing to do if a person will answer; otherwise queries about them stay unanswered"
        what = f"images without a label: {len(unlabelled)} of {len(scenes)}"
        found.append(Finding(level, name, what, remedy, len(unlabelled), tuple(unlabelled[:5])))
    return found


def judge_sizes(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find labels that differ in size from their image, or may not be upright, and a mix of image sizes."""
    scaled: list[str] = []
    stretched: list[str] = []
    unclear: list[str] = []
    num_lying = 0
    for scene, one in zip(scenes.scenes, facts, strict=True):
        if one.image_size is None or one.label_size is None:
            continue
        fit = label_fit(one.orientation, one.image_size, one.label_size)
        if fit == "unclear":
            unclear.append(str(scene.image))
        if one.image_size == one.label_size:
            continue
        (height, width), (rows, columns) = one.image_size, one.label_size
        is_same_shape = abs(width * rows - height * columns) <= 0.01 * width * rows
        text = f"{scene.image_id} (image {width} x {height}, label {columns} x {rows})"
        (scaled if is_same_shape else stretched).append(text)
        num_lying += fit == "lying"
    remedy = "pair the files that belong together, or take these out"
    if num_lying:
        remedy = f"{num_lying} labels are sideways, like the stored photographs: rotate them too; {remedy}"
    found = _listed(ERROR, name, "labels that differ in shape from their image", remedy, stretched)
    what = "photographs with an EXIF rotation, whose labels may not be upright"
    found += _listed(
        WARNING, name, what, "look at one: images are read upright, so labels must be upright too", unclear
    )
    what = "labels that differ in size from their image, in the same proportions"
    level, remedy = NOTE, "nothing to do: both are resized for training"
    if scenes.has_equal_sizes:
        level, remedy = ERROR, "resize one of the two (labels without smoothing), or take them out"
    found += _listed(level, name, what, remedy, scaled)
    sizes = Counter(one.image_size for one in facts if one.image_size)
    if len(sizes) > 3:
        shown = ", ".join(f"{size[1]} x {size[0]} ({count})" for size, count in sizes.most_common(3) if size)
        what = f"images of {len(sizes)} sizes: {shown}, ..."
        found.append(Finding(NOTE, name, what, "nothing to do: they are resized", len(sizes)))
    return found


def judge_proportions(
    name: str, scenes: SceneDataset, facts: Sequence[SceneFacts], frame: tuple[int, int]
) -> list[Finding]:
    """Find images whose proportions training would change; ``frame`` is the (height, width) of training."""
    if scenes.fit != "stretch":
        return []
    known = [(scene, one.image_size) for scene, one in zip(scenes.scenes, facts, strict=True) if one.image_size]
    found = [known[at] for at in squashed([size for _, size in known], frame)]
    what = f"images whose proportions differ from {frame[1]} x {frame[0]}, to which they are stretched"
    shown = [f"{scene.image_id} ({size[1]} x {size[0]})" for scene, size in found]
    return _listed(WARNING, name, what, "data.fit=pad keeps their proportions", shown)


def judge_values(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find images with bands or pages that are not read, and integers that use only a small part of their bits."""
    unread = [
        f"{scene.image}: {one.unread_bands} left out"
        for scene, one in zip(scenes.scenes, facts, strict=True)
        if one.unread_bands
    ]
    remedy = "name the bands to read, e.g. data.bands=[1,2,3,4], or [1,2,3] if colour is what is meant"
    found = _listed(WARNING, name, "images with bands that are not read", remedy, unread)
    pages = [
        f"{scene.image}: {one.num_pages} pages"
        for scene, one in zip(scenes.scenes, facts, strict=True)
        if one.num_pages > 1
    ]
    found += _listed(WARNING, name, "images of several pages, of which only the first is read", ONE_PAGE, pages)
    highest = [
        (one.highest, scene.image) for scene, one in zip(scenes.scenes, facts, strict=True) if one.highest is not None
    ]
    if (line := dark_fault(highest)) is not None:
        what, _, remedy = line.partition(". ")
        found.append(Finding(ERROR, name, what, remedy[:1].lower() + remedy[1:], len(highest)))
    return found


# ---- ids and classes


def judge_ids(name: str, taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find ids that cannot be what they are taken for."""
    labels = [one.disk_ids for one in facts if one.disk_ids]
    if not labels:
        return []
    counts: Counter[int] = Counter()
    for one in labels:
        counts.update(one)
    labelled, total, seen = len(labels), counts.total(), set(counts)
    void = sum(count for number, count in counts.items() if number not in taxonomy.disk_to_train) / total
    if seen == {0} and 0 not in taxonomy.disk_to_train:
        what = f"all {labelled} labels are zeros, but 0 is not a class"
        remedy = "use the unchanged label files: programs that keep only 8 bits turn 16-bit labels (SYNTHIA) into zeros"
        return [Finding(ERROR, name, what, remedy, labelled)]
    if seen == {0} and labelled > 1 and taxonomy.num_classes > 2:
        what = f"all {labelled} labels contain only the id 0, {taxonomy.class_names[taxonomy.disk_to_train[0]]}"
        remedy = "use the label files unchanged: conversion to 8 bits gives zeros everywhere, and so do empty masks"
        return [Finding(ERROR if labelled > SAMPLED else WARNING, name, what, remedy, labelled)]
    if taxonomy.look_like_train_ids(counts):
        what = (
            f"labels contain train ids (0..18), not label ids: read as those, {100 * void:.0f} % of the pixels are void"
        )
        remedy = "give *_gtFine_labelIds.png, not *_gtFine_labelTrainIds.png"
        return [Finding(ERROR, name, what, remedy, labelled)]
    found = []
    strange = sorted(seen - (taxonomy.file_ids or frozenset(range(256))) - set(taxonomy.disk_to_train))
    if strange:
        share = 100 * sum(counts[number] for number in strange) / total
        what = (
            f"{len(strange)} ids in labels that the data set does not have: {strange[:8]}, {share:.1f} % of the pixels"
        )
        remedy = "give the class-id files, not instance files or grey or smoothed copies of colour images"
        found.append(Finding(ERROR if share > 0.5 else WARNING, name, what, remedy, len(strange)))
    highest = max(seen - {VOID}, default=0)
    if taxonomy.name.startswith("synthia") and labelled >= SAMPLED and highest <= 12 and len(seen) > 4:
        what = f"labels contain no id above {highest}: they are not of SYNTHIA-RAND-CITYSCAPES, whose ids go up to 22"
        remedy = 'download "SYNTHIA-RAND-CITYSCAPES (CVPR16)"; SYNTHIA-RAND and the sequences have other classes'
        found.append(Finding(ERROR, name, what, remedy, labelled))
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


# ---- duplicates


def find_copies(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find images of one part that are equal pixel for pixel."""
    groups: dict[str, list[str]] = {}
    for scene, one in zip(scenes.scenes, facts, strict=True):
        if one.image_pixels:
            groups.setdefault(one.image_pixels, []).append(scene.image_id)
    same = [" = ".join(group[:3]) for group in groups.values() if len(group) > 1]
    remedy = "keep one of each: copies count double in training and in the mean"
    return _listed(WARNING, name, "images that occur more than once under different names", remedy, same)


def find_leaks(parts: Mapping[str, SceneDataset], facts: Mapping[str, Sequence[SceneFacts]]) -> list[Finding]:
    """Find validation images that training sees: the same bytes, the same pixels, or nearly."""
    readable = {
        name: [(scene.image_id, one) for scene, one in zip(scenes.scenes, facts[name], strict=True) if one.image_pixels]
        for name, scenes in parts.items()
    }
    found: list[Finding] = []
    remedy = "take them out of one of the two: results on images that were trained on are worthless"
    val = readable.pop("val", [])
    for name, train in readable.items():
        by_bytes = {one.image_bytes: image_id for image_id, one in train}
        by_pixels = {one.image_pixels: image_id for image_id, one in train}
        same_bytes, same_pixels, rest = [], [], []
        for image_id, one in val:
            if one.image_bytes in by_bytes:
                same_bytes.append(f"{image_id} = {by_bytes[one.image_bytes]}")
            elif one.image_pixels in by_pixels:
                same_pixels.append(f"{image_id} = {by_pixels[one.image_pixels]}")
            else:
                rest.append((image_id, one))
        where, also = f"val and {name}", f"validation images that are also in {name}"
        found += _listed(ERROR, where, f"{also}, byte for byte", remedy, same_bytes)
        found += _listed(ERROR, where, f"{also}, pixel for pixel in another file", remedy, same_pixels)
        what = f"validation images that look the same as one in {name} (re-encoded, or from a fixed camera)"
        found += _listed(WARNING, where, what, f"look at them; {remedy}", _near(rest, train))
    return found


def _near(val: Sequence[tuple[str, SceneFacts]], train: Sequence[tuple[str, SceneFacts]]) -> list[str]:
    if not val or not train:
        return []
    one, other = (
        np.stack([np.frombuffer(facts.thumb, np.uint8) for _, facts in part]).astype(np.float32)
        for part in (val, train)
    )
    found = []
    for first in range(0, len(one), 256):
        block = one[first : first + 256]
        square = (block**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * block @ other.T
        best = square.argmin(1)
        distance = np.sqrt(np.maximum(square[np.arange(len(block)), best], 0) / one.shape[1])
        contrast = block.std(1)
        for row in np.flatnonzero((distance < NEAR_LEVELS) & (contrast > 4 * NEAR_LEVELS)):
            found.append(f"{val[first + row][0]} ~ {train[best[row]][0]}")
    return found


# ---- partners


def find_unpaired(parts: Mapping[str, SceneDataset]) -> list[Finding]:
    """Find files without a partner in the folders that the scenes of all parts come from."""
    images: dict[Path, set[str]] = {}
    endings: dict[tuple[Path, Path], set[tuple[str, str]]] = {}
    for scenes in parts.values():
        for scene in scenes.scenes:
            images.setdefault(scene.image.parent, set()).add(scene.image.name)
            if scene.label is not None and not isinstance(scenes.decode_label, (ClassMasks, CocoLabels)):
                ends = endings.setdefault((scene.image.parent, scene.label.parent), set())
                ends.add(_endings(composed(scene.image.name), composed(scene.label.name)))
    found: list[Finding] = []
    for (folder, partner), ends in endings.items():
        if folder == partner:
            continue
        users = ", ".join(
            name for name, scenes in parts.items() if any(one.image.parent == folder for one in scenes.scenes)
        )
        own = _by_stem(folder, {end for end, _ in ends})
        theirs = _by_stem(partner, {end for _, end in ends})
        alone = [str(path) for stem, path in own.items() if stem not in theirs and path.name not in images[folder]]
        what = "images beside these without a label, left out"
        found += _listed(WARNING, users, what, f"add the labels to {partner}", sorted(alone))
        alone = [str(path) for stem, path in theirs.items() if stem not in own]
        found += _listed(WARNING, users, "labels without an image", f"add the images to {folder}", sorted(alone))
    return found


def _by_stem(folder: Path, endings: set[str]) -> dict[str, Path]:
    """Map the names of a folder's files, without the longest fitting extension, to the files; leave other files out."""
    ordered = sorted(endings, key=lambda one: (-len(one), one))
    found = {}
    for path in folder.iterdir():
        name = composed(path.name)
        end = next((one for one in ordered if name.endswith(one)), None)
        if end is not None:
            found[name.removesuffix(end)] = path
    return found


def _endings(image: str, label: str) -> tuple[str, str]:
    """Return what follows the common prefix in the file names of an image and its label.

    >>> _endings("a_1_leftImg8bit.png", "a_1_gtFine_labelIds.png")
    ('leftImg8bit.png', 'gtFine_labelIds.png')
    >>> _endings("00001.png", "00001.png")
    ('.png', '.png')
    """
    stem = Path(image).stem
    common = len(stem) if label.startswith(stem) else len(os.path.commonprefix([image, label]))  # noqa: RUF071
    return image[common:], label[common:]
