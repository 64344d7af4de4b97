"""Pictures of the report as data URLs, small enough that a page of 200 images opens at once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.image_files import open_image
from ripu.labelstore import LabelStoreError
from ripu.report import storage
from ripu.report.painting import class_table, queried_map
from ripu.report.rundata import GalleryImage, RunData

MOST_BYTES = 14_000_000
"""Limit for all pictures of a page, before they are written as text (which makes them a third larger)."""

SAMPLE = 8
LEAST_WIDTH = 96


def gallery_items(data: RunData) -> list[dict[str, Any]]:
    """Return the images of the gallery in the form that the page's script reads.

    If they exceed :data:`MOST_BYTES`, all are made smaller.

    Returns:
        For each image: ``id``, ``height`` and ``width`` of the label, ``image``, ``truth``, ``asked`` (red: round from
        1, green: class, both 0 where nothing was queried), ``after``, and ``rounds``: for every round the
        ``prediction`` before it, and ``maps``, stacked, with the value that the lightest grey of each stands for.
    """
    width, images = storage.MOST_WIDTH, data.gallery
    sample = images[:: max(1, len(images) // SAMPLE)]
    while True:
        size = 0.0
        if len(images) > SAMPLE:  # a few show how large all will be
            size = sum(_size(_item(data, image, width)) for image in sample) * len(images) / len(sample)
        if size <= MOST_BYTES or width <= LEAST_WIDTH:
            items = [_item(data, image, width) for image in images]
            size = sum(_size(item) for item in items)
            if size <= MOST_BYTES or width <= LEAST_WIDTH:
                return items
        width = max(LEAST_WIDTH, int(width * min(0.93, (MOST_BYTES / size) ** 0.5)))


def _size(item: Any) -> int:
    if isinstance(item, str):
        return len(item) * 3 // 4
    parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, list) else ()
    return sum(_size(part) for part in parts)


def _png(ids: NDArray[np.uint8], width: int) -> str:
    return _data_url(storage.png(ids, width), "png")


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _item(data: RunData, image: GalleryImage, width: int) -> dict[str, Any]:
    stem = f"target-{image.index:05d}"
    item: dict[str, Any] = {"id": image.image_id, "height": image.height, "width": image.width}
    for key, name in (("image", f"{stem}-image.jpg"), ("truth", f"{stem}-truth.png"), ("after", f"{stem}-after.png")):
        if url := picture_url(data, name, width):
            item[key] = url
    if data.store is not None and data.store.num_rounds:
        try:
            asked = queried_map(data.store, image.image_id, storage.fitted((image.height, image.width), width))
            item["asked"] = _png(asked, width)
        except LabelStoreError:
            pass  # another section of the page reports the damaged store
    item["rounds"] = []
    for number in range(len(data.rounds)):
        part: dict[str, Any] = {}
        if maps := data.maps(image, number):
            part["prediction"] = _png(maps["prediction"], width)
            if names := [name for name in storage.MAP_NAMES if name in maps]:
                stacked = np.concatenate([maps[name] for name in names])
                part["maps"] = _data_url(storage.jpeg(stacked, min(width // 2, storage.MAP_WIDTH), 70), "jpeg")
                part["names"] = names
                part["largest"] = [round(float(maps[f"{name}_largest"]), 4) for name in names]
        item["rounds"].append(part)
    return item


def picture_url(data: RunData, name: str, width: int) -> str | None:
    """Return a recorded picture, at most ``width`` wide, as text; None if there is none."""
    path = data.folder / name
    if not path.exists():
        return None
    kind, encode = ("jpeg", storage.jpeg) if path.suffix == ".jpg" else ("png", storage.png)
    with open_image(path) as file:
        return _data_url(path.read_bytes() if file.width <= width else encode(np.asarray(file), width), kind)


def painted_url(data: RunData, name: str, width: int) -> str | None:
    """Return a recorded label in class colours, at most ``width`` wide, as text; None if there is none."""
    ids = data.picture(name)
    if ids is None:
        return None
    height, width = storage.fitted((ids.shape[0], ids.shape[1]), width)
    picture = Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)
    picture.putpalette(class_table(data.class_colors).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _data_url(buffer.getvalue(), "png")


def old_pictures(data: RunData) -> list[tuple[str, str]]:
    """Return name and data URL of up to 8 sheets in ``pictures/``, for runs that recorded nothing else."""
    sheets = []
    for path in sorted((data.run / "pictures").glob("*.png"))[:8]:
        with open_image(path) as file:
            sheets.append((path.stem, _data_url(storage.jpeg(np.asarray(file.convert("RGB")), file.width, 80), "jpeg")))
    return sheets
