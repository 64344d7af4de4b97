"""Files of the generated streets: layouts, parallel work and the record of complete sets.

A set is complete when `streets.json` lists it; that file is written last, and atomically. While a set is being made,
`streets.partial.json` contains its generator version and size, so that interrupted work can be resumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.streets.canvas import Dice
from ripu.datasets.streets.render import render
from ripu.datasets.streets.stage import ID
from ripu.datasets.streets.styles import SOURCE, SYNTHIA, TARGET, Style
from ripu.datasets.taxonomy import CITYSCAPES19, SYNTHIA16
from ripu.io.console import track
from ripu.io.errors import ConfigError
from ripu.io.lock import FileLock
from ripu.io.process_pool import in_processes
from ripu.io.reading import UntrustedError, read_json
from ripu.io.writing import TMP_PREFIX, write_bytes, write_json

GENERATOR_VERSION = 1
"""Raised whenever a pixel of any scene changes."""

MANIFEST = "streets.json"
_PARTIAL = "streets.partial.json"
_TRAIN_CITIES = ("altmoor", "birkenfurt", "lindau", "rosenbach", "weidenau")
_VAL_CITIES = ("falkensee", "steinbruck")
_CHUNK = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneSet:
    """A set of scenes.

    Attributes:
        name: Name in the manifest.
        domain: Number that seeds its scenes.
        style: Look of the scenes.
        files: Scene number -> image path and label path, relative to the folder of the seed.
    """

    name: str
    domain: int
    style: Style
    files: Callable[[int], tuple[str, str]]


def _gtav_files(index: int) -> tuple[str, str]:
    return f"gtav/images/{index + 1:05d}.png", f"gtav/labels/{index + 1:05d}.png"


def _synthia_files(index: int) -> tuple[str, str]:
    base = "synthia/RAND_CITYSCAPES"
    return f"{base}/RGB/{index:07d}.png", f"{base}/GT/LABELS/{index:07d}.png"


def _cityscapes_files(split: str, cities: tuple[str, ...], index: int) -> tuple[str, str]:
    city = cities[index % len(cities)]
    stem = f"{split}/{city}/{city}_{index // len(cities):06d}_000019"
    return f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", f"cityscapes/gtFine/{stem}_gtFine_labelIds.png"


SETS: Mapping[str, SceneSet] = {
    "gtav": SceneSet("gtav", 1, SOURCE, _gtav_files),
    "cityscapes_train": SceneSet("cityscapes_train", 2, TARGET, partial(_cityscapes_files, "train", _TRAIN_CITIES)),
    "cityscapes_val": SceneSet("cityscapes_val", 3, TARGET, partial(_cityscapes_files, "val", _VAL_CITIES)),
    "synthia": SceneSet("synthia", 4, SYNTHIA, _synthia_files),
}
"""The sets by name."""


@dataclass(frozen=True)
class _Job:
    """Scenes of one set, to be made by one worker."""

    folder: str
    set_name: str
    indices: tuple[int, ...]
    seed: int
    height: int
    width: int
    keep: bool  # whether existing files may be kept


@dataclass(frozen=True)
class _Made:
    """The record of one scene."""

    set_name: str
    index: int
    sha256: str
    num_bytes: tuple[int, int]


def generate(
    root: str | Path,
    seed: int = 0,
    num_source: int = 400,
    num_target: int = 150,
    num_val: int = 100,
    height: int = 256,
    width: int = 512,
    num_workers: int | None = None,
    progress: bool = True,
    layouts: tuple[str, ...] = ("gtav",),
) -> Path:
    """Make the street scenes, unless they exist already.

    Scene i of a set depends on (seed, set, i, height, width) only: not on the counts, the number of workers or the
    machine. Missing, truncated and unrecorded scenes are made; larger counts extend a folder.

    Args:
        root: The folder in which ``seed{seed}`` lies.
        seed: Seed, >= 0.
        num_source: Number of scenes of each source.
        num_target: Number of scenes of the target's training split.
        num_val: Number of scenes of the target's validation split.
        height: Rows, >= 32.
        width: Columns, >= 64.
        num_workers: Number of processes; all cores unless given, 1 works in this process.
        progress: Whether to show progress on stderr.
        layouts: Sources to write: ``gtav``, ``synthia`` or both.

    Returns:
        The folder ``root/seed{seed}`` with ``cityscapes`` and the layouts.

    Raises:
        ConfigError: An argument is out of range, or the folder was made by another generator version, with another
            size, or with more scenes.
    """
    _check_arguments(seed, num_source, num_target, num_val, height, width, num_workers, layouts)
    folder = Path(root) / f"seed{seed}"
    counts: dict[str, int] = {"cityscapes_train": num_target, "cityscapes_val": num_val}
    counts.update((name, num_source) for name in ("gtav", "synthia") if name in layouts)
    head = {"generator_version": GENERATOR_VERSION, "seed": seed, "height": height, "width": width}
    if not _is_complete(folder, head, counts):
        Path(root).mkdir(parents=True, exist_ok=True)
        # A second process waits, and then finds the scenes that the first has made.
        with FileLock(Path(root) / f".seed{seed}.lock", wait_for=f"the process that makes the scenes of {folder}"):
            for half in folder.rglob(f"{TMP_PREFIX}*"):  # of a process that was killed
                with contextlib.suppress(OSError):
                    half.unlink()
            _make_missing(folder, head, counts, num_workers, progress)
    return folder


def _is_complete(folder: Path, head: Mapping[str, int], counts: Mapping[str, int]) -> bool:
    """Return whether everything exists; needs no permission to write.

    Raises:
        ConfigError: The folder was made by another generator version, with another size, or with more scenes.
    """
    known = _known(folder, head, counts)
    return (
        bool(known)
        and not (folder / _PARTIAL).exists()
        and not any(_missing(folder, SETS[name], count, known.get(name, {})) for name, count in counts.items())
    )


def _known(folder: Path, head: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, dict[str, list[Any]]]:
    """Return the recorded scenes by set and number."""
    manifest = _read_json(folder / MANIFEST)
    started = _read_json(folder / _PARTIAL)
    for record, name in ((manifest, MANIFEST), (started, _PARTIAL)):
        if record is not None:
            _check_record(record, head, folder, name)
    known: dict[str, dict[str, list[Any]]] = {}
    if manifest is not None:
        known = {name: dict(record["scenes"]) for name, record in manifest["sets"].items()}
    for name, count in counts.items():
        if len(known.get(name, {})) > count:
            raise ConfigError(
                f"{folder} contains {len(known[name])} scenes of {name} but {count} were asked for, and loaders read "
                f"every file of a folder; ask for {len(known[name])} or more, or give another root"
            )
    return known


def _make_missing(
    folder: Path, head: Mapping[str, int], counts: Mapping[str, int], num_workers: int | None, progress: bool
) -> None:
    """Make and record the missing scenes."""
    known = _known(folder, head, counts)
    manifest, started = _read_json(folder / MANIFEST), _read_json(folder / _PARTIAL)
    missing = {name: _missing(folder, SETS[name], count, known.get(name, {})) for name, count in counts.items()}
    total = sum(len(indices) for indices in missing.values())
    if not total and started is None and manifest is not None:
        return
    lost = sum(1 for name in counts for index in missing[name] if str(index) in known.get(name, {}))
    if lost:
        _log.warning("%s is incomplete: %d recorded scenes are missing or cut short; making them again", folder, lost)
        if progress:
            print(f"streets: {folder} is incomplete, making {lost} scenes again", file=sys.stderr)
    elif started is not None and progress:
        print(f"streets: {folder} was interrupted, continuing", file=sys.stderr)
    elif manifest is None and started is None and folder.exists() and any(folder.iterdir()) and progress:
        print(f"streets: {folder} has files but no record of them, making all scenes again", file=sys.stderr)

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _PARTIAL, head, durable=True)
    jobs = [
        _Job(
            str(folder),
            name,
            tuple(indices[k : k + _CHUNK]),
            head["seed"],
            head["height"],
            head["width"],
            started is not None,
        )
        for name, indices in missing.items()
        for k in range(0, len(indices), _CHUNK)
    ]
    scenes = itertools.chain.from_iterable(in_processes(_make, jobs, num_workers, partial(cv2.setNumThreads, 1)))
    for made in track(scenes, "streets", total, "scenes", is_enabled=progress and total > 0):
        known.setdefault(made.set_name, {})[str(made.index)] = [made.sha256, *made.num_bytes]
    write_json(folder / MANIFEST, {**head, **_summary(known)}, durable=True)
    (folder / _PARTIAL).unlink(missing_ok=True)


def _check_arguments(
    seed: int,
    num_source: int,
    num_target: int,
    num_val: int,
    height: int,
    width: int,
    num_workers: int | None,
    layouts: tuple[str, ...],
) -> None:
    for name, value, least in (
        ("seed", seed, 0),
        ("num_source", num_source, 1),
        ("num_target", num_target, 1),
        ("num_val", num_val, 1),
        ("height", height, 32),
        ("width", width, 64),
        ("num_workers", 1 if num_workers is None else num_workers, 1),
    ):
        if value < least:
            raise ConfigError(f"streets: {name}={value} is too small; give at least {least}")
    unknown = [name for name in layouts if name not in ("gtav", "synthia")]
    if unknown or not layouts:
        raise ConfigError(f"streets: layouts={tuple(layouts)!r} is not understood; give 'gtav', 'synthia' or both")


def _check_record(record: Mapping[str, Any], head: Mapping[str, int], folder: Path, name: str) -> None:
    for key, value in head.items():
        if record.get(key) != value:
            cause = (
                f"this is generator version {value}" if key == "generator_version" else f"{key}={value} was asked for"
            )
            raise ConfigError(
                f"{folder / name} says {key}={record.get(key)!r} but {cause}; the two cannot share a folder: "
                f"delete {folder} or give another root"
            )


def _missing(folder: Path, scenes: SceneSet, count: int, known: Mapping[str, list[Any]]) -> list[int]:
    """Return the numbers of scenes that are not recorded, or whose files are missing or differ in size."""
    sizes: dict[str, int] = {}
    for parent in sorted({str(Path(path).parent) for index in range(count) for path in scenes.files(index)}):
        if (folder / parent).is_dir():
            with os.scandir(folder / parent) as entries:
                sizes |= {f"{parent}/{entry.name}": entry.stat().st_size for entry in entries}
    missing = []
    for index in range(count):
        image, label = scenes.files(index)
        record = known.get(str(index))
        if record is None or [sizes.get(image), sizes.get(label)] != record[1:]:
            missing.append(index)
    return missing


def _summary(known: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, Any]:
    """Return the sets with one digest each, and one digest over all of them."""
    sets: dict[str, Any] = {}
    overall = hashlib.sha256()
    for name in sorted(known):
        scenes = {key: known[name][key] for key in sorted(known[name], key=int)}
        digest = hashlib.sha256("".join(str(record[0]) for record in scenes.values()).encode()).hexdigest()
        overall.update(f"{name} {digest}\n".encode())
        sets[name] = {"num_scenes": len(scenes), "sha256": digest, "scenes": scenes}
    return {"sha256": overall.hexdigest(), "sets": sets}


def _make(job: _Job) -> list[_Made]:
    """Make, or keep if allowed, the scenes of a job."""
    return [_make_scene(job, index) for index in job.indices]


def _make_scene(job: _Job, index: int) -> _Made:
    scenes = SETS[job.set_name]
    paths = [Path(job.folder) / name for name in scenes.files(index)]
    if job.keep and all(path.exists() for path in paths):
        kept = _digest_of_files(job.set_name, *paths)
        if kept is not None:
            return _Made(job.set_name, index, kept, (paths[0].stat().st_size, paths[1].stat().st_size))
    image, label, instance = render(scenes.style, Dice(job.seed, scenes.domain, index), job.height, job.width)
    stored, encoded = _encode_label(job.set_name, label, instance)
    data = (_encode(np.ascontiguousarray(image[..., ::-1])), encoded)
    for path, content in zip(paths, data, strict=True):
        write_bytes(path, content)
    return _Made(job.set_name, index, _digest(image, stored), (len(data[0]), len(data[1])))


def _digest(image: NDArray[np.uint8], label: NDArray[Any]) -> str:
    """Return the sha256 over the pixels of an image (R, G, B) and of its label as little-endian bytes."""
    state = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    state.update(np.ascontiguousarray(label.astype(label.dtype.newbyteorder("<"))).tobytes())
    return state.hexdigest()


def _digest_of_files(set_name: str, image_path: Path, label_path: Path) -> str | None:
    """Return the digest of an image and its label on disk; None if one cannot be read."""
    try:
        with Image.open(image_path) as file:
            image = np.asarray(file)
        if set_name == "synthia":
            wide = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
            return None if wide is None else _digest(image, wide[..., ::-1])
        with Image.open(label_path) as file:
            return _digest(image, np.asarray(file))
    except (OSError, SyntaxError):
        return None


def _encode_label(set_name: str, label: NDArray[np.uint8], instance: NDArray[np.uint16]) -> tuple[NDArray[Any], bytes]:
    """Return the label as it is stored, and as a file."""
    if set_name == "synthia":
        stored = np.zeros((*label.shape, 3), dtype=np.uint16)
        stored[..., 0] = _TO_SYNTHIA[label]
        stored[..., 1] = instance
        return stored, _encode(np.ascontiguousarray(stored[..., ::-1]))
    if set_name == "gtav":
        picture = Image.frombytes("P", label.shape[::-1], label.tobytes())
        picture.putpalette(_PALETTE)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return label, buffer.getvalue()
    return label, _encode(label)


def _tables() -> tuple[NDArray[np.uint16], list[int]]:
    to_synthia = np.zeros(256, dtype=np.uint16)
    for disk_id, train_id in SYNTHIA16.disk_to_train.items():
        to_synthia[ID[SYNTHIA16.class_names[train_id]]] = disk_id
    palette = [0] * 768
    for label_id, train_id in CITYSCAPES19.disk_to_train.items():
        palette[3 * label_id : 3 * label_id + 3] = CITYSCAPES19.class_colors[train_id]
    return to_synthia, palette


_TO_SYNTHIA, _PALETTE = _tables()


def _encode(array: NDArray[Any]) -> bytes:
    done, buffer = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done
    return buffer.tobytes()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the record, or None if there is none that can be read."""
    try:
        content = read_json(path)
    except (FileNotFoundError, UntrustedError):
        return None
    return content if isinstance(content, dict) else None
