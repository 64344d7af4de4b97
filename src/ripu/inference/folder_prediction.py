"""Prediction of a folder of images: network sizes, reading ahead, and rendering and writing in the background."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from ripu.datasets.errors import SceneError
from ripu.datasets.georeference import read_georeference
from ripu.datasets.image_files import ImageReader
from ripu.datasets.proportions import Fit
from ripu.datasets.taxonomy import Taxonomy
from ripu.datasets.value_ranges import check_ranges
from ripu.inference.input_images import Entry, Finished, Photo, entry_of, find_photos
from ripu.inference.photo_prediction import Job, PhotoPredictor, Picture, PictureSizeError
from ripu.inference.predictor import Predictor
from ripu.inference.results import Painter, is_placed_tiff, suffix_of
from ripu.io.console import Progress
from ripu.io.errors import ConfigError
from ripu.io.writing import write_bytes, writing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of a prediction; see ``conf/predict.yaml``."""

    write: tuple[str, ...]  # kinds of files, out of those of ripu.inference.results
    scale: float | None
    tile: list[int] | None
    overlap: float
    flip: bool
    opacity: float
    overwrite: bool
    batch: int
    num_workers: int


def predict_folder(
    source: Path,
    output: Path,
    module: torch.nn.Module,
    taxonomy: Taxonomy,
    trained_size: tuple[int, int],
    checkpoint_sha256: str,
    device: torch.device,
    options: Options,
    reader: ImageReader,
    fit: Fit = "stretch",
) -> dict[str, Any]:
    """Predict every image of a folder.

    Args:
        source: The folder, or one image.
        output: Gets a folder for each kind of file.
        module, device: Maps raw images (B, 3, h, w) uint8 to logits, on the device.
        taxonomy: The classes.
        trained_size: (height, width) that target images had in training.
        checkpoint_sha256: Digest of the checkpoint; finished images of another one are refused.
        options: See ``conf/predict.yaml``.
        reader: Reads the images.
        fit: ``data.fit`` in training.

    Returns:
        ``done``, ``skipped`` (finished before), ``unreadable`` (name to reason) and ``others`` (files that are not
        images).

    Raises:
        PhotosError: Folders that cannot be used.
        SceneError: Values that use few of their bits, or bands that are missing.
    """
    photos, others = find_photos(source, output)
    if unread := check_ranges([photo.path for photo in photos], reader, "value_range", skips=True):
        _log.warning("images have more bands than this network reads (%s, ...); only colour is used", unread[0])
    tile = options.tile or 2 * [max(trained_size)]
    settings = {
        "checkpoint_sha256": checkpoint_sha256,
        "scale": options.scale,
        "tile": tile,
        "overlap": options.overlap,
        "flip": options.flip,
        "opacity": options.opacity,
        "classes": list(taxonomy.class_names),
        "bands": reader.bands and list(reader.bands),
        "value_range": reader.ranges and [list(pair) for pair in reader.ranges],
    }
    finished = Finished(output, settings, overwrite=options.overwrite)
    write_bytes(output / "legend.png", _legend(taxonomy))
    predictor = Predictor(module, device, (tile[0], tile[1]), options.overlap, options.batch, options.flip)
    painter = Painter(taxonomy, options.opacity)
    prediction = _Prediction(
        PhotoPredictor(predictor, painter, reader, trained_size, options.scale, fit), finished, options
    )
    skipped = prediction.run(photos)
    finished.close()
    return {"done": prediction.done, "skipped": skipped, "unreadable": prediction.unreadable, "others": others}


