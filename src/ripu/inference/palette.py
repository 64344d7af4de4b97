"""Colours of plots and pictures; the colours of classes are in :class:`ripu.datasets.taxonomy.Taxonomy`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

# By Okabe and Ito (Color Universal Design, 2008, https://jfly.uni-koeln.de/color/): they can be told apart under the
# common kinds of colour blindness.
BLACK: RGB = (0, 0, 0)
ORANGE: RGB = (230, 159, 0)
SKY_BLUE: RGB = (86, 180, 233)
GREEN: RGB = (0, 158, 115)
YELLOW: RGB = (240, 228, 66)
BLUE: RGB = (0, 114, 178)
VERMILION: RGB = (213, 94, 0)
PURPLE: RGB = (204, 121, 167)

SERIES: tuple[RGB, ...] = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)
"""Colours of the lines of a plot, in this order; without yellow, which is hard to see on white."""

ROUNDS: tuple[RGB, ...] = (BLUE, SKY_BLUE, GREEN, YELLOW, ORANGE, VERMILION, PURPLE)
"""Colours of selection rounds, from cold to warm."""

GRID: RGB = (153, 153, 153)
HEAT_MAP = "viridis"  # matplotlib's name of a colour map whose lightness grows with the value


def hex_color(color: RGB) -> str:
    """Format a colour for matplotlib, CSS and W&B.

    Example:
        >>> hex_color(BLUE)
        '#0072b2'
    """
    return "#" + "".join(f"{part:02x}" for part in color)


def round_color(index: int) -> RGB:
    """Return the colour of a round, counted from 0; from the eighth round on, colours repeat."""
    return ROUNDS[index % len(ROUNDS)]


def heat(values: NDArray[np.floating], largest: float) -> NDArray[np.uint8]:
    """Paint (H, W) finite numbers, clipped to 0 .. ``largest`` (above 0), as a heat map, (H, W, 3) uint8 RGB."""
    import matplotlib  # takes half a second

    table = matplotlib.colormaps[HEAT_MAP](np.arange(256), bytes=True)[:, :3]
    steps = np.clip(np.rint(np.asarray(values) * (255.0 / largest)), 0, 255).astype(np.uint8)
    return np.asarray(table[steps], dtype=np.uint8)
