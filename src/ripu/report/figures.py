"""The figures of the paper for a run, as PNG and PDF: Figs. 3, 4, 5, 7 and 8; Fig. 6 needs several runs.

All but Fig. 8 are drawn from what the run recorded. Fig. 8 also needs its last checkpoint, and scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID
from ripu.inference import palette
from ripu.labelstore import LabelReader
from ripu.report.painting import Picture, class_table, dimmed, paint, pale, queried_map, round_table
from ripu.report.plots import FigureError, add_color_legend, save, sheet, start
from ripu.report.rundata import GalleryImage, RunData, of_known_form, read_run
from ripu.report.storage import MAP_NAMES

if TYPE_CHECKING:
    from torch import Tensor, nn

CANNY = (100, 200)
"""Thresholds of Fig. 7, those of ``acquisition=canny_entropy``."""

NUM_IMAGES = 4
MOST_QUERIED, MOST_OTHERS = 400, 1600  # pixels of an image in Fig. 8

OpenNetwork = Callable[[Path], "tuple[nn.Module, Callable[[tuple[int, int]], tuple[int, int]]]"]
"""From a checkpoint to its :class:`ripu.module.RipuModule` and the (height, width) that images are fed at."""


def write_figures(run: Path, folder: Path, open_network: OpenNetwork) -> list[str]:
    """Draw every figure that a run has the data for into a folder, and return a line for every file and every reason.

    Raises:
        RunError: The folder contains no run.
    """
    data = read_run(run)
    lines = []
    for name, draw in (
        ("fig3_predictions", _predictions),
        ("fig4_queried", _queried),
        ("fig5_classes", _class_frequencies),
        ("fig7_edges", _edges),
        ("fig8_features", lambda data, path: _features(data, path, open_network)),
    ):
        try:
            with of_known_form(run):
                lines += [str(path) for path in draw(data, folder / name)]
        except FigureError as error:
            lines.append(f"{name} is left out: {error}")
    return lines


def _chosen(images: Sequence[GalleryImage], count: int = NUM_IMAGES) -> list[GalleryImage]:
    """Return a few images of the gallery, spread evenly."""
    if not images:
        raise FigureError("the run recorded no gallery; train with evaluation.gallery=12 (the default) or more")
    count = min(count, len(images))
    return [images[(2 * item + 1) * len(images) // (2 * count)] for item in range(count)]


def _image(data: RunData, image: GalleryImage) -> Picture:
    pixels = data.picture(f"target-{image.index:05d}-image.jpg")
    if pixels is None:
        raise FigureError(f"{data.folder} has lost the image {image.image_id}; train again")
    return pixels


def _label(data: RunData, image: GalleryImage, kind: str) -> Picture | None:
    ids = data.picture(f"target-{image.index:05d}-{kind}.png")
    return None if ids is None else class_table(data.class_colors)[ids]


def _store(data: RunData) -> LabelReader:
    if data.store is None or not data.store.num_rounds:
        raise FigureError("the run queried nothing (a setting without rounds, or before the first)")
    return data.store


def queried_picture(data: RunData, image: GalleryImage, *, by_class: bool = False) -> Picture:
    """Return the dimmed image with its queries by round, or the pale image with those by class.

    Raises:
        FigureError: Nothing was queried, or the image was not recorded.
    """
    store, pixels = _store(data), _image(data, image)
    queries = queried_map(store, image.image_id, (pixels.shape[0], pixels.shape[1]))
    number, class_id = queries[..., 0], queries[..., 1]
    if by_class:
        return paint(pale(pixels), class_id, number > 0, class_table(data.class_colors))
    return paint(dimmed(pixels), np.maximum(number, 1) - 1, number > 0, round_table())


def queried_labels(
    data: RunData, image: GalleryImage, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return which cells were queried, and their classes, both at ``size`` (height, width).

    The class of a queried cell is one of its answers, that of another the recorded truth in its middle. It is 255 where
    there is none, and everywhere where no truth was recorded.
    """
    queries = queried_map(_store(data), image.image_id, size)
    is_queried = queries[..., 0] > 0
    truth = data.picture(f"target-{image.index:05d}-truth.png")
    if truth is None:
        return is_queried, np.full(size, VOID, dtype=np.uint8)
    rows, columns = (
        ((2 * np.arange(small) + 1) * large) // (2 * small) for small, large in zip(size, truth.shape, strict=True)
    )
    return is_queried, np.where(is_queried, queries[..., 1], truth[np.ix_(rows, columns)])


