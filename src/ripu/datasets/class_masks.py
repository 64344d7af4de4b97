"""Labels that consist of a mask for each class: ``masks/road/7.png`` and ``masks/car/7.png`` for ``images/7.jpg``.

In a pattern such as ``masks/{class}/*.png``, ``{class}`` stands for the name of a class and ``{any}`` for text that
does not matter; the wildcards match the same text as those of the image. In a mask, zero is outside and one other value
is inside. Pixels outside all masks are void, and masks of different classes must not overlap.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import read_ids
from ripu.datasets.pairing import composed, glob_images, pattern_regex
from ripu.datasets.taxonomy import VOID


@dataclass
class ClassMasks:
    """Reader of labels that are a mask for each class.

    Attributes:
        names: The classes in the order of train ids.
        files: First mask of an image -> all of its masks, with their train ids.
    """

    names: tuple[str, ...]
    files: dict[Path, tuple[tuple[Path, int], ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a text that differs if another label may be read, for cache keys."""
        digest = hashlib.sha256()
        for path, train_id in (one for masks in self.files.values() for one in masks):
            status = path.stat()
            digest.update(f"{path} {train_id} {status.st_size} {status.st_mtime_ns}".encode())
        return f"ClassMasks({digest.hexdigest()})"

    def find(self, root: Path, pattern: str, key: str) -> dict[tuple[str, ...], Path]:
        """Find the masks below ``root``, and return the first one of each image by the text of its wildcards.

        Raises:
            SceneError: The pattern finds no mask, or finds one whose class is not among ``names``.
        """
        wide = pattern.replace("{any}", "*")
        shape = pattern_regex(pattern).replace(r"\{any\}", "[^/]*")
        ordered = sorted(map(composed, self.names), key=len, reverse=True)
        known = re.compile(shape.replace(r"\{class\}", f"(?P<name>{'|'.join(map(re.escape, ordered))})"))
        numbers = {composed(name): number for number, name in enumerate(self.names)}
        found: dict[tuple[str, ...], list[tuple[Path, int]]] = {}
        strange: list[str] = []
        for path in glob_images(root, wide.replace("{class}", "*"), key):
            match = known.fullmatch(composed(path.relative_to(root).as_posix()))
            if match is None:
                strange.append(path.relative_to(root).as_posix())
                continue
            texts = list(match.groups())
            del texts[known.groupindex["name"] - 1]
            found.setdefault(tuple(texts), []).append((path, numbers[match["name"]]))
        if strange:
            raise SceneError(
                f"{key}={pattern}: {len(strange)} masks are of no class in dataset.classes {list(self.names)}: "
                f"{strange[:5]}; add the class, or take them out"
            )
        self.files |= {masks[0][0]: tuple(masks) for masks in found.values()}
        return {texts: masks[0][0] for texts, masks in found.items()}

    def __call__(self, path: Path) -> NDArray[np.integer]:
        """Return the (H, W) train ids of the masks whose first one is ``path``, 255 where there is none.

        Raises:
            SceneError: A mask has more than two values or another size, or two classes overlap.
        """
        label: NDArray[np.uint8] | None = None
        for file, train_id in self.files[path]:
            mask = self._read(file)
            if label is None:
                label = np.full(mask.shape, VOID, dtype=np.uint8)
            if mask.shape != label.shape:
                raise SceneError(f"{file} differs in size from {path}; make the masks of an image of one size")
            others = np.setdiff1d(label[mask], (VOID, train_id))
            if others.size:
                number = int((mask & (label == others[0])).sum())
                raise SceneError(
                    f"{file}: {number} of its pixels are also in the mask of {self.names[others[0]]}; a pixel has one "
                    "class: correct the masks"
                )
            label[mask] = train_id
        assert label is not None
        return label

    def _read(self, file: Path) -> NDArray[np.bool_]:
        values = read_ids(file)
        inside: NDArray[np.bool_] = values != 0
        if np.unique(values[inside]).size > 1:
            raise SceneError(
                f"{file} is not a mask: besides zero, it has {np.unique(values[inside]).size} values; store masks "
                "without smoothing, as PNG"
            )
        return inside


def is_class_pattern(pattern: str) -> bool:
    """Return whether a pattern of labels stands for a mask for each class."""
    return "{class}" in pattern


def all_or_none(patterns: Sequence[str], key: str, is_kind: Callable[[str], bool], sign: str) -> None:
    """Refuse patterns of which only some are of a kind, which have ``sign`` in them."""
    if len({is_kind(pattern) for pattern in patterns}) > 1:
        raise SceneError(f"{key}={list(patterns)}: either all of them or none can have {sign}; split the data set")
