"""The interface of a dashboard, and the pictures that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.taxonomy import VOID, Taxonomy
from ripu.inference import palette
from ripu.labelstore import BEFORE
from ripu.report.painting import enlarged


@dataclass(frozen=True)
class Layer:
    """One way to colour an image."""

    values: NDArray[np.uint8]  # (H, W)
    names: Mapping[int, str]  # of each value that means something; other values are not painted
    colors: Mapping[int, palette.RGB]  # of each such value, for boards that paint


@dataclass(frozen=True)
class Picture:
    """An image with layers over it."""

    caption: str  # the image's id
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    layers: Mapping[str, Layer]  # truth, prediction and queried, as far as they are known


@runtime_checkable
class Board(Protocol):
    """A logger that accepts more than numbers. ``step`` is the training step."""

    def show_pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Show images with their layers."""

    def show_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table; cells are text, numbers or a :class:`Picture`."""

    def show_confusion(self, key: str, counts: NDArray[np.int64], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix: (C, C) counts, rows are truth."""

    def keep_labels(self, folder: Path, facts: Mapping[str, Any], step: int) -> None:
        """Keep a version of the label store."""

    def keep_checkpoint(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Keep a checkpoint, if the board is configured to."""

    def finish(self) -> None:
        """Write everything and close."""


def class_layer(label: NDArray[np.uint8], taxonomy: Taxonomy) -> Layer:
    """Return a layer of train ids."""
    return Layer(label, dict(enumerate(taxonomy.class_names)), dict(enumerate(taxonomy.class_colors)))


def round_layer(revealed: NDArray[np.uint8], num_rounds: int, *, is_next: bool = False) -> Layer:
    """Return a layer of queries: value n for round n (from 1), 0 for no query, 254 for labels that a run started with.

    Rounds of ``revealed`` (H, W) count from 0; 255 = none, 254 = before the run. Lone pixels are enlarged. With
    ``is_next``, the rounds are those that would follow.
    """
    values = np.where(revealed == VOID, 0, np.minimum(revealed, 253) + 1).astype(np.uint8)
    values, _ = enlarged(values, revealed != VOID)
    rounds = range(1, num_rounds + 1)
    names = {number: "next" if is_next else f"round {number}" for number in rounds}
    colors = {number: palette.round_color(number - 1) for number in rounds}
    if (revealed == BEFORE).any():
        names[BEFORE], colors[BEFORE] = "before", palette.GRID
    return Layer(values, names, colors)


def fitted(picture: Picture, longest: int) -> Picture:
    """Return a picture whose longer side has at most ``longest`` pixels."""
    height, width = picture.image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def shrunk(values: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(values).resize(size, resampling))

    layers = {
        name: replace(layer, values=shrunk(layer.values, Image.Resampling.NEAREST))
        for name, layer in picture.layers.items()
    }
    return replace(picture, image=shrunk(picture.image, Image.Resampling.BILINEAR), layers=layers)
