"""The result files of an image: painted and written strip by strip, and published together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.georeference import METADATA, NODATA, Georeference, Tag
from ripu.datasets.taxonomy import Taxonomy
from ripu.inference.image_writers import JpegWriter, PngWriter, StripWriter, TiffKind, TiffWriter
from ripu.inference.palette import heat
from ripu.io.writing import AtomicFile, writing

KINDS = {"labelIds": ".png", "trainIds": ".png", "color": ".png", "overlay": ".jpg", "uncertainty": ".png"}
"""Kinds of files that an image can get, with their suffixes unless the image is a georeferenced TIFF."""

_GEO_SUFFIX = ".tif"
_CLASSES, _IN_COLOR = ("labelIds", "trainIds"), ("color", "overlay")


def is_placed_tiff(place: Georeference | None) -> bool:
    """Return whether an image is a TIFF with a place; its results are TIFFs, too."""
    return place is not None and place.is_tiff


def suffix_of(kind: str, is_placed: bool) -> str:
    """Return the suffix of a kind of file; ``is_placed`` as of :func:`is_placed_tiff`."""
    return _GEO_SUFFIX if is_placed else KINDS[kind]


@dataclass(frozen=True)
class Strip:
    """Results of some rows of an image.

    Attributes:
        label: Train ids, (rows, W) uint8.
        entropy: In nats, (rows, W) float32.
        picture: The image as RGB, (rows, W, 3) uint8; only overlays need it.
        missing: Where the image has no data, (rows, W) bool; None if it marks none.
    """

    label: NDArray[np.uint8]
    entropy: NDArray[np.float32]
    picture: NDArray[np.uint8] | None = None
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Painter:
    """Makes the pixels of every kind of file.

    Attributes:
        taxonomy: The classes.
        opacity: Of the colours in overlays.
    """

    taxonomy: Taxonomy
    opacity: float

    def pixels(self, kind: str, strip: Strip) -> NDArray[np.uint8]:
        """Return the pixels of a kind of file; uncertainty is 0 for 0 nats and 255 for log C."""
        label = strip.label
        if kind == "labelIds":
            return self.taxonomy.to_disk_ids(label)
        if kind == "trainIds":
            return label
        if kind == "color":
            return self.taxonomy.colorize(label)
        if kind == "overlay":
            assert strip.picture is not None
            colors = self.taxonomy.colorize(label)
            mixed: NDArray[np.floating] = np.rint(strip.picture * (1 - self.opacity) + colors * self.opacity)
            return mixed.astype(np.uint8)
        classes = self.taxonomy.num_classes
        largest = math.log(classes) if classes > 1 else 1.0
        steps: NDArray[np.floating] = np.clip(np.rint(strip.entropy * (255.0 / largest)), 0, 255)
        return steps.astype(np.uint8)

    def values(self, kind: str, strip: Strip) -> NDArray[Any]:
        """Return the values of a kind of georeferenced file; pixels without data have the value for that."""
        values: NDArray[Any] = strip.entropy if kind == "uncertainty" else self.pixels(kind, strip)
        if strip.missing is not None and kind != "overlay":
            values = values.copy()
            values[strip.missing] = math.nan if kind == "uncertainty" else self.empty(kind) if kind in _CLASSES else 0
        return values

    def empty(self, kind: str) -> int:
        """Return the id of pixels without data: 255, or the largest one below it that is of no class."""
        taken = set(self.taxonomy.disk_to_train) if kind == "labelIds" else set(range(self.taxonomy.num_classes))
        return max(set(range(256)) - taken, default=255)

    def tiff_kind(self, kind: str, place: Georeference) -> TiffKind:
        """Return the kind of TIFF that a kind of georeferenced file is."""
        names = self.taxonomy.class_names
        if kind in _IN_COLOR:
            return TiffKind(np.uint8, num_bands=3, tags=place.tags)
        if kind == "uncertainty":
            tags = (*place.tags, (NODATA, "s", "nan"), _described("uncertainty (entropy in nats)", {}))
            return TiffKind(np.float32, tags=tags)
        ids = np.arange(len(names), dtype=np.uint8)
        stored = self.taxonomy.to_disk_ids(ids) if kind == "labelIds" else ids
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[stored] = np.asarray(self.taxonomy.class_colors, dtype=np.uint8)
        items = {f"class {number}": name for number, name in zip(stored.tolist(), names, strict=True)}
        tags = (*place.tags, (NODATA, "s", str(self.empty(kind))), _described("class", items))
        return TiffKind(np.uint8, colors=colors, tags=tags)


def _described(band: str, items: Mapping[str, str]) -> Tag:
    """Return GDAL's tag that names the band, and further items."""
    lines = [f'<Item name="DESCRIPTION" sample="0" role="description">{escape(band)}</Item>']
    lines += [f'<Item name="{name}">{escape(text)}</Item>' for name, text in items.items()]
    return METADATA, "s", f"<GDALMetadata>{''.join(lines)}</GDALMetadata>"


class ResultFiles:
    """The files of an image, as a context: they appear on :meth:`publish`, or not at all."""

    def __init__(
        self, files: Mapping[str, Path], size: tuple[int, int], painter: Painter, place: Georeference | None
    ) -> None:
        """Name the file of each kind; ``size`` is (height, width) of the image."""
        self._files, self._size, self._painter, self._place = files, size, painter, place
        self._stack = ExitStack()
        self._open: dict[str, AtomicFile] = {}
        self._writers: dict[str, StripWriter] = {}

    def __enter__(self) -> ResultFiles:
        try:
            for kind, path in self._files.items():
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                self._open[kind] = self._stack.enter_context(AtomicFile(path))
                self._writers[kind] = self._writer(kind, self._open[kind])
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _writer(self, kind: str, file: AtomicFile) -> StripWriter:
        if self._place is not None and self._place.is_tiff:
            return TiffWriter(file, self._size, self._painter.tiff_kind(kind, self._place))
        if kind == "overlay":
            return JpegWriter(file, self._size)
        palette = heat(np.arange(256.0)[None], 255.0).tobytes() if kind == "uncertainty" else None
        return PngWriter(file, self._size, is_rgb=kind == "color", palette=palette)

    def write(self, strip: Strip, each: Callable[..., Iterable[Any]] = map) -> None:
        """Write the next rows into every file; ``each`` is ``map``, or that of a pool of threads."""
        paint = self._painter.values if is_placed_tiff(self._place) else self._painter.pixels
        list(each(lambda kind: self._writers[kind].write(paint(kind, strip)), self._files))

    def publish(self) -> None:
        """Give all files their names once each is complete; those that place them come first."""
        for writer in self._writers.values():
            writer.finish()
        together = [self._stack.enter_context(AtomicFile(path)) for path in self._beside()]
        for file, content in zip(together, self._beside().values(), strict=True):
            file.write(content)
        together += self._open.values()
        for file in together:  # a full disk shows here
            file.flush()
        for file in together:
            file.publish()

    def _beside(self) -> dict[Path, bytes]:
        """Return the files that place the results, with their contents."""
        found: dict[Path, bytes] = {}
        for path in self._files.values():
            found |= {} if self._place is None else self._place.beside(path)
        return found
