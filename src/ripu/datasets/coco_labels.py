"""Labels in a COCO file: instances (masks and polygons) or panoptic (a PNG of segments for each image).

A label is the class of each pixel. Categories have the names of classes, or ids that ``dataset.ids`` names; a crowd
counts as its category. Where instances overlap, the smaller one is in front. Pixels outside all of them are void, or of
the class ``background`` if there is one. Formats: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.coco_masks import Part, part_of_polygons, part_of_runs, runs_of_text
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import open_image
from ripu.datasets.label_readers import BACKGROUND, position
from ripu.datasets.pairing import composed
from ripu.datasets.taxonomy import VOID
from ripu.io.reading import UntrustedError, read_json

_MOST_BYTES = 1 << 30  # the instances of COCO's training images are 450 MB
_BLOCK_ROWS = 256  # of a PNG of segments
_VOID_NAME = "void"  # the category under which this package exports void

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Image:
    """The label of an image: its size, its segments (train id, mask or segment id), and the file that they are of."""

    size: tuple[int, int]
    source: Path
    segments: tuple[tuple[int, Any], ...]
    is_panoptic: bool


@dataclass
class CocoLabels:
    """Reader of labels in COCO files.

    Attributes:
        names: The classes in the order of train ids.
        ids: Id of a category -> class; None if categories have the names of classes.
        is_strict: True if a category without a class is an error; otherwise it is void.
        images: Label of a scene -> its content: the PNG of its segments, or for instances the image itself.
        sources: The files, with the facts that tell whether they have changed.
    """

    names: tuple[str, ...]
    ids: Mapping[int, str] | None = None
    is_strict: bool = True
    images: dict[Path, _Image] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return a text that differs if another label may be read, for cache keys."""
        digest = hashlib.sha256(repr((self.names, self.ids, self.is_strict, self.sources)).encode()).hexdigest()
        return f"CocoLabels({digest})"

    def find(self, path: Path, images: Sequence[Path], key: str) -> dict[Path, Path]:
        """Read a COCO file, and return the label of each of ``images`` that it has one for.

        Raises:
            SceneError: The file cannot be read or is not a COCO file, a category has no class, or an image is unclear.
        """
        content = _content(path, key)
        try:
            owners = _owners(content["images"], images, path)
            entries = content["annotations"]
            is_panoptic = any("segments_info" in entry for entry in entries[:1])
            classes = self._classes(content["categories"], path)
            found = (
                _panoptic(path, entries, owners, classes) if is_panoptic else _instances(path, entries, owners, classes)
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, SceneError):
                raise
            raise SceneError(
                f"{key}={path} is not a COCO file of instances or of panoptic segments ({type(error).__name__}: "
                f"{error}); export it again"
            ) from error
        status = path.stat()
        self.sources.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        self.images |= dict(found.values())
        return {image: label for image, (label, _) in found.items()}

    def _classes(self, categories: Iterable[Mapping[str, Any]], path: Path) -> dict[int, int]:
        """Return category id -> train id, 255 for void."""
        table: dict[int, int] = {}
        strange: list[str] = []
        ids = None if self.ids is None else {int(number): name for number, name in self.ids.items()}
        for category in categories:
            number, name = int(category["id"]), str(category["name"])
            if ids is not None and number in ids:
                table[number] = position(ids[number], self.names, f"dataset.ids.{number}")
            elif ids is None and name in self.names:
                table[number] = self.names.index(name)
            else:
                table[number] = VOID
                if name != _VOID_NAME:
                    strange.append(f"{name} ({number})")
        if strange and self.is_strict:
            where = "dataset.ids" if ids is not None else f"dataset.classes {list(self.names)}"
            raise SceneError(
                f"{path} has categories without a class in {where}: {strange[:5]}; add them, or set "
                "dataset.ignore_ids=null, which makes them void"
            )
        if set(table.values()) <= {VOID}:
            raise SceneError(f"{path}: no category has a class; the categories are {strange[:10]}")
        return table

    def size_of(self, label: Path) -> tuple[int, int]:
        """Return (height, width) of the label of an image."""
        return self.images[label].size

    def __call__(self, label: Path) -> NDArray[np.integer]:
        """Return the (H, W) train ids of a label, 255 for void.

        Raises:
            SceneError: A mask is damaged or of another size, or a PNG has segments that its file does not list.
        """
        one = self.images[label]
        rest = self.names.index(BACKGROUND) if BACKGROUND in self.names else VOID
        result = np.full(one.size, rest, dtype=np.uint8)
        if one.is_panoptic:
            _paint_segments(label, one, result)
            return result
        front = np.full(one.size, np.iinfo(np.uint32).max, dtype=np.uint32)  # area of the instance seen at each pixel
        for number, (train_id, shape) in enumerate(one.segments):
            try:
                part = _part(shape, one.size)
            except (ValueError, TypeError, OverflowError) as error:
                raise SceneError(
                    f"{one.source}: annotation {number} of {label.name} is damaged: {error}; correct it"
                ) from error
            if part is None:
                continue
            box, area = (part.rows, part.columns), np.count_nonzero(part.mask)
            is_seen = part.mask & (front[box] >= area)  # of equal ones, the last in the file
            result[box][is_seen], front[box][is_seen] = train_id, area
        return result


def is_coco_file(pattern: str) -> bool:
    """Return whether a pattern of labels is a COCO file."""
    return pattern.lower().endswith(".json")


