"""Reads a run's folder for its report: finished, unfinished, or written before reports were recorded. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.scenes import read_picture
from ripu.datasets.taxonomy import TAXONOMIES
from ripu.labelstore import LabelReader, LabelStoreError, StoreMissingError
from ripu.report import storage

FloatArray = NDArray[np.float64]


class RunError(ValueError):
    """A folder that no report can be made from; names it, the cause and the remedy."""


@dataclass(frozen=True)
class Evaluation:
    """What was counted in an evaluation, over all ranks.

    Attributes:
        step: Training step.
        is_final: Whether it is the one that is reported.
        confusion: (C, C) int64; rows are truth, columns prediction.
        bins: (B, 3) pixels, right ones, summed confidence, by confidence in equal steps from 0 to 1.
        images: (N, 3) index, mIoU and pixel accuracy in percent.
    """

    step: int
    is_final: bool
    confusion: NDArray[np.int64]
    bins: FloatArray
    images: FloatArray

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in percent: mean over pixels of |confidence - accuracy| of their bin."""
        pixels, right, confidence = self.bins.T
        return 100.0 * float(np.abs(right - confidence).sum() / max(pixels.sum(), 1.0))


@dataclass(frozen=True)
class GalleryImage:
    """A target image of the gallery."""

    index: int
    image_id: str
    height: int
    width: int


@dataclass(frozen=True)
class RunData:
    """A run as its folder tells it.

    Attributes:
        run: The folder.
        results: The content of ``results.json``, or what is known of a run without one, under the same keys.
        is_finished: Whether there is a ``results.json``.
        config_text: The content of ``config.yaml``; empty where there is none.
        class_names: Names in train-id order.
        class_colors: RGB triples in the same order.
        store: The label store; None where there is none, or it cannot be read.
        gallery: Recorded target images.
        evaluations: Recorded evaluations in the order of steps, the final one last.
        val_ids: Ids of the validation images; empty where they were not recorded.
        notes: What is missing, a sentence each.
    """

    run: Path
    results: Mapping[str, Any]
    is_finished: bool
    config_text: str
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    store: LabelReader | None
    gallery: tuple[GalleryImage, ...]
    evaluations: tuple[Evaluation, ...]
    val_ids: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """What the run recorded for its report."""
        return self.run / storage.FOLDER

    @property
    def rounds(self) -> Sequence[Mapping[str, Any]]:
        """The rounds of ``results.json``."""
        rounds: Sequence[Mapping[str, Any]] = self.results.get("rounds") or ()
        return rounds

    @cached_property
    def curve(self) -> list[Mapping[str, Any]]:
        """Every evaluation with its step, labelled share, mIoU and IoU by class, the final one last."""
        points: list[Mapping[str, Any]] = list(self.results.get("evaluations") or ())
        if self.is_finished:
            names = ("mIoU", "per_class_iou", "labelled_fraction")
            points.append({"step": self.results.get("max_steps"), **{name: self.results.get(name) for name in names}})
        return points

    def picture(self, name: str) -> NDArray[np.uint8] | None:
        """A recorded picture by its name; None where there is none."""
        path = self.folder / name
        if not path.exists():
            return None
        return read_picture(path, lambda file: np.asarray(file))

    def maps(self, image: GalleryImage, round_index: int) -> Mapping[str, Any] | None:
        """What was recorded of an image before a round asked; None where nothing was."""
        path = self.folder / f"target-{image.index:05d}-round-{round_index:03d}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def read_run(run: Path) -> RunData:
    """Read a run's folder.

    Args:
        run: The output folder of ``ripu.train``.

    Raises:
        RunError: It holds no run.
    """
    results, is_finished, notes = _results(run)
    config = run / "config.yaml"
    store = None
    try:
        store = LabelReader(run / "labels")
        store.header  # noqa: B018  what is damaged shows here
    except StoreMissingError:
        store = None
    except LabelStoreError as error:
        notes.append(f"The label store cannot be read: {error}.")
        store = None
    recorded = run / storage.FOLDER / "gallery.json"
    gallery = json.loads(recorded.read_text()) if recorded.exists() else {}
    names = tuple(gallery.get("class_names") or (store.class_names if store else results.get("per_class_iou") or ()))
    if not gallery:
        notes.append("The run recorded no maps, predictions and counts for a report (it is older, or had just begun).")
    return RunData(
        run=run,
        results=results,
        is_finished=is_finished,
        config_text=config.read_text() if config.exists() else "",
        class_names=names,
        class_colors=class_colors(names, gallery.get("class_colors")),
        store=store,
        gallery=tuple(
            GalleryImage(one["index"], one["id"], one["height"], one["width"]) for one in gallery.get("images", ())
        ),
        evaluations=_evaluations(run / storage.FOLDER),
        val_ids=tuple(gallery.get("val_ids", ())),
        notes=tuple(notes),
    )


def class_colors(names: Sequence[str], recorded: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int, int], ...]:
    """The colours of classes: recorded ones, else those of a known table with these names, else spread over the hues."""
    if recorded:
        return tuple((int(red), int(green), int(blue)) for red, green, blue in recorded)
    for taxonomy in TAXONOMIES.values():
        if taxonomy.class_names == tuple(names):
            return taxonomy.class_colors
    hues = [Image.new("HSV", (1, 1), (255 * number // max(1, len(names)), 160, 200)) for number in range(len(names))]
    return tuple(hue.convert("RGB").getpixel((0, 0)) for hue in hues)  # type: ignore[misc]


def _results(run: Path) -> tuple[Mapping[str, Any], bool, list[str]]:
    finished, progress = run / "results.json", run / storage.FOLDER / "progress.json"
    for path in (finished, progress):
        if path.exists():
            try:
                content = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise RunError(f"{path} is no JSON ({error}); restore it, or run python -m ripu.train again") from error
            if not isinstance(content, dict):
                raise RunError(f"{path} holds no results of ripu.train; name the output folder of a run")
            return content, path is finished, []
    if not (run / "config.yaml").exists():
        raise RunError(
            f"{run} holds no run: neither results.json nor config.yaml is there; name the output folder of ripu.train"
        )
    return {}, False, ["The run is unfinished, and nothing of its learning curve is on disk yet."]


_EVALUATION = re.compile(r"evaluation-(\d+)(-final)?-rank0\.npz")


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    found = []
    for path in sorted(folder.glob("evaluation-*-rank0.npz")):
        match = _EVALUATION.fullmatch(path.name)
        if match is None:
            continue
        with np.load(path, allow_pickle=False) as file:
            world_size, confusion = int(file["world_size"]), file["confusion"]
            bins, images = [file["bins"]], [file["images"]]
        for rank in range(1, world_size):
            with np.load(path.with_name(path.name.replace("rank0", f"rank{rank}")), allow_pickle=False) as file:
                bins.append(file["bins"])
                images.append(file["images"])
        every = np.concatenate(images)
        total: FloatArray = np.sum(bins, axis=0)
        found.append(Evaluation(int(match[1]), bool(match[2]), confusion, total, every[np.argsort(every[:, 0])]))
    return tuple(sorted(found, key=lambda one: (one.step, one.is_final)))
