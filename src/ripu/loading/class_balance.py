"""Class-balanced sampling of source images, as in the released code.

A draw picks a class, then the next image that contains it. With s_c the share of class c among the (image, class)
incidences of the images drawn so far in a sub-epoch of 3,000 draws, class c is picked with

    probability(c) proportional to 1 / log(1.01 + s_c),

so rare classes come up more often than images alone would have them. Which classes are in which image takes one pass
over the labels; the answer is kept on disk until a label, its list or the class table changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ripu.datasets.errors import Fault, SceneError, SkippedFileError
from ripu.datasets.scenes import SceneDataset
from ripu.io.reading import UntrustedError, read_array

SUB_EPOCH = 3000
"""Draws after which the shares of the classes are counted afresh."""

INDEX_VERSION = 1
"""Raised whenever the class index of the same files would come out otherwise."""

_CHUNK = 16
_log = logging.getLogger(__name__)


class ClassBalancedStream:
    """The source images of a whole run: class-balanced draws, then shuffled over all of the run.

    A pure function of the class index, the number of draws and the key.
    """

    def __init__(self, classes: NDArray[np.bool_], num_draws: int, *key: int) -> None:
        """Make the draws.

        Args:
            classes: (N, C) bool: which class is in which image.
            num_draws: Draws in the whole run, >= 1; with more processes or a larger batch it is another number, and so
                another order.
            *key: Non-negative integers that determine the draws, e.g. (seed, domain).

        Raises:
            SceneError: No image has any class.
        """
        present = np.ascontiguousarray(classes, dtype=np.bool_)
        self.order = _shuffled_draws(present.tobytes(), present.shape, num_draws, key)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        """The image index at a position 0 .. num_draws - 1.

        Raises:
            IndexError: The position is behind the last draw.
        """
        return int(self.order[position])


@lru_cache(maxsize=2)
def _shuffled_draws(present: bytes, shape: tuple[int, ...], num_draws: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    from ripu.loading.order import seed_of  # imports torch, which the processes that read labels do without

    classes = np.frombuffer(present, dtype=np.bool_).reshape(shape)
    order = balanced_draws(classes, num_draws, seed_of(*key, 0))
    shuffled: NDArray[np.int64] = np.random.default_rng(seed_of(*key, 1)).permutation(order)
    shuffled.flags.writeable = False  # shared by every stream of the same key
    return shuffled


def balanced_draws(classes: NDArray[np.bool_], num_draws: int, seed: int) -> NDArray[np.int64]:
    """Class-balanced draws in the order in which they are made.

    Each class has a list of its images, shuffled anew whenever all of it has been drawn. A class without an image is
    never picked, an image without a class never drawn.

    Args:
        classes: (N, C) bool: which class is in which image.
        num_draws: Number of draws.
        seed: Seed of the draws.

    Returns:
        (num_draws,) int64 image indices.

    Raises:
        SceneError: No image has any class.

    >>> sorted(set(balanced_draws(np.array([[True, False], [True, True], [False, False]]), 100, 0).tolist()))
    [0, 1]
    """
    exists = classes.any(axis=0)
    if not exists.any():
        raise SceneError(
            "protocol.source_sampling=class_balanced: no source label holds any class; check the labels and the class "
            "table, or use protocol.source_sampling=uniform"
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
    scenes: SceneDataset,
    cache: Path | None,
    num_workers: int | None = None,
    progress: bool = True,
) -> NDArray[np.bool_]:
    """Which classes are in which image, from disk where nothing has changed since it was last asked.

    The file in ``cache`` is named by the list of labels, their sizes and times of change, how they are decoded and the
    class table; with any of them changed it is not found, and the labels are read again. It is written atomically. Of
    processes that want it at the same time (the ranks of a job, the jobs of a sweep) one reads the labels, and the others
    wait for its file.

    Args:
        scenes: Labelled scenes.
        cache: Folder that keeps the index, made where it is missing; None keeps nothing.
        num_workers: Processes; all cores unless given, 1 works in this process.
        progress: Whether to report on stderr.

    Returns:
        (N, C) bool.

    Raises:
        SceneError: A scene has no label, or one cannot be read.
    """
    path = None if cache is None else Path(cache) / f"classes-{_fingerprint(scenes)}.npy"
    if path is not None and (kept := _kept(path, (len(scenes), scenes.taxonomy.num_classes))) is not None:
        return kept
    with _alone(path):
        if path is not None and (kept := _kept(path, (len(scenes), scenes.taxonomy.num_classes))) is not None:
            return kept  # another process has made it meanwhile
        return _make(scenes, path, num_workers, progress)


def is_index_kept(scenes: SceneDataset, cache: Path) -> bool:
    """Whether :func:`class_index` would find its answer in a folder.

    Raises:
        SceneError: A scene has no label.
    """
    return (Path(cache) / f"classes-{_fingerprint(scenes)}.npy").exists()


def never_drawn(scenes: SceneDataset, classes: NDArray[np.bool_]) -> list[Fault]:
    """Return the unreadable labels among the scenes without any class, which class-balanced sampling never meets."""
    faults = []
    for index in np.flatnonzero(~classes.any(axis=1)).tolist() if scenes.skips_unreadable else ():
        try:
            scenes.require_label(index)
        except SkippedFileError as skipped:
            faults.append(skipped.fault)
    return faults


def _make(scenes: SceneDataset, path: Path | None, num_workers: int | None, progress: bool) -> NDArray[np.bool_]:
    parts = [replace(scenes, scenes=scenes.scenes[first : first + _CHUNK]) for first in range(0, len(scenes), _CHUNK)]
    rows = list(_report(_work(parts, num_workers), len(scenes), progress))
    index: NDArray[np.bool_] = np.stack(rows)
    if path is not None:
        _keep(path, index)
    return index


def _fingerprint(scenes: SceneDataset) -> str:
    labels: list[list[object]] = []
    for scene in scenes.scenes:
        if scene.label is None:
            raise SceneError(
                f"{scene.image_id} of {scenes.name} has no label file, so its classes are unknown; give one, or use "
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
    content = {
        "version": INDEX_VERSION,
        "labels": labels,
        "reading": f"{scenes.reading}, void where unreadable" if scenes.skips_unreadable else scenes.reading,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    try:
        kept = read_array(path, "bool", 2, most_bytes=shape[0] * shape[1] + 4096)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UntrustedError):
        _log.warning("%s is damaged; reading the labels again", path)
        return None
    return kept if kept.shape == shape else None


@contextlib.contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Hold the lock beside a file; the kernel gives it back when a process ends, however it ends."""
    try:
        import fcntl

        if path is None:
            raise OSError("nothing is kept")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(f".{path.name}.lock"), "w")  # noqa: SIM115
    except (ImportError, OSError):  # no such locks, or nowhere to keep anything: every process reads for itself
        yield
        return
    with file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep(path: Path, index: NDArray[np.bool_]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.save(file, index)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _log.warning(
            "the class index cannot be kept in %s (%s); the next run reads the labels again", path.parent, error
        )


def _classes_of(scenes: SceneDataset) -> list[NDArray[np.bool_]]:
    """The rows of the class index of some scenes."""
    rows = []
    for index in range(len(scenes)):
        present = np.zeros(256, dtype=np.bool_)
        present[scenes.read_label(index).ravel()] = True
        rows.append(present[: scenes.taxonomy.num_classes])
    return rows


def _work(parts: list[SceneDataset], num_workers: int | None) -> Iterator[NDArray[np.bool_]]:
    workers = min(num_workers or _num_cores(), len(parts))
    if workers <= 1 or (num_workers is None and len(parts) <= 4):
        for part in parts:
            for index in range(len(part)):
                yield from _classes_of(replace(part, scenes=part.scenes[index : index + 1]))
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            for rows in pool.map(_classes_of, parts):
                yield from rows
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(rows: Iterable[NDArray[np.bool_]], total: int, progress: bool) -> Iterator[NDArray[np.bool_]]:
    """Pass the rows on, with a bar on a terminal and a line now and then elsewhere."""
    if not progress:
        yield from rows
        return
    if sys.stderr.isatty():
        yield from tqdm(rows, total=total, desc="classes of source labels", unit="label")
        return
    start = last = time.monotonic()
    for number, row in enumerate(rows, 1):
        yield row
        now = time.monotonic()
        if now - last > 5:
            last = now
            print(f"classes of source labels: {number}/{total}, {now - start:.0f} s", file=sys.stderr, flush=True)
