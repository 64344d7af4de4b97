"""The learning curve and the pictures that a run leaves: fixed scenes before and after."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import read_stored
from ripu.datasets.scenes import SceneDataset, Scenes
from ripu.datasets.taxonomy import VOID
from ripu.inference import palette
from ripu.io.writing import TMP_PREFIX, publish, writing
from ripu.loading.samples import EvalScenes, PoolScenes
from ripu.models.interface import evaluating
from ripu.module import RipuModule
from ripu.report.collect import score_words
from ripu.report.page import try_page
from ripu.report.painting import dimmed, paint, round_table
from ripu.report.plots import start
from ripu.report.summary import summary
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine

_log = logging.getLogger(__name__)


def evenly(total: int, count: int) -> list[int]:
    """Return ``count`` fixed indices, spread over ``total`` items."""
    count = min(count, total)
    return [round((item + 0.5) * total / count - 0.5) for item in range(count)]


class PredictionPanel(pl.Callback):
    """Keeps the predictions of a few fixed images at the first evaluation: the "before" of the pictures."""

    def __init__(self, folder: Path, num_pictures: int) -> None:
        """Keep predictions in a folder."""
        self.folder, self.num_pictures = folder, num_pictures

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Predict the fixed images, once."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or self.folder.exists():
            return
        assert isinstance(pl_module, RipuModule)
        half = self.folder.with_name(f"{TMP_PREFIX}{self.folder.name}")  # whole or not at all: it is made once
        with writing(self.folder):
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
        for name, scenes in (("val", data.val), ("target", data.target)):
            for index in evenly(len(scenes), self.num_pictures):
                label = predict(pl_module, scenes, index, data.target_size)
                with writing(self.folder):
                    Image.fromarray(label).save(half / f"{name}-{index:05d}.png")
        with writing(self.folder):
            publish(half, self.folder)


def predict(module: RipuModule, scenes: SceneDataset, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Predict the train ids of a scene at label resolution, (H, W) uint8."""
    image = PoolScenes(scenes, size, [index])[0]["image"].to(module.device)
    with torch.no_grad(), evaluating(module):
        label = module.predict_label(image[None], scenes.label_size(index))[0]
    return label.to("cpu", torch.uint8).numpy()


def _would_ask(module: RipuModule, engine: SelectionEngine, scenes: SceneDataset, index: int) -> NDArray[np.uint8]:
    """Return what one more round would query on an image outside the pool: (H, W) uint8, 0 where queried, else 255."""
    size = scenes.label_size(index)
    sample = EvalScenes(scenes, engine.scorer.train_size, [index])[0]["image"]
    with torch.no_grad(), evaluating(module):
        logits = module(sample[None].to(module.device))
    queried = np.full(size, VOID, dtype=np.uint8)
    queried.ravel()[engine.scorer.would_ask(logits, sample, size)] = 0
    return queried


def fit(image: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) to (height, width)."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def panel(
    module: RipuModule,
    scenes: SceneDataset,
    selection: SelectionCallback,
    count: int,
    target_size: tuple[int, int],
    *,
    is_pool: bool,
) -> Iterator[tuple[int, dict[str, NDArray[np.uint8]]]]:
    """Yield the index and the layers of a few fixed images, fed at ``target_size`` and shown at the size of the label.

    Layers are ``image`` (H, W, 3), ``prediction`` and, if known, ``truth`` (H, W) in train ids; with selection also
    ``queried`` (H, W): the rounds in the pool (the target images), or 0 where one more round would query another image.
    """
    for index in evenly(len(scenes), count):
        scene = scenes.scenes[index]
        layers = {"image": fit(scenes.read_picture(index), scenes.label_size(index))}
        if scene.label is not None:
            layers["truth"] = scenes.read_label(index)
        if is_pool and selection.store is not None:
            layers["queried"] = selection.store.revealed_round(scene.image_id)
        elif not is_pool and selection.engine is not None:
            layers["queried"] = _would_ask(module, selection.engine, scenes, index)
        layers["prediction"] = predict(module, scenes, index, target_size)
        yield index, layers


