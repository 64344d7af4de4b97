"""Contact sheet of scenes: images beside their coloured labels, of source and target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ripu.datasets.streets.canvas import Dice
from ripu.datasets.streets.render import render
from ripu.datasets.streets.write import SETS
from ripu.datasets.taxonomy import CITYSCAPES19


def write_preview(
    path: str | Path,
    seed: int = 0,
    height: int = 256,
    width: int = 512,
    sets: tuple[str, ...] = ("gtav", "cityscapes_train"),
    num_rows: int = 3,
) -> Path:
    """Write a sheet of scenes, two to a row, each an image beside its coloured label; void is black.

    The scenes are painted afresh, as :func:`generate` writes them for the same seed and size.

    Args:
        path: PNG file to write.
        seed: Seed, >= 0.
        height: Rows of a scene.
        width: Columns of a scene.
        sets: The sets to show, one below the other.
        num_rows: Rows of the sheet for each set.

    Returns:
        The path.
    """
    lines = []
    for name in sets:
        for row in range(num_rows):
            tiles = []
            for index in (2 * row, 2 * row + 1):
                image, label, _ = render(SETS[name].style, Dice(seed, SETS[name].domain, index), height, width)
                tiles += [image, CITYSCAPES19.colorize(CITYSCAPES19.to_train_ids(label))]
            lines.append(np.concatenate(tiles, axis=1))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines)).save(path, "PNG")
    return path
