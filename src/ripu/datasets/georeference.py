"""The place of an image on the earth: the tags of a GeoTIFF, and world and metadata files beside an image.

Results on the same pixel grid get them unchanged, so neither coordinates nor their system are ever converted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import read_header
from ripu.io.reading import UntrustedError, open_regular, parse_xml

Tag = tuple[int, str, Any]
"""Code, form (``s`` text, ``H`` 16 bits, ``I`` 32 bits, ``Q`` 64 bits, ``d`` double) and values of a TIFF tag."""

NODATA, METADATA = 42113, 42112
"""Codes of GDAL's tags: the value of pixels without data, and descriptions as XML."""

_GEO_TAGS = {
    33550: "d",  # ModelPixelScale
    33922: "d",  # ModelTiepoint
    34264: "d",  # ModelTransformation
    34735: "H",  # GeoKeyDirectory
    34736: "d",  # GeoDoubleParams
    34737: "s",  # GeoAsciiParams
    50844: "d",  # RPCCoefficient
}
_PLACES = frozenset({"SRS", "GeoTransform", "GCPList"})  # in .aux.xml; the rest describes the values
_MOST_BYTES = 1 << 22  # of a file beside an image: .aux.xml may hold large tables


@dataclass(frozen=True)
class Georeference:
    """The place of an image.

    Attributes:
        is_tiff: True if the image is a TIFF.
        tags: Tags of a GeoTIFF that place it.
        files: Content of the files beside the image: ``world``, ``prj`` and ``aux.xml``.
        nodata: Value of pixels without data; None if there is none.
        alpha: Number of the band, from 0, that is 0 where there are no data; None if there is none.
    """

    is_tiff: bool
    tags: tuple[Tag, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    nodata: float | None = None
    alpha: int | None = None

    def beside(self, result: Path) -> dict[Path, bytes]:
        """Return the files that belong beside a result, with their contents."""
        names = names_beside(result)
        return {names[kind]: content for kind, content in self.files.items()}

    def missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return where stored values (rows, W, S) are no data, (rows, W); None if the file marks none."""
        if self.alpha is not None and self.alpha < values.shape[2]:
            found: NDArray[np.bool_] = values[..., self.alpha] == 0
            return found
        if self.nodata is None:
            return None
        same = np.isnan(values) if math.isnan(self.nodata) else values == self.nodata
        return np.asarray(same.all(axis=2))


def names_beside(result: Path) -> dict[str, Path]:
    """Return the path of each kind of file that may place a result, beside it."""
    suffix = result.suffix
    return {
        "world": result.with_suffix(f".{suffix[1]}{suffix[-1]}w"),  # .tfw, .pgw, .jgw
        "prj": result.with_suffix(".prj"),
        "aux.xml": result.with_name(f"{result.name}.aux.xml"),
    }


def read_georeference(path: Path) -> Georeference | None:
    """Return the place of an image; None if it has none, or is missing.

    Raises:
        SceneError: The image has a place and an orientation that would turn it, or cannot be read, or a file beside it.
    """
    files = _files_beside(path)
    try:
        is_tiff = tiff_pages.is_tiff(path) if path.is_file() else False
    except OSError:
        return None
    page = tiff_pages.first_page(path) if is_tiff else None
    stored = tiff_pages.read_tags(path, (*_GEO_TAGS, NODATA)) if page is not None else {}
    tags = []
    for code, form in _GEO_TAGS.items():
        value = stored.get(code)
        if value is not None and (form == "s") == isinstance(value, str):
            tags.append((code, form, value if form == "s" else tuple(np.atleast_1d(value).tolist())))
    if not tags and not files:
        return None
    turn = read_header(path, math.inf).orientation if page is None else tiff_pages.turn_of(page)
    if turn != 1:
        raise SceneError(
            f"{path} has a georeference, and an orientation that asks viewers to turn it (EXIF {turn}): results would "
            "lie elsewhere; remove the tag Orientation, or the georeference"
        )
    if page is None:
        return Georeference(is_tiff=False, files=files)
    extra = [int(kind) for kind in page.extrasamples]
    alpha = page.samplesperpixel - len(extra) + next((at for at, kind in enumerate(extra) if kind in (1, 2)), 0)
    has_alpha = any(kind in (1, 2) for kind in extra)
    return Georeference(True, tuple(tags), files, _number(stored.get(NODATA)), alpha if has_alpha else None)


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def _files_beside(path: Path) -> dict[str, bytes]:
    """Return the contents of the files beside an image that place it."""
    suffix = path.suffix.lower().lstrip(".")
    ends = dict.fromkeys((f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld"))
    found: dict[str, bytes] = {}
    for world in (path.with_suffix(f".{name}") for end in ends for name in (end, end.upper())):
        if "world" not in found and (content := _content_of(world)) is not None:
            found["world"] = content
    if "world" in found and (content := _content_of(path.with_suffix(".prj"))) is not None:
        found["prj"] = content
    metadata = path.with_name(f"{path.name}.aux.xml")
    if (content := _content_of(metadata)) is not None and (kept := _place_of(content, metadata)) is not None:
        found["aux.xml"] = kept
    return found


def _content_of(path: Path) -> bytes | None:
    """Return the content of a file beside an image; None without one."""
    if not os.path.exists(path) or os.path.isdir(path):
        return None
    try:
        with open_regular(path, _MOST_BYTES) as file:
            return file.read()
    except OSError as error:
        raise SceneError(
            f"{path} cannot be read ({error.strerror or error}); make it readable, or remove it"
        ) from error
    except UntrustedError as error:
        raise SceneError(f"{error}; it should place an image: correct it, or remove it") from error


def _place_of(content: bytes, path: Path) -> bytes | None:
    """Return the parts of GDAL's metadata that place the image; None if there are none."""
    try:
        root = parse_xml(content)
        for child in list(root):
            if child.tag not in _PLACES:
                root.remove(child)
        return ElementTree.tostring(root) if len(root) else None
    except RecursionError as error:
        raise SceneError(f"{path} is nested too deeply; correct it, or remove it") from error
    except ValueError as error:
        raise SceneError(f"{path} cannot be read ({error}); correct it, or remove it") from error