def _class_colors(data: RunData) -> dict[str, palette.RGB]:
    """Return the colours of classes by name, and last that of void."""
    colors = dict(zip(data.class_names, data.class_colors, strict=True))
    colors.setdefault("void", (0, 0, 0))
    return colors


def _round_colors(data: RunData) -> dict[str, palette.RGB]:
    return {f"round {number + 1}": palette.round_color(number) for number in range(_store(data).num_rounds)}


def _predictions(data: RunData, path: Path) -> list[Path]:
    """Draw Fig. 3: image, truth, prediction before the first round and at the end."""
    rows: list[list[Picture | None]] = []
    for image in _chosen(data.gallery):
        maps = data.maps(image, 0)
        before = None if maps is None else class_table(data.class_colors)[maps["prediction"]]
        rows.append([_image(data, image), _label(data, image, "truth"), before, _label(data, image, "after")])
    names = ["image", "truth", "before the first round", "at the end"]
    keep = [column for column in range(4) if any(row[column] is not None for row in rows)]
    if not {2, 3} & set(keep):
        raise FigureError("no prediction was recorded; let the run reach its first round or its end")
    return sheet(path, [names[one] for one in keep], [[row[one] for one in keep] for row in rows], _class_colors(data))


def _queried(data: RunData, path: Path) -> list[Path]:
    """Draw Fig. 4: the queries by round and by class, beside the score and its factors at the first round."""
    images = _chosen(data.gallery)
    maps = [data.maps(image, 0) or {} for image in images]
    names = [name for name in MAP_NAMES if any(name in recorded for recorded in maps)]
    rows: list[list[Picture | None]] = []
    for image, recorded in zip(images, maps, strict=True):
        heat = [palette.heat(recorded[name].astype(np.float64), 255.0) if name in recorded else None for name in names]
        rows.append([queried_picture(data, image), queried_picture(data, image, by_class=True), *heat])
    columns = ["queried, by round", "queried, by class", *(f"{name}, first round" for name in names)]
    return sheet(path, columns, rows, _round_colors(data) | _class_colors(data))


def _class_frequencies(data: RunData, path: Path) -> list[Path]:
    """Draw Fig. 5: class frequencies among the revealed pixels and among all labels, and the growth between the two."""
    truth = data.results.get("true_class_pixels")
    if not data.rounds:
        raise FigureError("the run queried nothing (a setting without rounds, or before the first)")
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
    growth, color = axis.twinx(), palette.hex_color(palette.VERMILION)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(true > 0, 100.0 * (mine - true) / true, np.nan)
    growth.plot(place, rate, "o-", color=color, markersize=4, linewidth=1.2, label="growth")
    growth.axhline(0, color=color, linewidth=0.6, linestyle=":")
    growth.set_ylabel("growth (%)", color=color)
    handles = [*axis.get_legend_handles_labels()[0], *growth.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return save(figure, path)


def _edges(data: RunData, path: Path) -> list[Path]:
    """Draw Fig. 7: Canny edges of the image beside its queries."""
    import cv2

    rows: list[list[Picture | None]] = []
    for image in _chosen(data.gallery):
        pixels = _image(data, image)
        found = np.asarray(cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), *CANNY), dtype=np.uint8)
        rows.append([pixels, np.repeat(found[..., None], 3, axis=2), queried_picture(data, image)])
    name = str(data.results.get("acquisition", "the run"))
    return sheet(path, ["image", "Canny edges", f"queried by {name}"], rows, _round_colors(data))


