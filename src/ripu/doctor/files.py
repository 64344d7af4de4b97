"""Judgement of files: readable, labelled, and of one size with their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ripu.datasets.pairing import label_fit
from ripu.datasets.scenes import SceneDataset
from ripu.doctor.findings import ERROR, NOTE, WARNING, Finding, listed
from ripu.doctor.reading import SceneFacts

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


def label_problem(fault: str) -> tuple[str, str]:
    """Return the problem behind a decoder's message, and its remedy."""
    known = (problem for phrase, problem in _LABEL_PROBLEMS.items() if phrase in fault)
    return next(known, ("labels that cannot be read", _AGAIN))


def judge_files(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Find images and labels that cannot be read, and images without a label."""
    pairs = list(zip(scenes.scenes, facts, strict=True))
    images = [f"{scene.image}: {one.image_fault}" for scene, one in pairs if one.image_fault]
    found = listed(ERROR, name, "images that cannot be read", _AGAIN, images)
    problems: dict[tuple[str, str], list[str]] = {}
    for scene, one in pairs:
        if one.label_fault:
            problems.setdefault(label_problem(one.label_fault), []).append(f"{scene.label}: {one.label_fault}")
    for (what, remedy), labels in problems.items():
        found += listed(ERROR, name, what, remedy, labels)
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
    found = listed(ERROR, name, "labels of another shape than their image", remedy, stretched)
    remedy = "look at one: images are read upright, so labels must be upright too"
    found += listed(
        WARNING, name, "photographs with an EXIF rotation, whose labels may not be upright", remedy, unclear
    )
    what = "labels of another size than their image, in the same proportions"
    found += listed(NOTE, name, what, "nothing to do: both are resized for training", scaled)
    sizes = Counter(one.image_size for one in facts if one.image_size)
    if len(sizes) > 3:
        shown = ", ".join(f"{size[1]} x {size[0]} ({count})" for size, count in sizes.most_common(3) if size)
        what = f"images of {len(sizes)} sizes: {shown}, ..."
        found.append(Finding(NOTE, name, what, "nothing to do: they are resized", len(sizes)))
    return found
