"""Read CVAT's XML, which is not to be trusted."""

from __future__ import annotations

import re
from xml.parsers import expat

import numpy as np

from ripu.annotate.codecs.masks import Mask, from_runs
from ripu.annotate.codecs.names import short
from ripu.annotate.codecs.reading import MalformedError

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
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise MalformedError("it declares a document type or an entity, which can be harmful; such files are not read")
    images: list[Image] = []
    parents: list[str] = []

    def start(name: str, attributes: Attributes) -> None:
        if not parents and name != "annotations":
            raise MalformedError(f"its root is <{short(name)}>, not <annotations>", 'export "CVAT for images 1.1"')
        if name == "track" or (parents == ["annotations", "image"] and name in _SHAPES):
            raise MalformedError(
                f"it contains a <{name}>", 'answer with tags or masks, and export "CVAT for images 1.1"'
            )
        if parents == ["annotations"] and name == "image":
            images.append((attributes, []))
        elif parents == ["annotations", "image"] and name in ("tag", "mask"):
            images[-1][1].append((name, attributes))
        parents.append(name)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: parents.pop()
    try:
        parser.Parse(text, True)  # a text counts as UTF-8, whatever the file declares
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise MalformedError(f"not XML ({error})") from error
    return images


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
