"""Reads every image and label of a data set once, in several processes, and keeps what judging them needs."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import open_image, orientation, upright_rgb
from ripu.datasets.scenes import SceneDataset

THUMB = 16
"""Side of the small grey copies that near-equal images are found by."""

CHUNK = 8
"""Scenes that a process reads at a time."""


@dataclass
class SceneFacts:
    """What one scene is.

    Attributes:
        image_size: (height, width) of the upright image; None where it cannot be read.
        orientation: How its EXIF data turn the stored pixels; 1: not at all, 5 to 8: its sides change places.
        label_size: (height, width) of the label; None where there is none or it cannot be read.
        image_fault: What is wrong with the image file; empty where nothing is.
        label_fault: What is wrong with the label file; empty where nothing is.
        image_bytes: Digest of the image file.
        image_pixels: Digest of its pixels, whatever it is stored as.
        label_bytes: Digest of the label file.
        thumb: (THUMB * THUMB,) uint8, a small grey copy of the image.
        disk_ids: Id in the label file -> pixels.
        train_pixels: (C,) pixels of each class.
        void: Pixels without a class.
    """

    image_size: tuple[int, int] | None = None
    orientation: int = 1
    label_size: tuple[int, int] | None = None
    image_fault: str = ""
    label_fault: str = ""
    image_bytes: str = ""
    image_pixels: str = ""
    label_bytes: str = ""
    thumb: bytes = b""
    disk_ids: dict[int, int] = field(default_factory=dict)
    train_pixels: tuple[int, ...] = ()
    void: int = 0


def read_scene(scenes: SceneDataset, index: int) -> SceneFacts:
    """Read one scene; what is wrong with it is told, not raised."""
    facts = SceneFacts()
    _read_image(scenes.scenes[index].image, facts)
    read_label(scenes, index, facts)
    return facts


def _read_image(path: Path, facts: SceneFacts) -> None:
    try:
        facts.image_bytes = _digest(path.read_bytes())
        with open_image(path) as file:
            facts.orientation = orientation(file)
            pixels = upright_rgb(file)
        facts.image_size = (pixels.shape[0], pixels.shape[1])
        facts.image_pixels = _digest(pixels.tobytes() + repr(pixels.shape).encode())
        grey = Image.fromarray(pixels).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
        facts.thumb = grey.tobytes()
    except (SceneError, OSError) as error:
        facts.image_fault = _cause(error, path)


def read_label(scenes: SceneDataset, index: int, facts: SceneFacts) -> SceneFacts:
    """Read the label of one scene, where it has one, into its facts; returns them."""
    scene = scenes.scenes[index]
    if scene.label is None:
        return facts
    try:
        facts.label_bytes = _digest(scene.label.read_bytes())
        with open_image(scene.label) as file:
            facts.label_size = (file.height, file.width)
        ids = scenes.decode_label(scene.label)
        train = scenes.taxonomy.to_train_ids(ids)
    except Exception as error:  # decoders fail in any way on bytes that are no picture
        facts.label_fault = _cause(error, scene.label)
        return facts
    values, counts = np.unique(ids, return_counts=True)
    facts.disk_ids = dict(zip(values.tolist(), counts.tolist(), strict=True))
    num_classes = scenes.taxonomy.num_classes
    counted = np.bincount(train.reshape(-1), minlength=256)
    facts.train_pixels, facts.void = tuple(counted[:num_classes].tolist()), int(counted[255])
    return facts


def _read_some(scenes: SceneDataset, indices: Sequence[int]) -> list[tuple[int, SceneFacts]]:
    return [(index, read_scene(scenes, index)) for index in indices]


def read_all(
    parts: dict[str, SceneDataset],
    num_workers: int | None = None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> dict[str, list[SceneFacts]]:
    """Read every scene of every part.

    Args:
        parts: Scenes by name of the part.
        num_workers: Processes; None for one a CPU core, 0 for this one alone.
        progress: Called with scenes done and scenes in all.

    Returns:
        Facts by part, in the order of the scenes. A scene that brings its process down is one that cannot be read.
    """
    total = sum(len(scenes) for scenes in parts.values())
    facts: dict[str, list[SceneFacts]] = {
        name: [SceneFacts() for _ in range(len(scenes))] for name, scenes in parts.items()
    }
    jobs = [
        (name, list(range(first, min(first + CHUNK, len(scenes)))))
        for name, scenes in parts.items()
        for first in range(0, len(scenes), CHUNK)
    ]
    workers = min(os.cpu_count() or 1, len(jobs)) if num_workers is None else num_workers
    done = 0

    def keep(name: str, found: list[tuple[int, SceneFacts]]) -> None:
        nonlocal done
        for index, one in found:
            facts[name][index] = one
        done += len(found)
        progress(done, total)

    if workers <= 1:
        for name, indices in jobs:
            keep(name, _read_some(parts[name], indices))
        return facts
    broken = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_read_some, parts[name], indices): (name, indices) for name, indices in jobs}
        try:
            for future in as_completed(waiting):
                try:
                    keep(waiting[future][0], future.result())
                except BrokenProcessPool:
                    broken.append(waiting[future])
        except BaseException:  # Ctrl-C, for one: what waits is not read any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name, indices in broken:  # a decoder died: each scene in a process of its own
        for index in indices:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                try:
                    keep(name, pool.submit(_read_some, parts[name], [index]).result())
                except BrokenProcessPool:
                    fault = "reading it brings the process down"
                    keep(name, [(index, SceneFacts(image_fault=fault, label_fault=fault))])
    return facts


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _cause(error: Exception, path: Path) -> str:
    """What is wrong, without the path, which stands beside it."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if path.exists() and path.stat().st_size == 0:
        return "is empty"
    return str(error).replace(str(path), "").strip().split("; ")[0].split("\n")[0] or type(error).__name__
