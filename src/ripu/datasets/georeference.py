"""The place of an image on the earth: the tags of a GeoTIFF, and world and metadata files beside an image.

Results on the same pixel grid get them unchanged, so neither coordinates nor their system are ever converted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import naming_file

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
_MOST_XML = 1 << 20


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
        suffix = result.suffix
        names = {
            "world": result.with_suffix(f".{suffix[1]}{suffix[-1]}w"),  # .tfw, .pgw, .jgw
            "prj": result.with_suffix(".prj"),
            "aux.xml": result.with_name(f"{result.name}.aux.xml"),
        }
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


def read_georeference(path: Path) -> Georeference | None:
    """Return the place of an image; None if it has none, or cannot be read.

    Raises:
        SceneError: The image has a place and an orientation that would turn it.
    """
    files = _files_beside(path)
    try:
        is_tiff = tiff_pages.is_tiff(path) if path.is_file() else False
    except OSError:
        return None
    page = tiff_pages.first_page(path) if is_tiff else None
    if page is None:
        return Georeference(is_tiff=False, files=files) if files else None
    stored = tiff_pages.read_tags(path, (*_GEO_TAGS, NODATA))
    tags = []
    for code, form in _GEO_TAGS.items():
        value = stored.get(code)
        if value is not None and (form == "s") == isinstance(value, str):
            tags.append((code, form, value if form == "s" else tuple(np.atleast_1d(value).tolist())))
    if not tags and not files:
        return None
    if tiff_pages.turn_of(page) != 1:
        raise SceneError(
            f"{path} has a georeference, and an orientation that asks viewers to turn it: results would lie elsewhere; "
            "remove the tag Orientation, or the georeference"
        )
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
    found: dict[str, bytes] = {}
    for end in dict.fromkeys((f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld")):
        for name in (end, end.upper()):
            file = path.with_suffix(f".{name}")
            if "world" not in found and file.is_file() and file.stat().st_size < _MOST_XML:
                found["world"] = file.read_bytes()
    projection = path.with_suffix(".prj")
    if "world" in found and projection.is_file() and projection.stat().st_size < _MOST_XML:
        found["prj"] = projection.read_bytes()
    metadata = path.with_name(f"{path.name}.aux.xml")
    if metadata.is_file() and metadata.stat().st_size < _MOST_XML and (kept := _place_of(metadata)) is not None:
        found["aux.xml"] = kept
    return found


def _place_of(path: Path) -> bytes | None:
    """Return the parts of a file of GDAL's metadata that place the image; None if there are none."""
    content = path.read_bytes()
    if b"<!" in content.replace(b"<!--", b""):  # entities may be bombs; GDAL writes none
        raise SceneError(f"{path} has declarations (<!...>), which GDAL does not write; remove it")
    with naming_file(path):
        try:
            root = ElementTree.fromstring(content)  # noqa: S314 (no declarations)
        except ElementTree.ParseError as error:
            raise ValueError(f"it is not XML: {error}") from error
    for child in list(root):
        if child.tag not in _PLACES:
            root.remove(child)
    return ElementTree.tostring(root) if len(root) else None
