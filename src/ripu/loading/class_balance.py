"""Class-balanced sampling of source images, as in the released code: rare classes come up more often.

A draw picks a class, then the next image that contains it. With s_c the share of class c among the (image, class)
incidences of the images drawn so far in a sub-epoch of 3,000 draws, class c is picked with

    probability(c) proportional to 1 / log(1.01 + s_c).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import Fault, SceneError, SkippedFileError
from ripu.datasets.scenes import SceneDataset
from ripu.io.console import track
from ripu.io.lock import FileLock
from ripu.io.process_pool import in_processes
from ripu.io.reading import UntrustedError, read_array
from ripu.io.writing import AtomicFile

SUB_EPOCH = 3000
"""Number of draws after which the shares of the classes are counted afresh."""

INDEX_VERSION = 1
"""Raised whenever the class index of the same files would change."""

_CHUNK = 16
_log = logging.getLogger(__name__)


def class_balanced_stream(classes: NDArray[np.bool_], num_draws: int, *key: int) -> tuple[int, ...]:
    """Return the source images of a whole run: class-balanced draws, then shuffled over the whole run.

    Args:
        classes: (N, C) bool, the classes of each image.
        num_draws: Number of draws in the whole run, >= 1. It grows with processes and batch size, and changes the
            order.
        *key: Non-negative integers that determine the draws, e.g. (seed, domain).

    Raises:
        SceneError: No image has any class.
    """
    return _shuffled_draws(classes.tobytes(), classes.shape, num_draws, key)


@lru_cache(maxsize=2)
def _shuffled_draws(present: bytes, shape: tuple[int, ...], num_draws: int, key: tuple[int, ...]) -> tuple[int, ...]:
    from ripu.loading.order import seed_of  # imports torch, which the processes that read labels do not need

    classes = np.frombuffer(present, dtype=np.bool_).reshape(shape)
    order = balanced_draws(classes, num_draws, seed_of(*key, 0))
    return tuple(np.random.default_rng(seed_of(*key, 1)).permutation(order).tolist())


def balanced_draws(classes: NDArray[np.bool_], num_draws: int, seed: int) -> NDArray[np.int64]:
    """Return class-balanced draws in order, (num_draws,) int64 image indices, from (N, C) classes of each image.

    Each class has a list of its images, shuffled again whenever all of it has been drawn. A class without an image is
    never picked, an image without a class never drawn.

    Raises:
        SceneError: No image has any class.

    >>> sorted(set(balanced_draws(np.array([[True, False], [True, True], [False, False]]), 100, 0).tolist()))
    [0, 1]
    """
    exists = classes.any(axis=0)
    if not exists.any():
        raise SceneError(
            "protocol.source_sampling=class_balanced: no source label contains any of the classes; check the labels "
            "and the class table, or use protocol.source_sampling=uniform"
        )
    rng = np.random.default_rng(seed)
    lists = [np.flatnonzero(column) for column in classes.T]
    waiting: list[list[int]] = [[] for _ in lists]
    held = [np.flatnonzero(row) for row in classes]
    order = np.empty(num_draws, dtype=np.int64)
    counts = np.zeros(classes.shape[1])
    for draw, luck in enumerate(rng.random(num_draws)):
        if draw % SUB_EPOCH == 0:
            counts[:] = 0.0
        shares = counts / max(counts.sum(), 1.0)
        reached = np.cumsum(np.where(exists, 1.0 / np.log(1.01 + shares), 0.0))
        picked = int(np.searchsorted(reached, luck * reached[-1], side="right"))
        if not waiting[picked]:
            waiting[picked] = rng.permutation(lists[picked]).tolist()
        image = waiting[picked].pop()
        order[draw] = image
        counts[held[image]] += 1.0
    return order


def class_index(
    scenes: SceneDataset, cache: Path | None, num_workers: int | None = None, progress: bool = True
) -> NDArray[np.bool_]:
    """Return the classes of each image, (N, C) bool, from disk if nothing has changed.

    The file in ``cache`` is named after the list of labels, their sizes and times of change, their decoder and the
    class table; if any of them changes, the labels are read again. If several processes need it at the same time (ranks
    of a job, jobs of a sweep), one reads the labels, and the others wait for its file.

    Args:
        scenes: Labelled scenes.
        cache: Folder that keeps the index, created if missing; None keeps nothing.
        num_workers: Number of processes; all cores unless given, 1 works in this process.
        progress: Show progress on stderr.

    Raises:
        SceneError: A scene has no label, or one cannot be read.
    """
    path = None if cache is None else _path(scenes, cache)
    if (kept := _kept(path, scenes)) is not None:
        return kept
    with contextlib.ExitStack() as lock:
        if path is not None:
            with contextlib.suppress(OSError):  # in a folder that cannot be written to, every process reads for itself
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f".{path.name}.lock")
                lock.enter_context(FileLock(beside, wait_for="the process that reads the same labels"))
        if (kept := _kept(path, scenes)) is not None:
            return kept  # another process has made it meanwhile
        chunks = [scenes.scenes[first : first + _CHUNK] for first in range(0, len(scenes), _CHUNK)]
        made = in_processes(_classes_of, [replace(scenes, scenes=chunk) for chunk in chunks], num_workers)
        rows = itertools.chain.from_iterable(made)
        index = np.stack(list(track(rows, "classes of source labels", len(scenes), "labels", is_enabled=progress)))
        if path is not None:
            try:
                with AtomicFile(path) as file:
                    np.save(file, index)
                    file.publish()
            except OSError as error:
                _log.warning(
                    "the class index cannot be kept in %s (%s); the next run reads the labels again", path.parent, error
                )
        return index


def is_index_kept(scenes: SceneDataset, cache: Path) -> bool:
    """Return whether :func:`class_index` would find its result in a folder.

    Raises:
        SceneError: A scene has no label.
    """
    return _path(scenes, cache).exists()


def never_drawn(scenes: SceneDataset, classes: NDArray[np.bool_]) -> list[Fault]:
    """Return the unreadable labels among the scenes without any class, which class-balanced sampling never meets."""
    faults = []
    for index in np.flatnonzero(~classes.any(axis=1)).tolist() if scenes.skips_unreadable else ():
        try:
            scenes.require_label(index)
        except SkippedFileError as skipped:
            faults.append(skipped.fault)
    return faults


def _path(scenes: SceneDataset, cache: Path) -> Path:
    labels: list[list[object]] = []
    for scene in scenes.scenes:
        if scene.label is None:
            raise SceneError(
                f"{scene.image_id} of {scenes.name} has no label file, so its classes are unknown; add one, or use "
                "protocol.source_sampling=uniform"
            )
        try:
            status = scene.label.stat()
        except OSError as error:
            if scenes.skips_unreadable:
                labels.append([os.path.abspath(scene.label), "unreadable"])
                continue
            raise SceneError(
                f"{scene.label} cannot be read ({error.strerror}); restore it or take the scene out of the data set"
            ) from error
        labels.append([os.path.abspath(scene.label), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    reading = f"{scenes.reading}, void where unreadable" if scenes.skips_unreadable else scenes.reading
    content = json.dumps({"version": INDEX_VERSION, "labels": labels, "reading": reading})
    return cache / f"classes-{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"


def _kept(path: Path | None, scenes: SceneDataset) -> NDArray[np.bool_] | None:
    if path is None:
        return None
    shape = len(scenes), scenes.taxonomy.num_classes
    try:
        kept = read_array(path, "bool", 2, most_bytes=shape[0] * shape[1] + 4096)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UntrustedError):
        _log.warning("%s is damaged; reading the labels again", path)
        return None
    return kept if kept.shape == shape else None


def _classes_of(scenes: SceneDataset) -> list[NDArray[np.bool_]]:
    """Return the rows of the class index of some scenes."""
    rows = []
    for index in range(len(scenes)):
        present = np.zeros(256, dtype=np.bool_)
        present[scenes.read_label(index).ravel()] = True
        rows.append(present[: scenes.taxonomy.num_classes])
    return rows
