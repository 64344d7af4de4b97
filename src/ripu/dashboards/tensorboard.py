"""The TensorBoard dashboard."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from ripu.dashboards.boards import Picture, fitted
from ripu.inference import palette
from ripu.io.errors import ConfigError


class TensorBoard(TensorBoardLogger):
    """Scalars, pictures, tables and the confusion matrix as TensorBoard's event files in ``RUN/tensorboard``."""

    def __init__(self, save_dir: str) -> None:
        """Write event files into a folder.

        Raises:
            ConfigError: The library is not installed.
        """
        try:
            super().__init__(save_dir, name="", version="", default_hp_metric=False)
        except ModuleNotFoundError:
            raise ConfigError(
                "logger=tensorboard needs the package tensorboard, which is not installed; pip install "
                "'ripu[tensorboard]'"
            ) from None

    def show_pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Show each image beside its layers."""
        for number, picture in enumerate(pictures):
            painted = paint(fitted(picture, 512))
            self.experiment.add_image(f"{key}/{number}", painted, step, dataformats="HWC")

    def show_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table as Markdown, without its pictures."""
        kept = [place for place in range(len(columns)) if not any(isinstance(row[place], Picture) for row in rows)]

        def line(cells: Sequence[Any]) -> str:
            words = [f"{cells[place]:.4g}" if isinstance(cells[place], float) else str(cells[place]) for place in kept]
            return "|" + "|".join(word.replace("|", "/") for word in words) + "|"

        lines = [line(columns), "|" + "---|" * len(kept), *(line(row) for row in rows)]
        self.experiment.add_text(key, "\n".join(lines), step)

    def show_confusion(self, key: str, counts: NDArray[np.int64], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix as a picture."""
        buffer = io.BytesIO()
        confusion_figure(counts, class_names).savefig(buffer, format="png", dpi=100)
        with Image.open(buffer) as drawn:
            self.experiment.add_image(key, np.asarray(drawn.convert("RGB")), step, dataformats="HWC")

    def keep_labels(self, folder: Path, facts: Mapping[str, Any], step: int) -> None:
        """Do nothing: the store is in the run's folder."""

    def keep_checkpoint(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Do nothing: checkpoints are in the run's folder."""

    def finish(self) -> None:
        """Close the event file."""
        self.experiment.flush()
        self.experiment.close()


def paint(picture: Picture, opacity: float = 0.6) -> NDArray[np.uint8]:
    """Return the image and, to its right, the image under each of its layers: (H, W * (1 + layers), 3) uint8 RGB."""
    tiles = [picture.image]
    for layer in picture.layers.values():
        table = np.zeros((256, 3), dtype=np.float32)
        is_painted = np.isin(layer.values, list(layer.colors))
        table[list(layer.colors)] = list(layer.colors.values())
        mixed = picture.image * (1 - opacity) + table[layer.values] * opacity
        tiles.append(np.where(is_painted[..., None], mixed, picture.image * 0.8).astype(np.uint8))
    return np.concatenate(tiles, axis=1)


def confusion_figure(counts: NDArray[np.int64], class_names: Sequence[str]) -> Any:
    """Return a matplotlib figure of a confusion matrix; each row shows shares of its truth."""
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
    for row, column in zip(*np.nonzero(shares >= 1), strict=True):
        color = "black" if shares[row, column] > 60 else "white"
        axis.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(shown, ax=axis, shrink=0.8)
    return figure
