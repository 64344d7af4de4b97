"""Facts about every image and label of a data set, read once, in several processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import as_rgb, read_header
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.datasets.value_ranges import highest_value, unread_bands
from ripu.io.process_pool import num_cores

THUMB = 16  # side of the small grey copies by which nearly equal images are found
CHUNK = 8  # scenes that a process reads at once


@dataclass
class SceneFacts:
    """Facts about one scene."""

    image_size: tuple[int, int] | None = None  # (height, width) of the upright image; None if it cannot be read
    orientation: int = 1  # EXIF; 1: stored upright, 5 to 8: upright swaps its sides
    label_size: tuple[int, int] | None = None  # (height, width); None if there is no label or it cannot be read
    unread_bands: int = 0  # beyond those that are read as colour
    num_pages: int = 1  # of a TIFF or an animation; only the first is read
    highest: int | None = None  # the highest value, if the range of its integers counts and has more than 8 bits
    image_fault: str = ""
    label_fault: str = ""
    image_bytes: str = ""  # digest of the image file
    image_pixels: str = ""  # digest of its pixels, independent of the file format
    thumb: bytes = b""  # (THUMB * THUMB,) uint8, a small grey copy of the image
    disk_ids: dict[int, int] = field(default_factory=dict)  # id in the label file -> pixels
    train_pixels: tuple[int, ...] = ()  # (C,) pixels of each class
    void: int = 0  # pixels without a class


def read_scene(scenes: SceneDataset, index: int) -> SceneFacts:
    """Read one scene; its faults are recorded, not raised."""
    facts = SceneFacts()
    path = scenes.scenes[index].image
    try:
        header, reader = read_header(path), scenes.image_reader  # first: it refuses a pipe, which would block
        facts.image_bytes = _digest(path.read_bytes())
        facts.orientation = header.orientation
        facts.unread_bands = unread_bands(header, reader)
        facts.num_pages = header.num_pages
        pixels = reader(path)
        facts.highest = highest_value(path, header, reader)
        facts.image_size = (pixels.shape[0], pixels.shape[1])
        facts.image_pixels = _digest(pixels.tobytes() + repr(pixels.shape).encode())
        grey = Image.fromarray(as_rgb(pixels)).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
        facts.thumb = grey.tobytes()
    except (SceneError, OSError) as error:
        facts.image_fault = _cause(error, path)
    return read_label(scenes, index, facts)


def read_label(scenes: SceneDataset, index: int, facts: SceneFacts) -> SceneFacts:
    """Read the label of one scene, if it has one, into its facts, and return them."""
    scene = scenes.scenes[index]
    if scene.label is None:
        return facts
    try:
        facts.label_size = scenes.measure_label(scene.label)
        ids = scenes.decode_label(scene.label)
        train = scenes.taxonomy.to_train_ids(ids)
    except Exception as error:  # decoders fail in any way on bytes that are not an image
        facts.label_fault = _cause(error, scene.label)
        return facts
    values, counts = np.unique(ids, return_counts=True)
    facts.disk_ids = dict(zip(values.tolist(), counts.tolist(), strict=True))
    counted = np.bincount(train.reshape(-1), minlength=VOID + 1)
    facts.train_pixels, facts.void = tuple(counted[: scenes.taxonomy.num_classes].tolist()), int(counted[VOID])
    return facts


def _read_some(scenes: SceneDataset, indices: Sequence[int]) -> list[SceneFacts]:
    return [read_scene(scenes, index) for index in indices]


def read_all(
    parts: dict[str, SceneDataset],
    num_workers: int | None = None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> dict[str, list[SceneFacts]]:
    """Read every scene of every part; return the facts by part, in the order of the scenes.

    A scene that crashes its process counts as one that cannot be read.

    Args:
        parts: Scenes by name of the part.
        num_workers: Number of processes; None for one per CPU core, 0 to read in this one.
        progress: Called with the scenes done and the total.
    """
    facts = {name: [SceneFacts()] * len(scenes) for name, scenes in parts.items()}
    total, done = sum(map(len, parts.values())), 0
    jobs = [
        (name, range(len(scenes))[first : first + CHUNK])
        for name, scenes in parts.items()
        for first in range(0, len(scenes), CHUNK)
    ]

    def keep(name: str, indices: Sequence[int], found: Sequence[SceneFacts]) -> None:
        nonlocal done
        for index, one in zip(indices, found, strict=True):
            facts[name][index] = one
        done += len(indices)
        progress(done, total)

    workers = min(num_cores(), len(jobs)) if num_workers is None else num_workers
    if workers <= 1:
        for name, indices in jobs:
            keep(name, indices, _read_some(parts[name], indices))
        return facts
    context, broken = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(workers, context) as pool:
        waiting = {pool.submit(_read_some, parts[name], indices): (name, indices) for name, indices in jobs}
        try:
            for future in as_completed(waiting):
                try:
                    keep(*waiting[future], future.result())
                except BrokenProcessPool:
                    broken.append(waiting[future])
        except BaseException:  # e.g. Ctrl-C: drop the rest
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name, indices in broken:  # a decoder crashed: read each scene in its own process
        for index in indices:
            with ProcessPoolExecutor(1, context) as pool:
                try:
                    found = pool.submit(_read_some, parts[name], [index]).result()
                except BrokenProcessPool:
                    fault = "reading it crashes the process"
                    found = [SceneFacts(image_fault=fault, label_fault=fault)]
            keep(name, [index], found)
    return facts


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _cause(error: Exception, path: Path) -> str:
    """Return the cause of an error without the path, which is printed beside it."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if path.exists() and path.stat().st_size == 0:
        return "is empty"
    return str(error).replace(str(path), "").strip().split("; ")[0].split("\n")[0] or type(error).__name__
