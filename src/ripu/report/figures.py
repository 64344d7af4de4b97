"""The figures of the paper for a run, as PNG and PDF: Figs. 3, 4, 5, 7 and 8; Fig. 6 needs several runs.

All but Fig. 8 are drawn from what the run recorded. Fig. 8 needs its last checkpoint, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripu.inference import palette
from ripu.report.curves import save, start
from ripu.report.gallery import MAP_NAMES
from ripu.report.rundata import RunData, of_known_form, read_run
from ripu.report.sheets import (
    NUM_IMAGES,
    FigureError,
    Picture,
    asked_picture,
    chosen,
    classes_legend,
    image_of,
    painted,
    rounds_legend,
    sheet,
)
from ripu.report.tsne import queried_features

CANNY = (100, 200)
"""Thresholds of Fig. 7, those of ``acquisition=canny_entropy``."""


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
