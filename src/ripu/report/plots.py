"""Matplotlib figures without a display: start one, save it, and lay pictures out in a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.inference import palette
from ripu.io.errors import RipuError

_MARKERS = "osD^vP*X"


class FigureError(RipuError, ValueError):
    """A figure that cannot be drawn; names the cause and the remedy."""


def start(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a new figure and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["pdf.fonttype"] = 42  # text stays text
    return pyplot.subplots(rows, columns, layout="constrained", **options)


def save(figure: Any, path: Path, dpi: int = 150) -> list[Path]:
    """Write a figure as PNG and PDF and close it; without a date, so that the same figure is the same file."""
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(f".{kind}") for kind in ("png", "pdf")]
    for one in written:
        figure.savefig(one, dpi=dpi, metadata={"CreationDate": None} if one.suffix == ".pdf" else {"Software": None})
    pyplot.close(figure)
    return written


def style(number: int) -> dict[str, Any]:
    """Return colour and marker of the ``number``-th line; when colours repeat, markers tell lines apart."""
    color = palette.hex_color(palette.SERIES[number % len(palette.SERIES)])
    return {"color": color, "marker": _MARKERS[number % len(_MARKERS)], "linewidth": 1.6, "markersize": 5}


def add_color_legend(figure: Any, colors: Mapping[str, palette.RGB]) -> None:
    """Name colours below a figure."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=palette.hex_color(color), label=name) for name, color in colors.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(8, len(patches)), fontsize=7, frameon=False)


def sheet(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    legend: Mapping[str, palette.RGB],
) -> list[Path]:
    """Draw pictures in rows and titled columns, with a legend of colours below; None leaves a gap."""
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
        add_color_legend(figure, legend)
    return save(figure, path, dpi=200)