def _features(data: RunData, path: Path, open_network: OpenNetwork) -> list[Path]:
    """Draw Fig. 8: t-SNE of the last network's features on two recorded images (JPEG), coloured by true class."""
    if find_spec("sklearn") is None:
        raise FigureError("scikit-learn is not installed; pip install 'ripu[figures]'")
    _store(data)
    checkpoint = data.run / "checkpoints" / "final.ckpt"
    if not checkpoint.exists():
        raise FigureError(f"{checkpoint} does not exist; let the run finish")
    images = _chosen(data.gallery, 2)
    module, fed_size = open_network(checkpoint)
    figure, axes = start(1, len(images), figsize=(5.6 * len(images), 5.2), squeeze=False)
    colors = class_table(data.class_colors) / 255.0
    present: set[int] = set()
    for axis, image in zip(axes[0], images, strict=True):
        picture = _image(data, image)
        found = pixel_features(module, picture, fed_size((picture.shape[0], picture.shape[1])))
        is_queried, truth = queried_labels(data, image, (found.shape[1], found.shape[2]))
        if (truth == VOID).all():
            raise FigureError(f"no truth was recorded for {image.image_id}; train on images with labels")
        flat, labels, queried = _embed(found, truth, is_queried)
        axis.scatter(*flat[~queried].T, s=6, c=colors[labels[~queried]], linewidths=0)
        axis.scatter(*flat[queried].T, s=34, c=colors[labels[queried]], marker="v", edgecolors="black", linewidths=0.4)
        axis.set_title(image.image_id, fontsize=8)
        axis.set(xticks=[], yticks=[])
        present |= set(labels.tolist())
    named = list(_class_colors(data).items())
    add_color_legend(figure, dict(named[number] for number in sorted(present)))
    return save(figure, path)


def _embed(
    features: NDArray[np.float32], truth: NDArray[np.uint8], is_queried: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Place some pixels of known class in the plane, with a fixed seed: features (F, h, w), truth and queries (h, w).

    Return place (N, 2), class (N,) and whether it was queried (N,).
    """
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(0)
    known, queried = truth.reshape(-1) != VOID, is_queried.reshape(-1)
    groups = []
    for places, most in ((known & queried, MOST_QUERIED), (known & ~queried, MOST_OTHERS)):
        found = np.flatnonzero(places)
        groups.append(found if len(found) <= most else np.sort(generator.choice(found, most, replace=False)))
    places = np.concatenate(groups)
    vectors = features.reshape(features.shape[0], -1).T[places]
    perplexity = min(30.0, max(2.0, (len(places) - 1) / 4))
    flat: NDArray[np.float32] = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(vectors)
    return flat, truth.reshape(-1)[places], queried[places]


def pixel_features(module: nn.Module, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the input (F, h, w) of the network's last convolution: the features that its logits are linear in.

    The image (H, W, 3) is fed at ``size`` to a :class:`ripu.module.RipuModule`.

    Raises:
        FigureError: No convolution has as many outputs as there are classes.
    """
    import torch

    from ripu.datasets.image_files import resize_image
    from ripu.models.interface import evaluating

    network: nn.Module = module.network  # type: ignore[assignment]
    convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    last = [part for part in convolutions if part.out_channels == network.num_classes]
    if not last:
        raise FigureError(
            f"{type(network).__name__} has no convolution with {network.num_classes} outputs to take features from"
        )
    seen: list[Tensor] = []
    handle = last[-1].register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad(), evaluating(module):
            pixels = torch.from_numpy(np.ascontiguousarray(resize_image(image, size).transpose(2, 0, 1)))
            module(pixels[None])
    finally:
        handle.remove()
    features: NDArray[np.float32] = seen[-1][0].float().cpu().numpy()
    return features


def side_by_side(runs: Mapping[Path, str], folder: Path) -> list[Path]:
    """Draw Figs. 3 and 4 over several runs into a folder: the same images, a titled column for each run.

    Returns:
        The files; none if the runs have no image in common.
    """
    every = [read_run(run) for run in runs]
    first = every[0]
    shared = [image for image in first.gallery if all(image in other.gallery for other in every)]
    if not shared:
        return []
    images = _chosen(shared)
    rows = [
        [_image(first, image), _label(first, image, "truth"), *(_label(data, image, "after") for data in every)]
        for image in images
    ]
    written = sheet(folder / "fig3_predictions", ["image", "truth", *runs.values()], rows, _class_colors(first))
    asking = {
        name: data for name, data in zip(runs.values(), every, strict=True) if data.store and data.store.num_rounds
    }
    if asking:
        pictures = [[queried_picture(data, image) for data in asking.values()] for image in images]
        colors = _round_colors(next(iter(asking.values())))
        written += sheet(folder / "fig4_queried", list(asking), pictures, colors)
    return written
