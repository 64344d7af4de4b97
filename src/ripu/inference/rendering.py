"""Rendering of predictions: ids, colours, overlays, uncertainty, and the legend of the colours."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ripu.datasets.taxonomy import Taxonomy
from ripu.inference.palette import heat


def render(
    kind: str,
    picture: NDArray[np.uint8],
    label: NDArray[np.uint8],
    entropy: NDArray[np.float32],
    taxonomy: Taxonomy,
    opacity: float,
) -> bytes:
    """Return the bytes of a file of a prediction.

    Args:
        kind: ``labelIds``, ``trainIds``, ``color``, ``overlay`` (the only JPEG), or ``uncertainty``: a palette image
            whose index 0 is 0 nats and 255 is log C.
        picture: (H, W, 3) uint8 RGB, the image.
        label: (H, W) uint8 train ids.
        entropy: (H, W) float32 nats.
        taxonomy: The classes.
        opacity: Opacity of the colours in overlays, in [0, 1].
    """
    if kind == "labelIds":
        return _encoded(Image.fromarray(taxonomy.to_disk_ids(label)))
    if kind == "trainIds":
        return _encoded(Image.fromarray(label))
    if kind == "color":
        return _encoded(Image.fromarray(taxonomy.colorize(label)))
    if kind == "overlay":
        mixed = np.rint(picture * (1 - opacity) + taxonomy.colorize(label) * opacity).astype(np.uint8)
        return _encoded(Image.fromarray(mixed), "JPEG", quality=90)
    largest = math.log(taxonomy.num_classes) if taxonomy.num_classes > 1 else 1.0
    image = Image.fromarray(np.clip(np.rint(entropy * (255.0 / largest)), 0, 255).astype(np.uint8), mode="P")
    image.putpalette(heat(np.arange(256.0)[None], 255.0).tobytes())
    return _encoded(image)


def _encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def legend(taxonomy: Taxonomy) -> bytes:
    """Render a small picture that names the colours."""
    line, font = 24, ImageFont.load_default(14)
    sheet = Image.new("RGB", (240, line * taxonomy.num_classes + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, color) in enumerate(zip(taxonomy.class_names, taxonomy.class_colors, strict=True)):
        top = 4 + number * line
        draw.rectangle((6, top + 3, 36, top + line - 4), fill=color)
        draw.text((46, top + 3), name, fill="black", font=font)
    return _encoded(sheet)
