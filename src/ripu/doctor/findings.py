"""What is wrong with a data set, judged from what was read: findings, each with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError
from ripu.datasets.pairing import composed, label_fit
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import Taxonomy
from ripu.doctor.reading import SceneFacts, read_label

ERROR, WARNING, NOTE = "error", "warning", "note"

NEAR_LEVELS = 1.5
"""Grey levels (of 255, root mean square over a small copy) below which two images are the same picture stored anew."""

SAMPLED = 4
"""Scenes a part that training reads before it begins."""

SAMPLED_HEADS = 50
"""Scenes a part whose files training looks for before it begins."""

_LABEL_REMEDIES: Mapping[str, tuple[str, str]] = {
    "one id per pixel": (
        "labels that are pictures in colour",
        "give the id files (Cityscapes: *_gtFine_labelIds.png), not those in colour for the eye",
    ),
    "16-bit": (
        "labels that are not the 16-bit files of SYNTHIA",
        "give the files of GT/LABELS as they came: converting them to 8 bits makes them zeros",
    ),
    "neither in": (
        "labels with ids or colours that nobody has spoken of",
        "add them to the class map or to what is ignored (docs/your-own-data.md)",
    ),
    "": (
        "labels that cannot be read",
        "copy or download the files again, or take them out",
    ),
}
"""Part of what a decoder says -> what is the matter, and the remedy."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: ``error``: training would be wrong or stop; ``warning``: probably not as meant; ``note``: good to know.
        part: ``source``, ``target``, ``val``, or two of them.
        what: What is the matter, in a line.
        remedy: What to do.
        count: How many scenes or files.
        examples: Some of them.
    """

    level: str
    part: str
    what: str
    remedy: str
    count: int = 1
    examples: tuple[str, ...] = ()


def examine(parts: Mapping[str, SceneDataset], facts: Mapping[str, Sequence[SceneFacts]]) -> list[Finding]:
    """Judge a data set.

    Args:
        parts: Scenes by name of the part: source, target and val.
        facts: What was read of them.

    Returns:
        What was found, the worst first.
    """
    found: list[Finding] = []
    for name, scenes in parts.items():
        found += _files(name, scenes, facts[name])
        found += _sizes(name, scenes, facts[name])
        ids = _ids(name, scenes.taxonomy, facts[name])
        # Where ids are not what they are taken for, counts of classes say nothing.
        found += ids or _classes(name, scenes.taxonomy, facts[name])
        found += _twice(name, scenes, facts[name])
    found += _orphans(parts)
    found += _leaks(parts, facts)
    order = {ERROR: 0, WARNING: 1, NOTE: 2}
    return sorted(found, key=lambda one: order[one.level])


def quick_check(parts: Mapping[str, SceneDataset]) -> None:
    """What training looks at before it begins: files that are there, and a few labels that mean something.

    Takes about a second, however many scenes there are.

    Args:
        parts: Scenes by name of the part.

    Raises:
        SceneError: Naming a file that is missing, or labels that cannot be read or be meant.
    """
    for name, scenes in parts.items():
        # Where unreadable files are skipped, they are told of when they are met.
        for index in [] if scenes.skips_unreadable else _spread(len(scenes), SAMPLED_HEADS):
            for path in (scenes.scenes[index].image, scenes.scenes[index].label):
                if path is not None and not (path.is_file() and path.stat().st_size):
                    state = "is empty" if path.is_file() else "is no file" if path.exists() else "does not exist"
                    raise SceneError(f"{path} {state}; restore it, or take the scene out ({_MORE})")
        labelled = [index for index, scene in enumerate(scenes.scenes) if scene.label is not None]
        sampled = [labelled[at] for at in _spread(len(labelled), SAMPLED)]
        read = [read_label(scenes, index, SceneFacts()) for index in sampled]
        for index, one in zip(sampled, read, strict=True):
            if one.label_fault and not scenes.skips_unreadable:
                _, remedy = _LABEL_REMEDIES[_kind_of_fault(one.label_fault)]
                raise SceneError(f"{scenes.scenes[index].label}: {one.label_fault}; {remedy} ({_MORE})")
        for finding in _ids(name, scenes.taxonomy, read):
            if finding.level == ERROR:
                raise SceneError(f"{scenes.name}: {finding.what}; {finding.remedy} ({_MORE})")


def _kind_of_fault(fault: str) -> str:
    """Which of _LABEL_REMEDIES helps."""
    return next((kind for kind in _LABEL_REMEDIES if kind and kind in fault), "")


_MORE = "python -m ripu.doctor dataset=... checks every file"


def _spread(total: int, count: int) -> list[int]:
    return sorted({round(at * (total - 1) / max(1, min(count, total) - 1)) for at in range(min(count, total))})


def _some(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(list(items)[:5])


def _files(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    found = []
    pairs = list(zip(scenes.scenes, facts, strict=True))
    images = [f"{scene.image}: {one.image_fault}" for scene, one in pairs if one.image_fault]
    if images:
        remedy = "copy or download the files again, or take them out"
        found.append(
            Finding(ERROR, name, f"images that cannot be read: {len(images)}", remedy, len(images), _some(images))
        )
    kinds: dict[str, list[str]] = {}
    for scene, one in pairs:
        if one.label_fault:
            kinds.setdefault(_kind_of_fault(one.label_fault), []).append(f"{scene.label}: {one.label_fault}")
    for kind, labels in kinds.items():
        what, remedy = _LABEL_REMEDIES[kind]
        found.append(Finding(ERROR, name, f"{what}: {len(labels)}", remedy, len(labels), _some(labels)))
    alone = [scene.image_id for scene in scenes.scenes if scene.label is None]
    if alone:
        level = NOTE if name == "target" else ERROR
        what = f"images without a label: {len(alone)} of {len(scenes)}"
        remedy = "add the labels or take the images out"
        if name == "target":
            remedy = "nothing, if a person is to answer; otherwise what is asked of them stays unanswered"
        found.append(Finding(level, name, what, remedy, len(alone), _some(alone)))
    return found


def _sizes(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    other: list[str] = []
    stretched: list[str] = []
    doubtful: list[str] = []
    num_lying = 0
    for scene, one in zip(scenes.scenes, facts, strict=True):
        if one.image_size is None or one.label_size is None:
            continue
        fit = label_fit(one.orientation, one.image_size, one.label_size)
        if fit == "unclear":
            doubtful.append(str(scene.image))
        if one.image_size == one.label_size:
            continue
        (height, width), (rows, columns) = one.image_size, one.label_size
        text = f"{scene.image_id} (image {width} x {height}, label {columns} x {rows})"
        is_same_shape = abs(width * rows - height * columns) <= 0.01 * width * rows
        (other if is_same_shape else stretched).append(text)
        num_lying += fit == "lying"
    found = []
    if stretched:
        what = f"labels of another shape than their image: {len(stretched)}"
        remedy = "pair the files that belong together, or take these out"
        if num_lying:
            remedy = f"{num_lying} lie on their side, as their photographs are stored: turn them, too; " + remedy
        found.append(Finding(ERROR, name, what, remedy, len(stretched), _some(stretched)))
    if doubtful:
        what = f"photographs that their EXIF data turn, so that their labels may be upright or not: {len(doubtful)}"
        remedy = "look at one: images are read upright, and labels must be, too"
        found.append(Finding(WARNING, name, what, remedy, len(doubtful), _some(doubtful)))
    if other:
        what = f"labels of another size than their image, in the same proportions: {len(other)}"
        found.append(Finding(NOTE, name, what, "nothing: both are resized for training", len(other), _some(other)))
    sizes = Counter(one.image_size for one in facts if one.image_size)
    if len(sizes) > 3:
        shown = ", ".join(f"{width} x {height} ({count})" for (height, width), count in sizes.most_common(3) if height)
        what = f"images of {len(sizes)} sizes: {shown}, ..."
        found.append(Finding(NOTE, name, what, "nothing: they are resized", len(sizes)))
    return found


def _ids(name: str, taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> list[Finding]:
    """What the ids in label files tell: trap, mix-up, wrong subset, ids that nobody knows."""
    counts: Counter[int] = Counter()
    zeros = labelled = 0
    for one in facts:
        if one.disk_ids:
            labelled += 1
            counts.update(one.disk_ids)
            zeros += set(one.disk_ids) == {0}
    if not labelled:
        return []
    total = counts.total()
    void = sum(count for number, count in counts.items() if number not in taxonomy.disk_to_train) / total
    seen, found = set(counts), []
    known = taxonomy.file_ids or frozenset(range(256))
    strange = sorted(seen - known - set(taxonomy.disk_to_train))
    if zeros == labelled and 0 not in taxonomy.disk_to_train:
        what = f"all {labelled} labels are zeros, which is no class"
        remedy = (
            "take the label files as they came: 16-bit labels (SYNTHIA) become zeros in programs that keep 8 bits of each "
            "value"
        )
        return [Finding(ERROR, name, what, remedy, labelled)]
    if zeros == labelled > 1 and taxonomy.num_classes > 2:
        # Of a few labels, all may well show the background alone.
        level = ERROR if labelled > SAMPLED else WARNING
        what = f"all {labelled} labels hold the id 0 alone, {taxonomy.class_names[taxonomy.disk_to_train[0]]}"
        remedy = "take the label files as they came: conversions to 8 bits, and empty masks, are zeros everywhere"
        return [Finding(level, name, what, remedy, labelled)]
    if taxonomy.look_like_train_ids(counts):
        what = f"labels hold train ids (0..18), not label ids: read so, {100 * void:.0f} % of the pixels are void"
        remedy = "give *_gtFine_labelIds.png, not *_gtFine_labelTrainIds.png"
        return [Finding(ERROR, name, what, remedy, labelled)]
    if strange:
        share = 100 * sum(counts[number] for number in strange) / total
        what = (
            f"{len(strange)} ids in labels that the data set does not have: {strange[:8]}, {share:.1f} % of the pixels"
        )
        remedy = "give the files of class ids; grey or smoothed copies of colour pictures and instance files are none"
        found.append(Finding(ERROR if share > 0.5 else WARNING, name, what, remedy, len(strange)))
    if (
        taxonomy.name.startswith("synthia")
        and labelled >= SAMPLED
        and max(seen - {255}, default=0) <= 12
        and len(seen) > 4
    ):
        what = f"labels hold no id above {max(seen - {255})}: they are not of SYNTHIA-RAND-CITYSCAPES, whose ids go up to 22"
        remedy = 'download "SYNTHIA-RAND-CITYSCAPES (CVPR16)"; SYNTHIA-RAND and the sequences have other classes'
        found.append(Finding(ERROR, name, what, remedy, labelled))
    elif void > 0.95 and not strange:
        what = f"{100 * void:.1f} % of the label pixels have no class"
        remedy = f"compare the ids in the files ({sorted(seen)[:12]}) with those of taxonomy {taxonomy.name}"
        is_partial = name == "target"  # a target may be labelled in places: the rest is asked about in vain, no more
        remedy += ", unless the target is labelled in places only" if is_partial else ""
        found.append(Finding(WARNING if is_partial else ERROR, name, what, remedy, labelled))
    elif void > 0.5:
        what = f"{100 * void:.0f} % of the label pixels have no class"
        remedy = f"compare the ids in the files ({sorted(seen)[:12]}) with those of taxonomy {taxonomy.name}"
        found.append(Finding(WARNING, name, what, remedy, labelled))
    return found


def class_pixels(taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> NDArray[np.int64]:
    """(C + 1,) int64 pixels of each class, and of void at the end."""
    total = np.zeros(taxonomy.num_classes + 1, dtype=np.int64)
    for one in facts:
        if one.train_pixels:
            total += np.array([*one.train_pixels, one.void], dtype=np.int64)
    return total


def _classes(name: str, taxonomy: Taxonomy, facts: Sequence[SceneFacts]) -> list[Finding]:
    pixels = class_pixels(taxonomy, facts)
    if not pixels.sum():
        return []
    empty = [one for one, count in zip(taxonomy.class_names, pixels[:-1], strict=True) if not count]
    if not empty or len(empty) == taxonomy.num_classes:
        return []
    why = {
        "source": "pre-training learns nothing of them; nothing to do where the source does not have them",
        "target": "no round can reveal them",
        "val": "their IoU is null, and the mean leaves them out; add images that show them",
    }
    level = NOTE if name == "target" else WARNING
    return [Finding(level, name, f"classes without a pixel: {', '.join(empty)}", why[name], len(empty))]


def _twice(name: str, scenes: SceneDataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    groups: dict[str, list[str]] = {}
    for scene, one in zip(scenes.scenes, facts, strict=True):
        if one.image_pixels:
            groups.setdefault(one.image_pixels, []).append(scene.image_id)
    same = [" = ".join(group[:3]) for group in groups.values() if len(group) > 1]
    if not same:
        return []
    what = f"images that are there more than once, under other names: {len(same)}"
    remedy = "keep one of each: copies count double in training and in the mean"
    return [Finding(WARNING, name, what, remedy, len(same), _some(same))]


def _leaks(parts: Mapping[str, SceneDataset], facts: Mapping[str, Sequence[SceneFacts]]) -> list[Finding]:
    """Validation images that training sees: the same bytes, the same pixels, or nearly."""
    if "val" not in parts:
        return []
    found = []
    scenes_facts = zip(parts["val"].scenes, facts["val"], strict=True)
    val = [(scene.image_id, one) for scene, one in scenes_facts if one.image_pixels]
    remedy = "take them out of one of the two: a measure on images that were trained on is worth nothing"
    for name in [part for part in parts if part != "val"]:
        train = [(scene, one) for scene, one in zip(parts[name].scenes, facts[name], strict=True) if one.image_pixels]
        by_bytes = {one.image_bytes: scene.image_id for scene, one in train}
        by_pixels = {one.image_pixels: scene.image_id for scene, one in train}
        bytes_, pixels, rest = [], [], []
        for image_id, one in val:
            if one.image_bytes in by_bytes:
                bytes_.append(f"{image_id} = {by_bytes[one.image_bytes]}")
            elif one.image_pixels in by_pixels:
                pixels.append(f"{image_id} = {by_pixels[one.image_pixels]}")
            else:
                rest.append((image_id, one))
        where = f"val and {name}"
        if bytes_:
            what = f"validation images that are in {name} too, byte for byte: {len(bytes_)}"
            found.append(Finding(ERROR, where, what, remedy, len(bytes_), _some(bytes_)))
        if pixels:
            what = f"validation images that are in {name} too, pixel for pixel in another file: {len(pixels)}"
            found.append(Finding(ERROR, where, what, remedy, len(pixels), _some(pixels)))
        near = _near(rest, [(scene.image_id, one) for scene, one in train])
        if near:
            what = f"validation images that look the same as one in {name} (stored anew, or a standing camera): {len(near)}"
            found.append(Finding(WARNING, where, what, "look at them; " + remedy, len(near), _some(near)))
    return found


def _near(val: Sequence[tuple[str, SceneFacts]], train: Sequence[tuple[str, SceneFacts]]) -> list[str]:
    if not val or not train:
        return []
    one = np.stack([np.frombuffer(facts.thumb, np.uint8) for _, facts in val]).astype(np.float32)
    other = np.stack([np.frombuffer(facts.thumb, np.uint8) for _, facts in train]).astype(np.float32)
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


def _orphans(parts: Mapping[str, SceneDataset]) -> list[Finding]:
    """Files beside those that are used which have no partner."""
    images: dict[Path, set[str]] = {}
    endings: dict[tuple[Path, Path], set[tuple[str, str]]] = {}
    for scenes in parts.values():
        for scene in scenes.scenes:
            images.setdefault(scene.image.parent, set()).add(scene.image.name)
            if scene.label is not None:
                ends = endings.setdefault((scene.image.parent, scene.label.parent), set())
                ends.add(_endings(composed(scene.image.name), composed(scene.label.name)))
    found = []
    for (folder, partner), ends in endings.items():
        if folder == partner:
            continue
        named = ", ".join(
            name for name, scenes in parts.items() if any(s.image.parent == folder for s in scenes.scenes)
        )
        there = _by_stem(folder, {end for end, _ in ends})
        theirs = _by_stem(partner, {end for _, end in ends})
        lonely = sorted(
            str(path) for stem, path in there.items() if stem not in theirs and path.name not in images[folder]
        )
        if lonely:
            what = f"images beside these without a label, left out: {len(lonely)}"
            found.append(Finding(WARNING, named, what, f"add the labels to {partner}", len(lonely), _some(lonely)))
        lonely = sorted(str(path) for stem, path in theirs.items() if stem not in there)
        if lonely:
            what = f"labels without an image: {len(lonely)}"
            found.append(Finding(WARNING, named, what, f"add the images to {folder}", len(lonely), _some(lonely)))
    return found


def _by_stem(folder: Path, endings: set[str]) -> dict[str, Path]:
    """Files with one of some endings, by what is before it; of several endings that fit, the longest."""
    ordered = sorted(endings, key=lambda one: (-len(one), one))
    found = {}
    for path in folder.iterdir():
        name = composed(path.name)
        end = next((one for one in ordered if name.endswith(one)), None)
        if end is not None:
            found[name.removesuffix(end)] = path
    return found


def _endings(image: str, label: str) -> tuple[str, str]:
    """What follows the common name in an image's and in its label's file name.

    >>> _endings("a_1_leftImg8bit.png", "a_1_gtFine_labelIds.png")
    ('leftImg8bit.png', 'gtFine_labelIds.png')
    >>> _endings("00001.png", "00001.png")
    ('.png', '.png')
    """
    stem = Path(image).stem
    if label.startswith(stem):
        return Path(image).suffix, label[len(stem) :]
    common = 0
    while common < min(len(image), len(label)) and image[common] == label[common]:
        common += 1
    return image[common:], label[common:]
