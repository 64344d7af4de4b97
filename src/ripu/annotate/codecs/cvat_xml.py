"""Read CVAT's XML, which is not to be trusted."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ripu.annotate.codecs.masks import Mask, from_runs
from ripu.annotate.codecs.names import short
from ripu.annotate.codecs.reading import MalformedError
from ripu.io.reading import parse_xml

Attributes = dict[str, str]
Image = tuple[Attributes, list[tuple[str, Attributes]]]
"""The attributes of an image; the names and attributes of its tags and masks."""

_SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "track"})


def read_images(content: bytes) -> list[Image]:
    """Return the images of a file of "CVAT for images 1.1".

    Args:
        content: The file, in UTF-8.

    Raises:
        MalformedError: It is not well-formed, not in UTF-8, or declares a document type or an entity, or contains
            shapes.
    """
    try:
        text = content.decode("utf-8-sig")  # in another encoding a declaration could hide
    except UnicodeDecodeError as error:
        raise MalformedError(f"not in UTF-8 ({error})") from error
    try:
        return list(parse_xml(text, _Images()))  # a text counts as UTF-8, whatever the file declares
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(str(error)) from error


class _Images(ElementTree.TreeBuilder):
    """Collects images, and keeps nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._images: list[Image] = []
        self._parents: list[str] = []

    def start(self, tag: str, attrs: Attributes) -> Any:
        parents = self._parents
        if not parents and tag != "annotations":
            raise MalformedError(f"its root is <{short(tag)}>, not <annotations>", 'export "CVAT for images 1.1"')
        if tag == "track" or (parents == ["annotations", "image"] and tag in _SHAPES):
            raise MalformedError(
                f"it contains a <{tag}>", 'answer with tags or masks, and export "CVAT for images 1.1"'
            )
        if parents == ["annotations"] and tag == "image":
            self._images.append((attrs, []))
        elif parents == ["annotations", "image"] and tag in ("tag", "mask"):
            self._images[-1][1].append((tag, attrs))
        parents.append(tag)

    def end(self, tag: str) -> Any:
        self._parents.pop()

    def data(self, data: Any) -> None:
        pass

    def close(self) -> Any:
        return self._images


def read_mask(attributes: Attributes, size: tuple[int, int], where: str) -> Mask:
    """Return a mask on the picture, (h * s, w * s) bool: runs row by row in a box."""
    texts = [attributes.get(key, "") for key in ("top", "left", "height", "width")]
    runs = re.split(r", ?", attributes.get("rle", "").strip())
    if not all(re.fullmatch("[0-9]{1,9}", text) for text in (*texts, *runs)):
        raise MalformedError(f"{where}: its mask is damaged")
    top, left, height, width = map(int, texts)
    mask = np.zeros(size, dtype=np.bool_)
    if top + height > size[0] or left + width > size[1]:
        raise MalformedError(f"{where}: its mask extends beyond the picture")
    box = from_runs([int(run) for run in runs], height * width, where)
    mask[top : top + height, left : left + width] = box.reshape(height, width)
    return mask
