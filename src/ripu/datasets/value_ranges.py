"""The values in image files: bands that nothing reads, integers that use few of their bits, and percentiles."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageHeader, ImageReader, read_header, read_values
from ripu.datasets.image_rows import open_rows

MOST_FILES = 20
"""Files, evenly spread, whose values are looked at before a run and for percentiles."""

PERCENTILES = (1.0, 99.0)
"""Percentiles of ``data.value_range=percentiles``."""

SMALL_SHARE = 8
"""Integers of more than 8 bits whose highest value is below this fraction (1 / 8) of their range are refused."""

ONE_PAGE = "write the others as files of their own if they matter"

_log = logging.getLogger(__name__)
_MOST_VALUES = 2**16  # of each band of an image, for percentiles


def spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` evenly spread positions out of ``total``, the first and the last included."""
    return sorted({round(at * (total - 1) / max(1, min(count, total) - 1)) for at in range(min(count, total))})


def unread_bands(header: ImageHeader, reader: ImageReader) -> int:
    """Return the number of bands of an image that colour reading leaves out; 0 if the bands are named."""
    return 0 if reader.bands is not None else header.num_bands - (3 if header.num_bands >= 3 else 1)


def highest_value(path: Path, header: ImageHeader, reader: ImageReader) -> int | None:
    """Return the highest value of an image of integers of more than 8 bits; None for others, or if a range is given."""
    if reader.ranges is not None or header.bits <= 8 or header.is_float:
        return None
    with open_rows(path, reader) as rows:
        return int(rows.largest)


def dark_fault(highest: Sequence[tuple[int, Path]], key: str = "data.value_range") -> str | None:
    """Return a line if images of 16 bits use only a small part of them; ``key`` is the one of the remedy."""
    top, path = max(highest, default=(2**16, Path()))
    if top >= 2**16 // SMALL_SHARE:
        return None
    most = 2 ** max(9, top.bit_length()) - 1
    measured = f", {key}=percentiles (measured on the target)" if key.startswith("data.") else ""
    return (
        f"{path} has 16 bits per value, but its highest value is {top}, and those of {len(highest)} images looked at "
        f"are no higher: read over the whole range they would be nearly black. Give the range of the values, e.g. "
        f"{key}=[0,{most}]{measured}, or {key}=[0,65535] if they are meant so"
    )


def check_ranges(
    paths: Sequence[Path], reader: ImageReader, key: str = "data.value_range", *, skips: bool = False
) -> list[Path]:
    """Look at a few evenly spread images, and return those with bands that are not read; log those of several pages.

    Files that cannot be read are left to the code that needs them; with ``skips``, so are those without a band.

    Raises:
        SceneError: A band is missing, or integers use only a small part of their bits; names file, value and remedies.
    """
    highest: list[tuple[int, Path]] = []
    unread: list[Path] = []
    several: list[Path] = []
    for at in spread(len(paths), MOST_FILES):
        path = paths[at]
        try:
            header = read_header(path, math.inf)
        except SceneError:
            continue
        if not skips and header.num_bands < max(reader.bands or (1,)):
            reader.chosen(read_values(path, all_bands=True), path)  # raises, unless transparency is the missing band
        if unread_bands(header, reader):
            unread.append(path)
        if header.num_pages > 1:
            several.append(path)
        with suppress(SceneError):
            top = highest_value(path, header, reader)
            highest += [(top, path)] if top is not None else []
    if (line := dark_fault(highest, key)) is not None:
        raise SceneError(line)
    if several:
        _log.warning("images have several pages (%s, ...): only the first page is read; %s", several[0], ONE_PAGE)
    return unread


def measure_ranges(paths: Sequence[Path], reader: ImageReader, *, skips: bool = False) -> list[list[float]]:
    """Return the percentiles 1 and 99 of each band over evenly spread images, [[low, high], ...].

    At most :data:`MOST_FILES` images are read, with at most 2**16 values of each band, on a regular grid.

    Raises:
        SceneError: An image cannot be read (with ``skips`` it is left out), or a band has no finite value.
    """
    found = []
    for at in spread(len(paths), MOST_FILES):
        try:
            values = reader.chosen(read_values(paths[at], all_bands=reader.bands is not None), paths[at])
        except SceneError:
            if skips:
                continue
            raise
        step = max(1, int(np.ceil(np.sqrt(values.shape[0] * values.shape[1] / _MOST_VALUES))))
        found.append(values[::step, ::step].reshape(-1, values.shape[2]).astype(np.float64))
    ranges = []
    for number in range(reader.num_bands):
        band = np.concatenate([values[:, number] for values in found]) if found else np.zeros(0)
        band = band[np.isfinite(band)]
        if not len(band):
            raise SceneError(
                "data.value_range=percentiles: no target image has a finite value; give [low,high] instead"
            )
        low, high = (float(value) for value in np.percentile(band, PERCENTILES))
        ranges.append([low, high if high > low else low + 1.0])
    return ranges


def with_ranges(reader: ImageReader, ranges: Sequence[Sequence[float]]) -> ImageReader:
    """Return a reader with (low, high) for all bands, or for each."""
    return replace(reader, ranges=tuple((float(low), float(high)) for low, high in ranges))
