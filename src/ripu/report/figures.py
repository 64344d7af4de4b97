"""The figures of the paper for a run, as PNG and PDF: Figs. 3, 4, 5, 7 and 8; Fig. 6 needs several runs.

All but Fig. 8 are drawn from what the run recorded. Fig. 8 needs its last checkpoint, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu import palette
from ripu.datasets.taxonomy import VOID
from ripu.report.curves import save, start
from ripu.report.gallery import MAP_NAMES, asked_map
from ripu.report.rundata import GalleryImage, RunData, of_known_form, read_run

Picture = NDArray[np.uint8]

NUM_IMAGES = 4
CANNY = (100, 200)
"""Thresholds of Fig. 7, those of ``acquisition=canny_entropy``."""


class FigureError(ValueError):
    """A figure that cannot be drawn; says why and what to do."""


def write_figures(run: Path, folder: Path) -> list[str]:
    """Draw every figure that a run has the data of.

    Args:
        run: The run's folder.
        folder: Gets the files.

    Returns:
        A line for every file, and one for every figure that cannot be drawn, with the reason.

    Raises:
        RunError: The folder holds no run.
    """
    from ripu.report.tsne import queried_features

    data = read_run(run)
    lines = []
    for name, draw in (
        ("fig3_predictions", predictions),
        ("fig4_queried", queried),
        ("fig5_classes", class_frequencies),
        ("fig7_edges", edges),
        ("fig8_features", queried_features),
    ):
        try:
            with of_known_form(run):
                lines += [str(path) for path in draw(data, folder / name)]
        except FigureError as error:
            lines.append(f"{name} is left out: {error}")
    return lines


def chosen(data: RunData, count: int = NUM_IMAGES) -> list[GalleryImage]:
    """A few images of the gallery, spread evenly.

    Raises:
        FigureError: Nothing was recorded.
    """
    if not data.gallery:
        raise FigureError("the run recorded no gallery; train with evaluation.gallery=12 (the default) or more")
    count = min(count, len(data.gallery))
    return [data.gallery[(2 * item + 1) * len(data.gallery) // (2 * count)] for item in range(count)]


def painted(data: RunData, ids: NDArray[np.uint8]) -> Picture:
    """Train ids in the colours of their classes; void is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(data.class_colors)] = np.asarray(data.class_colors, dtype=np.uint8)
    result: Picture = table[ids]
    return result


def image_of(data: RunData, image: GalleryImage) -> Picture:
    """The recorded image, (H, W, 3).

    Raises:
        FigureError: It was not recorded.
    """
    pixels = data.picture(f"target-{image.index:05d}-image.jpg")
    if pixels is None:
        raise FigureError(f"{data.folder} has lost the image {image.image_id}; train again")
    return pixels


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
    """Colours of the classes."""
    return dict(zip(data.class_names, data.class_colors, strict=True))


def rounds_legend(data: RunData) -> dict[str, tuple[int, int, int]]:
    """Colours of the rounds."""
    count = data.store.num_rounds if data.store is not None else 0
    return {f"round {number + 1}": palette.round_color(number) for number in range(count)}


def predictions(data: RunData, path: Path) -> list[Path]:
    """Fig. 3: image, truth, prediction before the first round and at the end.

    Raises:
        FigureError: No prediction was recorded.
    """
    rows: list[list[Picture | None]] = []
    for image in chosen(data):
        first = data.maps(image, 0)
        truth, after = (data.picture(f"target-{image.index:05d}-{kind}.png") for kind in ("truth", "after"))
        before = None if first is None else first["prediction"]
        labels = [None if ids is None else painted(data, ids) for ids in (truth, before, after)]
        rows.append([image_of(data, image), *labels])
    names = ["image", "truth", "before the first round", "at the end"]
    keep = [column for column in range(4) if any(row[column] is not None for row in rows)]
    if not {2, 3} & set(keep):
        raise FigureError("no prediction was recorded; let the run come to its first round or its end")
    return sheet(path, [names[one] for one in keep], [[row[one] for one in keep] for row in rows], classes_legend(data))


def queried(data: RunData, path: Path) -> list[Path]:
    """Fig. 4: what was asked by round and by class, beside the score and its factors at the first round.

    Raises:
        FigureError: The run asked for nothing.
    """
    rows: list[list[Picture | None]] = []
    names: list[str] = []
    for image in chosen(data):
        row: list[Picture | None] = [asked_picture(data, image, "round"), asked_picture(data, image, "class")]
        recorded = data.maps(image, 0) or {}
        names = [name for name in MAP_NAMES if name in recorded] or names
        row += [palette.heat(recorded[name].astype(np.float64), 255.0) if name in recorded else None for name in names]
        rows.append(row)
    widest = max(len(row) for row in rows)
    rows = [[*row, *[None] * (widest - len(row))] for row in rows]
    columns = ["asked, by round", "asked, by class", *(f"{name}, first round" for name in names)]
    return sheet(path, columns, rows, rounds_legend(data) | classes_legend(data))


