"""What a dashboard has to offer, and the TensorBoard one. The one of W&B is in :mod:`ripu.dashboards.wandb_board`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from ripu.datasets.taxonomy import Taxonomy
from ripu.inference import palette
from ripu.labelstore import BEFORE


@dataclass(frozen=True)
class Layer:
    """One way to colour an image.

    Attributes:
        values: (H, W) uint8 numbers.
        names: Name of every number that means something; others are left bare.
        colors: Colour of these numbers, for dashboards that paint.
    """

    values: NDArray[np.uint8]
    names: Mapping[int, str]
    colors: Mapping[int, palette.RGB]


@dataclass(frozen=True)
class Picture:
    """An image with layers over it.

    Attributes:
        caption: What it is.
        image: (H, W, 3) uint8 RGB.
        layers: By name: ``truth``, ``prediction``, ``queried``.
    """

    caption: str
    image: NDArray[np.uint8]
    layers: Mapping[str, Layer]


@runtime_checkable
class Board(Protocol):
    """A logger that takes more than numbers. ``step`` is the training step."""

    def show_pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Show images with their layers."""

    def show_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table; cells are text, numbers or a :class:`Picture`."""

    def show_confusion(self, key: str, counts: NDArray[np.int64], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix: (C, C) counts, rows are truth."""

    def keep_labels(self, folder: Path, facts: Mapping[str, Any], step: int) -> None:
        """Keep a version of the label store."""

    def keep_checkpoint(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Keep a checkpoint, where the board was told to."""

    def finish(self, *, is_success: bool = True) -> None:
        """Close: everything is written."""


def class_layer(label: NDArray[np.uint8], taxonomy: Taxonomy) -> Layer:
    """A layer of train ids."""
    numbers = range(taxonomy.num_classes)
    return Layer(
        label,
        {number: taxonomy.class_names[number] for number in numbers},
        {number: taxonomy.class_colors[number] for number in numbers},
    )


def round_layer(asked: NDArray[np.uint8], num_rounds: int, *, is_next: bool = False) -> Layer:
    """A layer of what was asked: number n for round n (from 1), 0 for what was not asked, 254 for before the run began.

    Args:
        asked: (H, W) uint8 rounds from 0, 255 = not asked, 254 = before the run began. Lone pixels are enlarged.
        num_rounds: How many rounds are named.
        is_next: Whether it is what would be asked next that is shown, as round 0.
    """
    values = np.where(asked == 255, 0, np.minimum(asked, 253) + 1).astype(np.uint8)
    if 0 < (values > 0).mean() < 0.005:
        reach = max(1, values.shape[1] // 250)
        exact = values.copy()
        for row, column in zip(*np.nonzero(exact), strict=True):
            rows, columns = (
                slice(max(0, row - reach), row + reach + 1),
                slice(max(0, column - reach), column + reach + 1),
            )
            values[rows, columns] = exact[row, column]
    rounds = range(1, num_rounds + 1)
    names = {n: "next" if is_next else f"round {n}" for n in rounds}
    colors = {n: palette.round_color(n - 1) for n in rounds}
    if (asked == BEFORE).any():
        names[BEFORE], colors[BEFORE] = "before", palette.GRID
    return Layer(values, names, colors)


def paint(picture: Picture, opacity: float = 0.6) -> NDArray[np.uint8]:
    """The image and, right of it, the image under each of its layers: (H, W * (1 + layers), 3) uint8 RGB."""
    tiles = [picture.image]
    for layer in picture.layers.values():
        table = np.zeros((256, 3), dtype=np.float32)
        is_shown = np.zeros(256, dtype=np.bool_)
        for number, color in layer.colors.items():
            table[number], is_shown[number] = color, True
        mixed = picture.image * (1 - opacity) + table[layer.values] * opacity
        tiles.append(np.where(is_shown[layer.values][..., None], mixed, picture.image * 0.8).astype(np.uint8))
    return np.concatenate(tiles, axis=1)


def fitted(picture: Picture, longest: int) -> Picture:
    """A picture whose longer side has at most ``longest`` pixels."""
    height, width = picture.image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def shrunk(values: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(values).resize(size, how))

    layers = {
        name: Layer(shrunk(layer.values, Image.Resampling.NEAREST), layer.names, layer.colors)
        for name, layer in picture.layers.items()
    }
    return Picture(picture.caption, shrunk(picture.image, Image.Resampling.BILINEAR), layers)


def confusion_figure(counts: NDArray[np.int64], class_names: Sequence[str]) -> Any:
    """A matplotlib figure of a confusion matrix, each row as shares of its truth."""
    from matplotlib.figure import Figure

    shares = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.34 * len(class_names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(shares, cmap=palette.HEAT_MAP, vmin=0, vmax=100)
    places = range(len(class_names))
    axis.set_xticks(places, class_names, rotation=90, fontsize=8)
    axis.set_yticks(places, class_names, fontsize=8)
    axis.set(xlabel="prediction", ylabel="truth", title="share of the truth (%)")
    for row in places:
        for column in places:
            if shares[row, column] >= 1:
                color = "black" if shares[row, column] > 60 else "white"
                axis.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(shown, ax=axis, shrink=0.8)
    return figure


class TensorBoard(TensorBoardLogger):
    """TensorBoard: scalars, pictures, tables and the confusion matrix in ``RUN/tensorboard``."""

    def __init__(self, save_dir: str) -> None:
        """Write event files into a folder.

        Raises:
            ValueError: The library is not installed.
        """
        try:
            super().__init__(save_dir, name="", version="", default_hp_metric=False)
        except ModuleNotFoundError:
            raise ValueError(
                "logger=tensorboard needs the package tensorboard, which is not installed; pip install 'ripu[tensorboard]'"
            ) from None

    def show_pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Each image with its layers side by side."""
        for number, picture in enumerate(pictures):
            painted = paint(fitted(picture, 512))
            self.experiment.add_image(f"{key}/{number}", painted, step, dataformats="HWC")

    def show_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """As Markdown; pictures are left out."""
        kept = [place for place in range(len(columns)) if not any(isinstance(row[place], Picture) for row in rows)]

        def line(cells: Sequence[Any]) -> str:
            words = [f"{cells[place]:.4g}" if isinstance(cells[place], float) else str(cells[place]) for place in kept]
            return "|" + "|".join(word.replace("|", "/") for word in words) + "|"

        lines = [line(columns), "|" + "---|" * len(kept), *(line(row) for row in rows)]
        self.experiment.add_text(key, "\n".join(lines), step)

    def show_confusion(self, key: str, counts: NDArray[np.int64], class_names: Sequence[str], step: int) -> None:
        """As a figure."""
        buffer = io.BytesIO()
        confusion_figure(counts, class_names).savefig(buffer, format="png", dpi=100)
        with Image.open(buffer) as drawn:
            self.experiment.add_image(key, np.asarray(drawn.convert("RGB")), step, dataformats="HWC")

    def keep_labels(self, folder: Path, facts: Mapping[str, Any], step: int) -> None:
        """Nothing: the store is in the run's folder."""

    def keep_checkpoint(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Nothing: checkpoints are in the run's folder."""

    def finish(self, *, is_success: bool = True) -> None:
        """Close the event file."""
        self.experiment.flush()
        self.experiment.close()