def write_report(
    run: Path,
    results: Mapping[str, Any],
    scenes: Scenes,
    selection: SelectionCallback,
    module: RipuModule,
    target_size: tuple[int, int],
    num_pictures: int,
) -> None:
    """Write the learning curve, the pictures and the page of a finished run, and print its table.

    Args:
        run, results: The run's folder, and the content of its ``results.json``.
        scenes, selection, module: The data, the callback with label store and engine (if any), and the trained module.
        target_size: (height, width) that target images are fed at.
        num_pictures: Number of validation and of target images to picture.
    """
    write_curve(run / "learning_curve.png", results)
    folder, colorize = run / "pictures", scenes.taxonomy.colorize
    if num_pictures:
        with writing(folder):
            folder.mkdir(exist_ok=True)
    for name, part in (("val", scenes.val), ("target", scenes.target)):
        is_pool = name == "target"
        for index, layers in panel(module, part, selection, num_pictures, target_size, is_pool=is_pool):
            file = f"{name}-{index:05d}.png"
            tiles = {"image": layers["image"]}
            if "truth" in layers:
                tiles["truth"] = colorize(layers["truth"])
            if (queried := layers.get("queried")) is not None:
                painted = paint(dimmed(layers["image"]), queried, queried != VOID, round_table())
                tiles["revealed, by round" if is_pool else "queried next"] = painted
            if (before := _kept_prediction(run / "panel" / file, part.label_size(index))) is not None:
                tiles["prediction before"] = colorize(before)
            tiles["prediction after"] = colorize(layers["prediction"])
            with writing(folder / file):
                _sheet(tiles).save(folder / file)
    try_page(run)
    print(summary(results, tuple(scenes.taxonomy.subsets)))
    pictures = "pictures, " if num_pictures else ""
    left = f"report.html, results.json, metrics.csv, learning_curve.png, {pictures}checkpoints"
    print(f"\nin {run}:\n{left}{', labels' if selection.store is not None else ''}")


def write_curve(path: Path, results: Mapping[str, Any]) -> None:
    """Draw mIoU against steps and against the labelled share."""
    from matplotlib import pyplot

    last = {"step": results["max_steps"]} | {name: results[name] for name in ("mIoU", "labelled_fraction")}
    points = [*results["evaluations"], last]
    mious = [one["mIoU"] for one in points]
    figure, axes = start(1, 2, figsize=(9, 3.6), sharey=True)
    axes[0].plot([one["step"] for one in points], mious, "o-", color=palette.hex_color(palette.BLUE))
    for number, one in enumerate(results["rounds"], start=1):
        axes[0].axvline(one["step"], color=palette.hex_color(palette.GRID), linewidth=0.8, linestyle=":")
        place = (one["step"], axes[0].get_ylim()[0])
        axes[0].annotate(f"round {number}", place, rotation=90, fontsize=7, va="bottom")
    axes[0].set(xlabel="step", ylabel="mIoU (%)")
    shares = [100 * one["labelled_fraction"] for one in points]
    axes[1].plot(shares, mious, "o-", color=palette.hex_color(palette.VERMILION))
    axes[1].set(xlabel="target pixels queried (%)")
    for axis in axes:
        axis.grid(alpha=0.3)
    words = " ".join([*(str(results[key]) for key in ("dataset", "mode", "setting")), score_words(results)])
    figure.suptitle(f"{words}, seed {results['seed']}")
    with writing(path):
        figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _kept_prediction(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return a prediction of :class:`PredictionPanel`; None if there is none, or it cannot be used."""
    if not path.exists():
        return None
    try:
        label = read_stored(path)
    except SceneError as error:
        _log.warning("%s; the picture is made without it", error)
        return None
    if label.shape != size or label.dtype != np.uint8:
        _log.warning("%s is not a prediction of its image; the picture is made without it", path)
        return None
    return label


def _sheet(tiles: Mapping[str, NDArray[np.uint8]]) -> Image.Image:
    """Lay out tiles in up to three columns, each under its name."""
    height, width = next(iter(tiles.values())).shape[:2]
    scale = max(1.0, 320 / width) if width < 320 else min(1.0, 768 / width)
    size = (round(width * scale), round(height * scale))
    columns = min(3, len(tiles))
    rows = -(-len(tiles) // columns)
    bar, gap = 22, 6
    sheet = Image.new("RGB", (columns * (size[0] + gap) + gap, rows * (size[1] + bar + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, tile) in enumerate(tiles.items()):
        left = gap + (number % columns) * (size[0] + gap)
        top = gap + (number // columns) * (size[1] + bar + gap)
        draw.text((left, top + 2), name, fill="black", font=ImageFont.load_default(14))
        resampling = Image.Resampling.BILINEAR if name == "image" else Image.Resampling.NEAREST
        sheet.paste(Image.fromarray(tile).resize(size, resampling), (left, top + bar))
    return sheet