class _Prediction:
    """The prediction of many images: reading ahead and writing go on while the network works."""

    def __init__(self, single: PhotoPredictor, finished: Finished, options: Options) -> None:
        self._single, self._finished, self._options = single, finished, options
        self._writing: list[Future[tuple[Photo, Job]]] = []
        self._entries: dict[str, Entry] = {}
        self.done = 0
        self.unreadable: dict[str, str] = {}

    def run(self, photos: Sequence[Photo]) -> int:
        """Predict the images that are not finished, and return the number of the others."""
        jobs = []
        for photo in photos:
            try:
                jobs.append((photo, self._job(photo)))
            except SceneError as error:
                self.unreadable[photo.name] = str(error)
        waiting = [
            (photo, job) for photo, job in jobs if not self._finished.has(self._entries[photo.name], job.files, job.all)
        ]
        total = len(waiting) + len(self.unreadable)
        with ThreadPoolExecutor(max(1, self._options.num_workers)) as pool, Progress("predicting", total) as progress:
            for name, reason in list(self.unreadable.items()):
                self._skip(name, reason, progress)
            for group in self._read(waiting, pool):
                whole = []
                for photo, job, found in group:
                    if isinstance(found, str):
                        self._skip(photo.name, found, progress)
                    elif found.image is None:
                        self._predict_strips(photo, job, found, pool, progress)
                    else:
                        whole.append((photo, job, found))
                self._predict_whole(whole, pool, progress)
            self._settle(progress)
        return len(jobs) - len(waiting)

    def _job(self, photo: Photo) -> Job:
        place = read_georeference(photo.path)
        self._entries[photo.name] = entry_of(photo, place)
        kinds = self._options.write
        files = {kind: self._finished.place(kind, photo, suffix_of(kind, is_placed_tiff(place))) for kind in kinds}
        return Job(photo.path, files, place)

    def _skip(self, name: str, reason: str, progress: Progress) -> None:
        self.unreadable[name] = reason
        progress.say(f"skipped {name!a}: {reason}")
        progress.add()

    def _read(
        self, waiting: Sequence[tuple[Photo, Job]], pool: ThreadPoolExecutor
    ) -> Iterator[list[tuple[Photo, Job, Picture | str]]]:
        """Yield groups of images, one read ahead, each with what was read or the reason for skipping it."""
        batch = self._options.batch

        def read(job: Job) -> Picture | str:
            try:
                return self._single.read(job)
            except (SceneError, PictureSizeError) as error:
                return str(error)

        def start(first: int) -> list[Future[Picture | str]]:
            return [pool.submit(read, job) for _, job in waiting[first : first + batch]]

        ahead = start(0)
        for first in range(0, len(waiting), batch):
            now, ahead = ahead, start(first + batch)
            group = zip(waiting[first : first + batch], now, strict=True)
            yield [(photo, job, future.result()) for (photo, job), future in group]

    def _predict_whole(
        self, group: Sequence[tuple[Photo, Job, Picture]], pool: ThreadPoolExecutor, progress: Progress
    ) -> None:
        images = [picture.image for *_, picture in group if picture.image is not None]
        results = self._single.predictor(images, [picture.size for *_, picture in group])
        made = []
        for photo, job, picture in group:
            try:
                made.append((photo, job, picture, *next(results)))
            except ValueError as error:
                raise ConfigError(f"{photo.name!a}: {error}") from error

        def write(photo: Photo, job: Job, *parts: Any) -> tuple[Photo, Job]:
            self._single.write(job, *parts)
            return photo, job

        self._settle(progress)  # files that were written while the network worked
        self._writing += [pool.submit(write, *parts) for parts in made]

    def _predict_strips(
        self, photo: Photo, job: Job, picture: Picture, pool: ThreadPoolExecutor, progress: Progress
    ) -> None:
        try:
            self._single.predict_strips(job, picture, pool.map)
        except SceneError as error:
            self._skip(photo.name, str(error), progress)
            return
        except ValueError as error:
            raise ConfigError(f"{photo.name!a}: {error}") from error
        self._count(photo, job, progress)

    def _settle(self, progress: Progress) -> None:
        for future in self._writing:
            self._count(*future.result(), progress)
        self._writing.clear()

    def _count(self, photo: Photo, job: Job, progress: Progress) -> None:
        entry = self._entries[photo.name]
        for path in self._finished.outdated(photo, entry) - set(job.all):
            with writing(path):
                path.unlink(missing_ok=True)
        self._finished.add(entry, job.files)
        self.done += 1
        progress.add()


def _legend(taxonomy: Taxonomy) -> bytes:
    """Render a small picture that names the colours."""
    line, font = 24, ImageFont.load_default(14)
    sheet = Image.new("RGB", (240, line * taxonomy.num_classes + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, color) in enumerate(zip(taxonomy.class_names, taxonomy.class_colors, strict=True)):
        top = 4 + number * line
        draw.rectangle((6, top + 3, 36, top + line - 4), fill=color)
        draw.text((46, top + 3), name, fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def summary(results: Mapping[str, Any], output: Path) -> str:
    """Return the results of :func:`predict_folder` as a few lines."""
    lines = [f"{results['done']} images predicted in {output}"]
    if results["skipped"]:
        lines.append(f"{results['skipped']} were finished before")
    if results["others"]:
        lines.append(f"{results['others']} other files were left alone")
    if unreadable := results["unreadable"]:
        names = ", ".join(ascii(name) for name in list(unreadable)[:5]) + (", ..." if len(unreadable) > 5 else "")
        lines.append(f"{len(unreadable)} could not be read: {names}")
    return "\n".join(lines)
