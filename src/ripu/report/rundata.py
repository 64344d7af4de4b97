"""A run's folder as its report sees it: finished, unfinished, or older than the recording of reports. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.image_files import MAX_PIXELS, read_stored
from ripu.datasets.taxonomy import TAXONOMIES
from ripu.io.errors import RipuError
from ripu.io.reading import UntrustedError, read_arrays, read_json
from ripu.labelstore import LabelReader, LabelStoreError, StoreMissingError
from ripu.report import storage

FloatArray = NDArray[np.float64]

MOST_RANKS = 4096

_COUNTS = {"confusion": ("integer", 2), "bins": ("number", 2), "images": ("number", 2), "world_size": ("integer", 0)}
_MAPS = dict.fromkeys(("prediction", *storage.MAP_NAMES), ("integer", 2))
_MAPS |= {f"{name}_largest": ("number", 0) for name in storage.MAP_NAMES}


class RunError(RipuError, ValueError):
    """A folder that no report can be made from; names it, the cause and the remedy."""


@contextmanager
def of_known_form(run: Path) -> Iterator[None]:
    """Turn errors about recorded values that are missing or of another type into a :class:`RunError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RunError(
            f"{run}: results.json or report/ does not have the form that ripu.train writes ({type(error).__name__}: "
            f"{error}); restore them from a copy of the run"
        ) from error


@dataclass(frozen=True)
class Evaluation:
    """Counts of an evaluation over all ranks."""

    step: int
    is_final: bool  # it is the one that is reported
    confusion: NDArray[np.int64]  # (C, C); rows are truth, columns prediction
    bins: FloatArray  # (B, 3) pixels, correct pixels, summed confidence, by confidence in equal steps from 0 to 1
    images: FloatArray  # (N, 3) index, mIoU and pixel accuracy in percent

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in percent: mean over pixels of |confidence - accuracy| of their bin."""
        pixels, right, confidence = self.bins.T
        return 100.0 * float(np.abs(right - confidence).sum() / max(pixels.sum(), 1.0))


@dataclass(frozen=True)
class GalleryImage:
    """A target image of the gallery; the size is that of its label."""

    index: int
    image_id: str
    height: int
    width: int


@dataclass(frozen=True)
class RunData:
    """A run as recorded in its folder."""

    run: Path
    results: Mapping[str, Any]  # results.json; of an unfinished run, as much as is known, under the same keys
    is_finished: bool  # there is a results.json
    config_text: str  # config.yaml; empty without one
    class_names: tuple[str, ...]  # in train-id order
    class_colors: tuple[tuple[int, int, int], ...]
    store: LabelReader | None  # None if there is none, or it cannot be read
    gallery: tuple[GalleryImage, ...]
    evaluations: tuple[Evaluation, ...]  # in the order of steps, the final one last
    val_ids: tuple[str, ...]  # ids of the validation images; empty if they were not recorded
    notes: tuple[str, ...]  # a sentence for each thing that is missing

    @property
    def folder(self) -> Path:
        """The folder that the run recorded its report in."""
        return self.run / storage.FOLDER

    @property
    def rounds(self) -> Sequence[Mapping[str, Any]]:
        """The rounds of ``results.json``."""
        return self.results.get("rounds") or ()

    @cached_property
    def curve(self) -> list[Mapping[str, Any]]:
        """Step, labelled share, mIoU and IoU by class of every evaluation, the final one last."""
        points: list[Mapping[str, Any]] = list(self.results.get("evaluations") or ())
        if self.is_finished:
            names = ("mIoU", "per_class_iou", "labelled_fraction")
            points.append({"step": self.results.get("max_steps"), **{name: self.results.get(name) for name in names}})
        return points

    def picture(self, name: str) -> NDArray[np.uint8] | None:
        """Return a recorded picture by its name; None if there is none."""
        path = self.folder / name
        return read_stored(path) if path.exists() else None

    def maps(self, image: GalleryImage, round_index: int) -> Mapping[str, Any] | None:
        """Return the maps of an image right before a round; None if none were recorded."""
        path = self.folder / f"target-{image.index:05d}-round-{round_index:03d}.npz"
        if not path.exists():
            return None
        try:
            maps = read_arrays(path, _MAPS, optional=True)
        except UntrustedError as error:
            raise RunError(f"{error}; remove it") from error
        planes = [plane for plane in maps.values() if plane.ndim == 2]
        if "prediction" not in maps or any(plane.dtype != np.uint8 or not plane.size for plane in planes):
            raise RunError(f"{path} contains no maps of ripu.train; remove it")
        return {name: plane for name, plane in maps.items() if plane.ndim == 2 or np.isfinite(plane)}


def read_run(run: Path) -> RunData:
    """Read the output folder of ``ripu.train``.

    Raises:
        RunError: It contains no run.
    """
    folder, config, notes = run / storage.FOLDER, run / "config.yaml", []
    results, is_finished = _results(run)
    if not results:
        notes.append("The run is unfinished, and nothing of its learning curve is on disk yet.")
    store: LabelReader | None
    try:
        store = LabelReader(run / "labels")
        store.header  # noqa: B018  (damage shows here)
    except LabelStoreError as error:
        store = None
        if not isinstance(error, StoreMissingError):
            notes.append(f"The label store cannot be read: {error}.")
    gallery = _gallery(folder / "gallery.json")
    names = tuple(gallery.get("class_names") or (store.class_names if store else results.get("per_class_iou") or ()))
    if not gallery:
        notes.append(
            "No maps, predictions and counts were recorded: the run is older than reports, or has just started."
        )
    return RunData(
        run=run,
        results=results,
        is_finished=is_finished,
        config_text=config.read_text("utf-8") if config.exists() else "",
        class_names=names,
        class_colors=_class_colors(names, gallery.get("class_colors")),
        store=store,
        gallery=tuple(
            GalleryImage(one["index"], one["id"], one["height"], one["width"]) for one in gallery.get("images", ())
        ),
        evaluations=_evaluations(folder),
        val_ids=tuple(gallery.get("val_ids", ())),
        notes=tuple(notes),
    )


def _class_colors(names: Sequence[str], recorded: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int, int], ...]:
    """Return the recorded colours of classes, else those of a taxonomy with these names, else evenly spread hues."""
    if recorded:
        return tuple((int(red), int(green), int(blue)) for red, green, blue in recorded)
    for taxonomy in TAXONOMIES.values():
        if taxonomy.class_names == tuple(names):
            return taxonomy.class_colors
    hues = [Image.new("HSV", (1, 1), (255 * number // max(1, len(names)), 160, 200)) for number in range(len(names))]
    return tuple(hue.convert("RGB").getpixel((0, 0)) for hue in hues)  # type: ignore[misc]


def _results(run: Path) -> tuple[Mapping[str, Any], bool]:
    """Return the results so far, and True if they are final."""
    finished = run / "results.json"
    for path in (finished, run / storage.FOLDER / "progress.json"):
        if path.exists():
            try:
                content = read_json(path)
            except UntrustedError as error:
                raise RunError(f"{error}; restore it, or run python -m ripu.train again") from error
            if not isinstance(content, dict):
                raise RunError(f"{path} contains no results of ripu.train; name the output folder of a run")
            return content, path is finished
    if not (run / "config.yaml").exists():
        raise RunError(
            f"{run} contains no run: results.json and config.yaml are missing; name the output folder of ripu.train"
        )
    return {}, False


def _gallery(path: Path) -> Mapping[str, Any]:
    """Return the content of ``gallery.json``; empty if it is missing."""
    if not path.exists():
        return {}
    try:
        gallery = read_json(path)
    except UntrustedError as error:
        raise RunError(f"{error}; remove it to make the report without it") from error
    if not _is_gallery(gallery):
        raise RunError(f"{path} does not have the form that ripu.train writes; remove it to make the report without it")
    return dict(gallery)


def _is_gallery(gallery: Any) -> bool:
    def of(kind: type, values: Any) -> bool:
        return isinstance(values, list) and all(type(value) is kind for value in values)

    def within(low: int, high: int, values: Any) -> bool:
        return of(int, values) and all(low <= value <= high for value in values)

    if not isinstance(gallery, dict):
        return False
    names: Any = gallery.get("class_names")
    colors: Any = gallery.get("class_colors")
    images: Any = gallery.get("images", [])
    if not (of(str, names) and of(str, gallery.get("val_ids", [])) and of(list, colors) and of(dict, images)):
        return False
    return [len(color) for color in colors] == [3] * len(names) and all(
        [within(0, 255, color) for color in colors]
        + [isinstance(one.get("id"), str) and within(0, 2**31, [one.get("index")]) for one in images]
        + [within(1, MAX_PIXELS, [one.get("height"), one.get("width")]) for one in images]
    )


def _counts(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the counts of one rank in an evaluation."""
    try:
        counts = read_arrays(path, _COUNTS)
    except (UntrustedError, FileNotFoundError) as error:
        raise RunError(f"{error}; remove {path.name.partition('-rank')[0]}-rank*.npz in {path.parent}") from error
    shapes = [counts[name].shape for name in ("confusion", "bins", "images")]
    if len(set(shapes[0])) > 1 or shapes[1][1] != 3 or shapes[2][1] != 3:
        listed = ", ".join(map(str, shapes))
        raise RunError(f"{path} contains arrays of the shapes {listed}, which ripu.train does not write; remove it")
    return counts


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    found = []
    for path in folder.glob("evaluation-*-rank0.npz"):
        match = re.fullmatch(r"evaluation-(\d+)(-final)?-rank0\.npz", path.name)
        if match is None:
            continue
        first = _counts(path)
        world_size = int(first["world_size"])
        if not 1 <= world_size <= MOST_RANKS:
            raise RunError(f"{path} claims {world_size} processes; it was not written by ripu.train, remove it")
        rest = [_counts(path.with_name(path.name.replace("rank0", f"rank{rank}"))) for rank in range(1, world_size)]
        if any(one["bins"].shape != first["bins"].shape for one in rest):
            raise RunError(f"{path} does not belong to the files of the other ranks; remove them")
        confusion = first["confusion"].astype(np.int64)  # of all ranks already
        bins, images = ([one[name].astype(np.float64) for one in (first, *rest)] for name in ("bins", "images"))
        every = np.concatenate(images)
        total: FloatArray = np.sum(bins, axis=0)
        found.append(Evaluation(int(match[1]), bool(match[2]), confusion, total, every[np.argsort(every[:, 0])]))
    return tuple(sorted(found, key=lambda one: (one.step, one.is_final)))
