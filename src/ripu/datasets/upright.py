"""Opened pictures as what they show: 8-bit RGB, turned as the EXIF data of a camera ask for."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

_PNG_EXIF = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
"""Where a PNG may say how it is to be turned."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""


def orientation(file: Image.Image) -> int:
    """The EXIF orientation of an opened picture that is not decoded yet.

    Returns:
        1 for a picture that is stored upright, 5 to 8 where its sides change places. A PNG that says so behind its pixels,
        and data that are damaged, count as 1.
    """
    if file.format == "PNG" and not _PNG_EXIF & file.info.keys():  # else Pillow would decode it all to look for more
        return 1
    try:
        value = file.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, OSError, KeyError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def upright_size(file: Image.Image) -> tuple[int, int]:
    """(height, width) of what :func:`upright_rgb` would make of an opened picture, from its head alone."""
    width, height = file.size
    if isinstance(
        file, TiffImagePlugin.TiffImageFile
    ):  # some versions of Pillow give the size as turned, others as stored
        width, height = file.tag_v2[ExifTags.Base.ImageWidth], file.tag_v2[ExifTags.Base.ImageLength]
    return (width, height) if orientation(file) >= 5 else (height, width)


def label_fit(turn: int, image: tuple[int, int], label: tuple[int, int]) -> str:
    """How a label lies to an image that its EXIF data turn.

    Args:
        turn: The orientation of the image file.
        image: (height, width) of the upright image.
        label: (height, width) of the label.

    Returns:
        ``lying``: it fits the image as it is stored, on its side. ``unclear``: its size is that of both, as stored and
        upright. Otherwise empty.
    """
    if turn >= 5 and label == image[::-1] != image:
        return "lying"
    return "unclear" if turn != 1 and label == image and (turn < 5 or image[0] == image[1]) else ""


def upright_rgb(file: Image.Image) -> NDArray[np.uint8]:
    """What an opened picture shows, as 8-bit RGB.

    Grey becomes RGB, transparency is left out, 16 bits become 8 (the most significant ones), and the turn that the EXIF
    data of a camera ask for is carried out: the image is upright, as viewers and labelling tools show it.

    Args:
        file: A picture, not yet decoded.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: It cannot be decoded.
    """
    turn = _TURNS.get(orientation(file))
    picture: Image.Image = file
    try:
        if isinstance(file, TiffImagePlugin.TiffImageFile):
            file.load()  # which turns it
        elif turn is not None:
            picture = file.transpose(turn)
    except (struct.error, TypeError, AttributeError) as error:  # of EXIF data with values of the wrong kind
        raise OSError(f"its EXIF data are damaged: {error}") from error
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _from_deep_grey(np.asarray(picture))
    return np.asarray(picture.convert("RGB"))


def _from_deep_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits: integers are taken for 16 bits, floats for 0..1 (or 0..255 where any exceeds 1)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values.astype(np.float64))
        scaled = finite * (255.0 if finite.max(initial=0.0) <= 1.0 else 1.0)
    else:
        scaled = values.astype(np.float64) / 257.0
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
