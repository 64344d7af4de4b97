"""Unpaired files in the folders of a data set: images without a label, labels without an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ripu.datasets.pairing import composed
from ripu.datasets.scenes import SceneDataset
from ripu.doctor.findings import WARNING, Finding, listed


def find_unpaired(parts: Mapping[str, SceneDataset]) -> list[Finding]:
    """Find files without a partner in the folders that the scenes of all parts come from."""
    images: dict[Path, set[str]] = {}
    endings: dict[tuple[Path, Path], set[tuple[str, str]]] = {}
    for scenes in parts.values():
        for scene in scenes.scenes:
            images.setdefault(scene.image.parent, set()).add(scene.image.name)
            if scene.label is not None:
                ends = endings.setdefault((scene.image.parent, scene.label.parent), set())
                ends.add(_endings(composed(scene.image.name), composed(scene.label.name)))
    found: list[Finding] = []
    for (folder, partner), ends in endings.items():
        if folder == partner:
            continue
        users = [name for name, scenes in parts.items() if any(one.image.parent == folder for one in scenes.scenes)]
        own = _by_stem(folder, {end for end, _ in ends})
        theirs = _by_stem(partner, {end for _, end in ends})
        alone = [str(path) for stem, path in own.items() if stem not in theirs and path.name not in images[folder]]
        what = "images beside these without a label, left out"
        found += listed(WARNING, ", ".join(users), what, f"add the labels to {partner}", sorted(alone))
        alone = [str(path) for stem, path in theirs.items() if stem not in own]
        what = "labels without an image"
        found += listed(WARNING, ", ".join(users), what, f"add the images to {folder}", sorted(alone))
    return found


def _by_stem(folder: Path, endings: set[str]) -> dict[str, Path]:
    """Map the names of a folder's files, without the longest ending that fits, to the files; leave other files out."""
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
    if label.startswith(stem):
        return Path(image).suffix, label[len(stem) :]
    common = 0
    while common < min(len(image), len(label)) and image[common] == label[common]:
        common += 1
    return image[common:], label[common:]
