"""The pictures of the report as data URLs, few enough bytes that a page of 200 images opens at once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ripu.datasets.image_files import open_image
from ripu.labelstore import LabelStoreError
from ripu.report import storage
from ripu.report.painting import queried_map
from ripu.report.rundata import GalleryImage, RunData

MOST_BYTES = 14_000_000
"""What all pictures of a page may take, before they are written as text (which makes them a third larger)."""

SAMPLE = 8
LEAST_WIDTH = 96

MAP_NAMES = ("score", "impurity", "uncertainty")


def gallery_items(data: RunData) -> list[dict[str, Any]]:
    """The images of the gallery with everything that is shown of them, in the page's own form.

    Where they would be larger than :data:`MOST_BYTES` they are all made smaller.

    Returns:
        An object an image: ``id``, ``height`` and ``width`` of the label, ``image``, ``truth``, ``asked`` (red: round from
        1, green: class, both 0 where nothing is asked), ``after``, and ``rounds``: for every round the ``prediction`` before
        it, and ``maps``, one above the other, with what their lightest grey stands for.
    """
    width, images = storage.MOST_WIDTH, data.gallery
    sample = images[:: max(1, len(images) // SAMPLE)]
    while len(images) > SAMPLE:  # a few tell how large all will be
        size = sum(_size(_item(data, image, width)) for image in sample) * len(images) / len(sample)
        if size <= MOST_BYTES or width <= LEAST_WIDTH:
            break
        width = _smaller(width, size)
    while True:
        items = [_item(data, image, width) for image in images]
        size = sum(_size(item) for item in items)
        if size <= MOST_BYTES or width <= LEAST_WIDTH:
            return items
        width = _smaller(width, size)


def _smaller(width: int, size: float) -> int:
    return max(LEAST_WIDTH, int(width * min(0.93, (MOST_BYTES / size) ** 0.5)))


def _size(item: Any) -> int:
    if isinstance(item, str):
        return len(item) * 3 // 4
    if isinstance(item, Mapping):
        return sum(_size(part) for part in item.values())
    return sum(_size(part) for part in item) if isinstance(item, list) else 0


def data_url(data: bytes, kind: str) -> str:
    """Bytes of a picture as text that a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _item(data: RunData, image: GalleryImage, width: int) -> dict[str, Any]:
    stem = f"target-{image.index:05d}"
    item: dict[str, Any] = {"id": image.image_id, "height": image.height, "width": image.width}
    for key, name in (("image", f"{stem}-image.jpg"), ("truth", f"{stem}-truth.png"), ("after", f"{stem}-after.png")):
        url = picture_url(data, name, width)
        if url:
            item[key] = url
    if data.store is not None and data.store.num_rounds:
        try:
            asked = queried_map(data.store, image.image_id, storage.fitted((image.height, image.width), width))
            item["asked"] = data_url(storage.png(asked, width), "png")
        except LabelStoreError:
            pass  # the page says elsewhere that the store is damaged
    item["rounds"] = []
    for number in range(len(data.rounds)):
        recorded = data.maps(image, number)
        if recorded is None:
            item["rounds"].append({})
            continue
        names = [name for name in MAP_NAMES if name in recorded]
        stacked = np.concatenate([recorded[name] for name in names]) if names else None
        part: dict[str, Any] = {"prediction": data_url(storage.png(recorded["prediction"], width), "png")}
        if stacked is not None:
            part["maps"] = data_url(storage.jpeg(stacked, min(width // 2, storage.MAP_WIDTH), 70), "jpeg")
            part["names"] = names
            part["largest"] = [round(float(recorded[f"{name}_largest"]), 4) for name in names]
        item["rounds"].append(part)
    return item


def picture_url(data: RunData, name: str, width: int) -> str | None:
    """A recorded picture, at most ``width`` wide, as text; None where there is none."""
    path = data.folder / name
    if not path.exists():
        return None
    is_photo = path.suffix == ".jpg"
    with open_image(path) as file:
        if file.width <= width:
            return data_url(path.read_bytes(), "jpeg" if is_photo else "png")
        pixels = np.asarray(file)
    return data_url(
        storage.jpeg(pixels, width) if is_photo else storage.png(pixels, width), "jpeg" if is_photo else "png"
    )


def painted_url(data: RunData, name: str, width: int) -> str | None:
    """A recorded label in the colours of its classes, at most ``width`` wide, as text; None where there is none."""
    ids = data.picture(name)
    if ids is None:
        return None
    height, width = storage.fitted((ids.shape[0], ids.shape[1]), width)
    picture = Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)
    picture.putpalette(
        [part for color in data.class_colors for part in color] + [0] * 3 * (256 - len(data.class_colors))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return data_url(buffer.getvalue(), "png")


def old_pictures(data: RunData, most: int = 8) -> list[tuple[str, str]]:
    """Name and data URL of the sheets in ``pictures/``, for runs that recorded nothing else."""
    sheets = []
    for path in sorted((data.run / "pictures").glob("*.png"))[:most]:
        with open_image(path) as file:
            buffer = io.BytesIO()
            file.convert("RGB").save(buffer, "JPEG", quality=80)
        sheets.append((path.stem, data_url(buffer.getvalue(), "jpeg")))
    return sheets