def _content(path: Path, key: str) -> Any:
    try:
        content = read_json(path, _MOST_BYTES)
    except (UntrustedError, OSError) as error:
        raise SceneError(f"{key}: {path} cannot be read ({error}); name a COCO file below dataset.root") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise SceneError(f"{key}: {path} lacks images, annotations or categories, so it is not a COCO file of labels")
    return content


def _owners(
    listed: Iterable[Mapping[str, Any]], images: Sequence[Path], path: Path
) -> dict[Any, tuple[Path, tuple[int, int]]]:
    """Return image id -> image and (height, width); paths in the file are not trusted, only their ends count."""
    by_name: dict[str, list[Path]] = {}
    for image in images:
        by_name.setdefault(composed(image.name), []).append(image)
    owners: dict[Any, tuple[Path, tuple[int, int]]] = {}
    missing: list[str] = []
    taken: set[Path] = set()
    for entry in listed:
        name = PurePosixPath(composed(str(entry["file_name"]).replace("\\", "/")))
        options = by_name.get(name.name, [])
        for depth in range(2, len(name.parts) + 1):
            if len(options) > 1:
                end = name.parts[-depth:]
                options = [one for one in options if PurePosixPath(composed(one.as_posix())).parts[-depth:] == end]
        if len(options) > 1:
            raise SceneError(
                f"{path}: {name} fits several images, {options[0]} and {options[1]}; give more of its path"
            )
        if not options:
            missing.append(str(name))
            continue
        size = int(entry["height"]), int(entry["width"])
        if min(size) < 1 or size[0] * size[1] > 2**28:
            raise SceneError(f"{path}: {name} is {size[0]} x {size[1]} pixels large, which is impossible; correct it")
        if options[0] in taken:
            raise SceneError(f"{path} lists {options[0]} twice; keep one entry")
        taken.add(options[0])
        owners[entry["id"]] = options[0], size
    if missing:
        _log.warning("%s: %d of its images are not there: %s", path, len(missing), missing[:3])
    return owners


def _panoptic(
    path: Path, entries: Sequence[Any], owners: Mapping[Any, Any], classes: Mapping[int, int]
) -> dict[Path, tuple[Path, _Image]]:
    """Return image -> label and its content; the PNG files lie in a folder named after the file."""
    folder = path.with_suffix("")
    found: dict[Path, tuple[Path, _Image]] = {}
    users: dict[Path, Path] = {}
    for entry in entries:
        if entry["image_id"] not in owners:
            continue
        image, size = owners[entry["image_id"]]
        label = folder / PurePosixPath(str(entry["file_name"]).replace("\\", "/")).name
        if not label.is_file():
            raise SceneError(f"{label} does not exist: the PNG files of {path} belong in the folder {folder}")
        if image in found:
            raise SceneError(f"{path} lists the segments of {image} twice; keep one entry")
        if label in users:
            raise SceneError(
                f"{path}: {users[label]} and {image} have the same segments, {label}; give each its own PNG"
            )
        users[label] = image
        segments = tuple((classes[segment["category_id"]], int(segment["id"])) for segment in entry["segments_info"])
        found[image] = label, _Image(size, path, segments, is_panoptic=True)
    return found


def _instances(
    path: Path, entries: Sequence[Any], owners: Mapping[Any, Any], classes: Mapping[int, int]
) -> dict[Path, tuple[Path, _Image]]:
    """Return image -> label (the image itself) and its content; an image without instances has a label, too."""
    segments: dict[Any, list[tuple[int, Any]]] = {number: [] for number in owners}
    for entry in entries:
        if entry["image_id"] in segments:
            segments[entry["image_id"]].append((classes[entry["category_id"]], entry["segmentation"]))
    return {
        image: (image, _Image(size, path, tuple(segments[number]), is_panoptic=False))
        for number, (image, size) in owners.items()
    }


def _paint_segments(label: Path, one: _Image, result: NDArray[np.uint8]) -> None:
    with open_image(label) as file:
        rgb = np.asarray(file.convert("RGB"))
    if rgb.shape[:2] != one.size:
        raise SceneError(f"{label} is {rgb.shape[1]} x {rgb.shape[0]} pixels, but {one.source} says {one.size[::-1]}")
    table = {number: train_id for train_id, number in one.segments}
    strange: set[int] = set()
    for top in range(0, one.size[0], _BLOCK_ROWS):
        block, target = rgb[top : top + _BLOCK_ROWS].astype(np.uint32), result[top : top + _BLOCK_ROWS]
        numbers = block[..., 0] | block[..., 1] << 8 | block[..., 2] << 16
        found, places = np.unique(numbers, return_inverse=True)
        strange.update(number for number in found.tolist() if number and number not in table)
        inside = numbers != 0
        train_ids = np.array([table.get(number, VOID) for number in found.tolist()], dtype=np.uint8)
        target[inside] = train_ids[places].reshape(target.shape)[inside]
    if strange:
        raise SceneError(
            f"{label} has segments that {one.source} does not list: {sorted(strange)[:5]}; copy both from the same "
            "export"
        )


def _part(shape: Any, size: tuple[int, int]) -> Part | None:
    """Return the pixels of an instance: polygons, or runs column by column as numbers or as text; None for none."""
    if isinstance(shape, list):
        return part_of_polygons(shape, size)
    if not isinstance(shape, dict) or "counts" not in shape:
        raise ValueError("it has neither polygons nor run lengths")
    if list(shape.get("size", size)) != list(size):
        raise ValueError(f"its mask is of size {shape['size']}, and the image {list(size)}")
    counts = shape["counts"]
    runs = runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list):
        raise ValueError("its run lengths are neither a list nor a text")
    return part_of_runs(runs, size)