def class_frequencies(data: RunData, path: Path) -> list[Path]:
    """Fig. 5: class frequencies of what was revealed against those of all labels, and the growth between the two.

    Raises:
        FigureError: Nothing was revealed, or the truth was not recorded.
    """
    truth = data.results.get("true_class_pixels")
    if not data.rounds:
        raise FigureError("the run asked for nothing (setting without rounds, or before the first)")
    if not truth:
        raise FigureError("results.json has no true_class_pixels (an older run, or no labels); train again")
    revealed = data.rounds[-1]["class_pixels"]
    names = sorted(truth, key=lambda name: -truth[name])
    mine = np.array([100.0 * revealed[name] for name in names]) / max(1, sum(revealed.values()))
    true = np.array([100.0 * truth[name] for name in names]) / max(1, sum(truth.values()))
    figure, axis = start(figsize=(max(6.0, 0.5 * len(names)), 3.8))
    place = np.arange(len(names))
    axis.bar(place - 0.2, true, 0.4, color=palette.hex_color(palette.GRID), label="all labels")
    axis.bar(place + 0.2, mine, 0.4, color=palette.hex_color(palette.BLUE), label="revealed")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks(place, names, rotation=50, ha="right", fontsize=8)
    axis.set(ylabel="share of the pixels (%), logarithmic from 0.1")
    growth = axis.twinx()
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(true > 0, 100.0 * (mine - true) / true, np.nan)
    growth.plot(
        place, rate, "o-", color=palette.hex_color(palette.VERMILION), markersize=4, linewidth=1.2, label="growth"
    )
    growth.axhline(0, color=palette.hex_color(palette.VERMILION), linewidth=0.6, linestyle=":")
    growth.set_ylabel("growth (%)", color=palette.hex_color(palette.VERMILION))
    handles = [*axis.get_legend_handles_labels()[0], *growth.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return save(figure, path)


def edges(data: RunData, path: Path) -> list[Path]:
    """Fig. 7: Canny edges of the image beside what was asked.

    Raises:
        FigureError: The run asked for nothing.
    """
    import cv2

    rows: list[list[Picture | None]] = []
    for image in chosen(data):
        pixels = image_of(data, image)
        found = np.asarray(cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), *CANNY), dtype=np.uint8)
        rows.append([pixels, np.repeat(found[..., None], 3, axis=2), asked_picture(data, image, "round")])
    name = str(data.results.get("acquisition", "the run"))
    return sheet(path, ["image", "Canny edges", f"asked by {name}"], rows, rounds_legend(data))


def side_by_side(runs: Sequence[Path], names: Sequence[str], folder: Path) -> list[Path]:
    """Figs. 3 and 4 over several runs: the same images, predictions at the end and what was asked, a column a run.

    Args:
        runs: Folders of runs.
        names: A title for each.
        folder: Gets the files.

    Returns:
        The files; none where the runs have no image in common.
    """
    every = [read_run(run) for run in runs]
    shared = [image for image in every[0].gallery if all(image in other.gallery for other in every)]
    if not shared:
        return []
    count = min(NUM_IMAGES, len(shared))
    images = [shared[(2 * item + 1) * len(shared) // (2 * count)] for item in range(count)]
    first = every[0]
    written: list[Path] = []
    rows: list[list[Picture | None]] = []
    for image in images:
        stem = f"target-{image.index:05d}"
        truth = first.picture(f"{stem}-truth.png")
        afters = [data.picture(f"{stem}-after.png") for data in every]
        labels = [None if ids is None else painted(first, ids) for ids in (truth, *afters)]
        rows.append([image_of(first, image), *labels])
    written += sheet(folder / "fig3_predictions", ["image", "truth", *names], rows, classes_legend(first))
    asking = [
        (data, name)
        for data, name in zip(every, names, strict=True)
        if data.store is not None and data.store.num_rounds
    ]
    if asking:
        pictures: list[list[Picture | None]] = [
            [asked_picture(data, image, "round") for data, _ in asking] for image in images
        ]
        written += sheet(folder / "fig4_queried", [name for _, name in asking], pictures, rounds_legend(asking[0][0]))
    return written


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
