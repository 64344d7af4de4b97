"""What the figures of a run are put together from: recorded images, what was asked of them, sheets, legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID
from ripu.inference import palette
from ripu.report.curves import save, start
from ripu.report.gallery import asked_map
from ripu.report.rundata import GalleryImage, RunData

Picture = NDArray[np.uint8]

NUM_IMAGES = 4


class FigureError(ValueError):
    """A figure that cannot be drawn; says why and what to do."""


def chosen(data: RunData, count: int = NUM_IMAGES) -> list[GalleryImage]:
    """A few images of the gallery, spread evenly.

    Raises:
        FigureError: Nothing was recorded.
    """
    if not data.gallery:
        raise FigureError("the run recorded no gallery; train with evaluation.gallery=12 (the default) or more")
    count = min(count, len(data.gallery))
    return [data.gallery[(2 * item + 1) * len(data.gallery) // (2 * count)] for item in range(count)]


def image_of(data: RunData, image: GalleryImage) -> Picture:
    """The recorded image, (H, W, 3).

    Raises:
        FigureError: It was not recorded.
    """
    pixels = data.picture(f"target-{image.index:05d}-image.jpg")
    if pixels is None:
        raise FigureError(f"{data.folder} has lost the image {image.image_id}; train again")
    return pixels


def painted(data: RunData, ids: NDArray[np.uint8]) -> Picture:
    """Train ids in the colours of their classes; void is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(data.class_colors)] = np.asarray(data.class_colors, dtype=np.uint8)
    result: Picture = table[ids]
    return result


def asked_picture(data: RunData, image: GalleryImage, by: str) -> Picture:
    """The dimmed (by ``round``) or paled (by ``class``) image with what was asked; lone pixels are enlarged to be seen."""
    if data.store is None or not data.store.num_rounds:
        raise FigureError("the run asked for nothing (setting without rounds, or before the first)")
    pixels = image_of(data, image)
    asked = asked_map(data.store, image.image_id, (pixels.shape[0], pixels.shape[1]))
    colors = painted(data, asked[..., 1])
    if by == "round":
        colors = np.asarray([palette.round_color(max(0, number - 1)) for number in range(256)], dtype=np.uint8)[
            asked[..., 0]
        ]
    if by == "class":  # whose colours are dark for the most part, and mean something: on a pale image without colours
        result: Picture = (255 - 0.35 * (255 - pixels.mean(axis=-1, keepdims=True).repeat(3, axis=-1))).astype(np.uint8)
    else:
        result = (pixels * 0.5).astype(np.uint8)
    is_asked = asked[..., 0] > 0
    reach = max(1, pixels.shape[1] // 250) if is_asked.mean() < 0.005 else 0
    for row, column in zip(*np.nonzero(is_asked), strict=True):
        block = (slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1))
        result[block] = colors[row, column]
    return result


def revealed_ids(
    data: RunData, image: GalleryImage, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Where was asked, and the classes, both at ``size`` (height, width).

    The class of a cell that was asked about is one that was answered there, of another the recorded truth in its middle;
    255 where there is none, and everywhere where no truth was recorded.
    """
    assert data.store is not None
    asked = asked_map(data.store, image.image_id, size)
    truth = data.picture(f"target-{image.index:05d}-truth.png")
    if truth is None:
        return asked[..., 0] > 0, np.full(size, VOID, dtype=np.uint8)
    rows = ((2 * np.arange(size[0]) + 1) * truth.shape[0]) // (2 * size[0])
    columns = ((2 * np.arange(size[1]) + 1) * truth.shape[1]) // (2 * size[1])
    is_asked = asked[..., 0] > 0
    return is_asked, np.where(is_asked, asked[..., 1], truth[np.ix_(rows, columns)])


def sheet(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[Picture | None]], legend: Mapping[str, palette.RGB]
) -> list[Path]:
    """Pictures in rows and columns, with a legend of colours below.

    Args:
        path: The file without its suffix.
        columns: Titles.
        rows: A picture for each column; None leaves a gap.
        legend: Name and RGB colour.
    """
    from matplotlib.patches import Patch

    first = next(one for row in rows for one in row if one is not None)
    width = 3.0
    height = width * first.shape[0] / first.shape[1]
    size = (width * len(columns), height * len(rows) + 0.35 + 0.2 * -(-len(legend) // 8))
    figure, axes = start(len(rows), len(columns), figsize=size, squeeze=False)
    for number, row in enumerate(rows):
        for axis, title, pixels in zip(axes[number], columns, row, strict=True):
            axis.axis("off")
            if number == 0:
                axis.set_title(title, fontsize=9)
            if pixels is not None:
                axis.imshow(pixels, interpolation="nearest" if title != "image" else "bilinear")
    if legend:
        patches = [Patch(facecolor=palette.hex_color(color), label=name) for name, color in legend.items()]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=min(8, len(patches)), fontsize=7, frameon=False
        )
    return save(figure, path, dpi=200)


def classes_legend(data: RunData) -> dict[str, tuple[int, int, int]]:
    """Colours of the classes, and last of what has none."""
    colors = dict(zip(data.class_names, data.class_colors, strict=True))
    colors.setdefault("void", (0, 0, 0))
    return colors


def rounds_legend(data: RunData) -> dict[str, tuple[int, int, int]]:
    """Colours of the rounds."""
    count = data.store.num_rounds if data.store is not None else 0
    return {f"round {number + 1}": palette.round_color(number) for number in range(count)}
