"""A user's own data: images and labels found by folders or globs; classes, ids and colours given in a yaml."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError, SkippedFileError
from ripu.datasets.image_files import open_image, read_header, read_ids
from ripu.datasets.pairing import Patterns, choose, label_fit, matches
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import VOID, Taxonomy

CHECKED_LABELS = 20  # spread over the data set, decoded on opening to catch a wrong class map early

Color = tuple[int, int, int]
Classes = Mapping[str, Sequence[int]] | Sequence[str]
_log = logging.getLogger(__name__)


def make_taxonomy(
    name: str,
    classes: Classes,
    ids: Mapping[int, str] | None = None,
    subsets: Mapping[str, Sequence[str]] | None = None,
) -> Taxonomy:
    """Make the class table of a user's own data.

    Args:
        name: Its name.
        classes: Class name -> RGB colour, in the order of train ids; or only names, to choose the colours
            automatically.
        ids: Id in label files -> class name; a class may have several. None: 0, 1, ... in the order of classes.
        subsets: Named groups of classes over which a further mean is reported.

    Raises:
        SceneError: The classes are none or more than 254, a colour is not an RGB triple, or a name is unknown.

    >>> make_taxonomy("mine", ["road", "car"], {7: "road", 8: "road", 26: "car"}).disk_to_train
    {7: 0, 8: 0, 26: 1}
    """
    names = tuple(_text(given, "dataset.classes") for given in classes)
    if not 1 <= len(names) < VOID or len(set(names)) != len(names):
        raise SceneError(f"dataset.classes={list(names)} must be 1 to 254 different names")
    if isinstance(classes, Mapping):
        colors = tuple(_color(color, f"dataset.classes.{key}") for key, color in classes.items())
    else:
        colors = tuple(map(_made_up_color, range(len(names))))
    disk_to_train = {} if ids is not None else {train_id: train_id for train_id in range(len(names))}
    for disk_id, class_name in (ids or {}).items():
        if isinstance(disk_id, str) and disk_id.isdigit():  # quoted, or from the command line
            disk_id = int(disk_id)
        if not isinstance(disk_id, int) or not 0 <= disk_id < 256:
            raise SceneError(f"dataset.ids has the id {disk_id!r}; ids of classes are whole numbers in 0..255")
        disk_to_train[disk_id] = _position(class_name, names, f"dataset.ids.{disk_id}")
    groups = {str(group): tuple(map(str, members)) for group, members in (subsets or {}).items()}
    for group, members in groups.items():
        for member in members:
            _position(member, names, f"dataset.subsets.{group}")
    return Taxonomy(name, names, colors, disk_to_train, groups)


def _text(name: object, key: str) -> str:
    """Return a class name as it was written; refuse what yaml reads as a truth value, a float or null."""
    if isinstance(name, (bool, float)) or name is None:
        shown = "null" if name is None else str(name).lower() if isinstance(name, bool) else name
        raise SceneError(
            f"{key} has a name that yaml does not read as text but as {shown} (as it does yes, no, on, off, null and "
            "1e3); put it into quotes, e.g. 'yes'"
        )
    return str(name)


@dataclass(frozen=True)
class IdLabels:
    """Reader of id labels that refuses undeclared ids.

    Attributes:
        known: Ids of classes and of void; None accepts all, and those without a class are void.
    """

    known: tuple[int, ...] | None

    def __call__(self, path: Path) -> NDArray[np.integer]:
        """Return the (H, W) ids of a label file; a SceneError refuses other images and unknown ids."""
        ids = read_ids(path)
        if self.known is not None and (strange := sorted(set(np.unique(ids).tolist()) - set(self.known))):
            raise SceneError(
                f"{path} contains the ids {strange[:10]}, which are neither in dataset.ids (null: 0, 1, ... in the "
                f"order of dataset.classes) nor in dataset.ignore_ids; the known ids are {_ranges(self.known)}. Add "
                "them to one of the two (dataset.ignore_ids=null ignores every id that has no class)"
            )
        return ids


@dataclass(frozen=True)
class ColorLabels:
    """Reader of colour labels; the ids it returns are train ids.

    Attributes:
        colors: RGB colours with their train ids.
        ignored: Colours of void; None ignores every colour that has no class.
    """

    colors: tuple[tuple[Color, int], ...]
    ignored: tuple[Color, ...] | None

    def __call__(self, path: Path) -> NDArray[np.integer]:
        """Return the (H, W) train ids of a label file, 255 for void; a SceneError refuses undeclared colours."""
        with open_image(path) as file:
            rgb = np.asarray(file.convert("RGB")).astype(np.uint32)
        codes = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        found, places = np.unique(codes, return_inverse=True)
        table = {_code(color): train_id for color, train_id in self.colors}
        void = {_code(color) for color in self.ignored or ()}
        strange = [code for code in found.tolist() if code not in table and code not in void]
        if strange and self.ignored is not None:
            shown = [[code >> 16, code >> 8 & 255, code & 255] for code in strange[:5]]
            raise SceneError(
                f"{path} contains {len(strange)} colours that are neither in the colour map nor in "
                f"dataset.ignore_colors: {shown}; add them to one of the two (dataset.ignore_colors=null ignores every "
                "other colour). Many colours come from JPEG or smoothing: use losslessly stored labels"
            )
        train_ids = np.array([table.get(code, VOID) for code in found.tolist()], dtype=np.uint8)
        return train_ids[places].reshape(codes.shape)


def load_folder(
    name: str,
    root: str | Path,
    images: Patterns | None,
    labels: Patterns | None,
    classes: Classes,
    ids: Mapping[int, str] | None = None,
    ignore_ids: Sequence[int] | None = (255,),
    color_map: str | Mapping[str, Sequence[Sequence[int]]] | None = None,
    ignore_colors: Sequence[Sequence[int]] | None = ((0, 0, 0),),
    list_file: str | None = None,
    missing_labels: str = "refuse",
    subsets: Mapping[str, Sequence[str]] | None = None,
    verify: bool = True,
    unreadable: Literal["stop", "skip"] = "stop",
) -> SceneDataset:
    """Find the scenes of one part (source, target or val) of a user's own data.

    Args:
        name: ``source``, ``target`` or ``val``.
        root: The folder that patterns and the list file start from.
        images: A folder or a glob (``**`` for any depth), or several.
        labels: The same for the labels, as many as ``images``; None if nothing is labelled (target only).
        classes, ids, subsets: See :func:`make_taxonomy`; ``ids`` are not used with a ``color_map``.
        ignore_ids: Ids that are void; any other id without a class is an error. None makes all others void.
        color_map: None for labels with ids; ``classes`` for images in the colours of ``classes``; else class name
            -> list of RGB colours.
        ignore_colors: Colours that are void; any other colour without a class is an error. None makes all others void.
        list_file: A text file that names the scenes to take, one image per line (the rest of the line is ignored; names
            may contain spaces). Its paths are not trusted; see :func:`ripu.datasets.pairing.choose`.
        missing_labels: ``refuse`` an image without a label, or ``allow`` it (target only; queries about it stay
            unanswered).
        verify: False lets images without a label pass, and opens no file.
        unreadable: Policy for files that cannot be read, ``stop`` or ``skip``; see :mod:`ripu.datasets.scenes`.

    Returns:
        The scenes in the order of patterns and names; image ids are paths below ``root`` without extension.

    Raises:
        SceneError: No image exists, an image has no label, sizes differ, or a label has undeclared ids or colours.
    """
    root, key = Path(root), f"dataset.{name}"
    needed = _NEEDED.get(name, f"{key}.images is not given; name a folder or a glob below dataset.root")
    if images is None:
        raise SceneError(needed)
    if labels is None and name != "target":
        raise SceneError(f"{key}.labels is not given. {needed}")
    image_patterns, label_patterns = (
        [patterns] if isinstance(patterns, str) else [str(pattern) for pattern in patterns or ()]
        for patterns in (images, labels)
    )
    if labels is not None and len(image_patterns) != len(label_patterns):
        raise SceneError(
            f"{key}: {len(image_patterns)} patterns of images but {len(label_patterns)} of labels; give one for each"
        )
    by_path: dict[Path, Scene] = {}
    for number, pattern in enumerate(image_patterns):
        found = matches(root, pattern, f"{key}.images")
        partners = matches(root, label_patterns[number], f"{key}.labels") if label_patterns else {}
        for wildcards, path in found.items():
            by_path[path] = Scene(path.relative_to(root).with_suffix("").as_posix(), path, partners.get(wildcards))
    scenes = list(by_path.values())
    if list_file is not None:
        scenes = choose(scenes, root / list_file, key)
    if verify and labels is not None and (missing_labels != "allow" or name != "target"):
        _refuse_unlabelled(scenes, key, label_patterns)
    taxonomy = make_taxonomy(f"{name} of folder", classes, ids if color_map is None else None, subsets)
    if color_map is None:
        decode: IdLabels | ColorLabels = _id_labels(ignore_ids, taxonomy, key)
    else:
        decode = _color_labels(color_map, ignore_colors, taxonomy, classes)
    dataset = SceneDataset(f"{name} in {root}", tuple(scenes), taxonomy, decode, unreadable, name)
    if verify:
        _check(dataset)
    return dataset


_NEEDED = {
    "val": "dataset.val needs images with labels: every run reports the mIoU on them, and could not be judged without "
    "them. Label a few images of the target domain (ten are a start) and name them in dataset.val.images and "
    "dataset.val.labels",
    "source": "dataset.source needs images with labels: training starts on them; name dataset.source.images and "
    ".labels",
}


def _refuse_unlabelled(scenes: list[Scene], key: str, patterns: list[str]) -> None:
    unlabelled = [scene.image_id for scene in scenes if scene.label is None]
    if unlabelled:
        also = ", or set dataset.target.missing_labels=allow" if key == "dataset.target" else ""
        raise SceneError(
            f"{key}: {len(unlabelled)} of {len(scenes)} images have no label in {patterns}: {unlabelled[:5]}; the "
            f"wildcards must match the same text in images and labels. Add the labels, take the images out{also}"
        )


def _id_labels(ignored: Sequence[int] | None, taxonomy: Taxonomy, key: str) -> IdLabels:
    if ignored is None:
        return IdLabels(None)
    is_list = isinstance(ignored, Sequence) and not isinstance(ignored, str)
    if not is_list or not all(type(value) is int and 0 <= value < 2**16 for value in ignored):
        raise SceneError(f"{key}: ignore_ids={ignored} must be a list of ids in files, whole numbers from 0, or null")
    clash = set(taxonomy.disk_to_train) & set(ignored)
    if clash:
        raise SceneError(f"{key}: the ids {sorted(clash)} are in dataset.ids and in dataset.ignore_ids; choose one")
    return IdLabels(tuple(sorted({*taxonomy.disk_to_train, *ignored})))


def _color_labels(
    color_map: str | Mapping[str, Sequence[Sequence[int]]],
    ignored: Sequence[Sequence[int]] | None,
    taxonomy: Taxonomy,
    classes: Classes,
) -> ColorLabels:
    if isinstance(color_map, str):
        if color_map != "classes" or not isinstance(classes, Mapping):
            raise SceneError(
                f"dataset.color_map={color_map} is not understood: give class names with lists of RGB colours, or the "
                "word classes if dataset.classes has the colours"
            )
        color_map = {name: [color] for name, color in classes.items()}
    pairs: list[tuple[Color, int]] = []
    for name, colors in color_map.items():
        train_id = _position(name, taxonomy.class_names, "dataset.color_map")
        pairs += [(_color(color, f"dataset.color_map.{name}"), train_id) for color in colors]
    void = None if ignored is None else tuple(_color(color, "dataset.ignore_colors") for color in ignored)
    seen: dict[Color, int] = {}
    for color, train_id in pairs:
        if color in (void or ()):
            raise SceneError(
                f"the colour {list(color)} belongs to a class, but is also in dataset.ignore_colors (by default only "
                "black); remove it there, e.g. dataset.ignore_colors=[]"
            )
        if seen.setdefault(color, train_id) != train_id:
            raise SceneError(f"the colour {list(color)} has two meanings in the colour map; every colour has one")
    return ColorLabels(tuple(pairs), void)


def _check(dataset: SceneDataset) -> None:
    """Compare the sizes of all pairs, from the headers of the files, and decode a few labels."""
    labelled = [index for index, scene in enumerate(dataset.scenes) if scene.label is not None]
    unequal: list[str] = []
    num_lying = 0
    unclear: list[Path] = []
    for index in labelled:
        scene = dataset.scenes[index]
        try:
            label_size = dataset.require_label_size(index)
            header = read_header(scene.image)
        except SceneError:
            if dataset.skips_unreadable:
                continue
            raise
        image_size = header.size
        fit = label_fit(header.orientation, image_size, label_size)
        num_lying += fit == "lying"
        if label_size != image_size:
            (height, width), (rows, columns) = image_size, label_size
            unequal.append(f"{scene.image_id} (image {width} x {height}, label {columns} x {rows})")
        elif fit == "unclear":
            unclear.append(scene.image)
    if unequal:
        lying = (
            f"{num_lying} of these labels are sideways, like the stored photographs, while images are read "
            "upright, as their EXIF data ask: rotate the labels too, or remove the EXIF orientation of the images; "
        )
        raise SceneError(
            f"{dataset.name}: {len(unequal)} labels differ in size from their image: {unequal[:5]}; "
            f"{lying if num_lying else ''}make them of one size, or take them out"
        )
    if unclear:
        _log.warning(
            "%s: %d photographs are turned upright as their EXIF data ask (%s, ...); check that their labels are "
            "upright",
            dataset.name,
            len(unclear),
            unclear[0],
        )
    for index in labelled[:: max(1, len(labelled) // CHECKED_LABELS)]:
        with contextlib.suppress(SkippedFileError):
            dataset.require_label(index)


def _position(name: object, names: Sequence[str], key: str) -> int:
    if _text(name, key) not in names:
        raise SceneError(f"{key} names the class {name!r}, which is not in dataset.classes {list(names)}")
    return names.index(str(name))


def _color(color: Sequence[int], key: str) -> Color:
    values = () if isinstance(color, (str, int)) or color is None else tuple(color)
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise SceneError(f"{key}={color} is not a colour; give [red, green, blue], each 0..255")
    return values


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges, for a message.

    >>> _ranges((0, 1, 2, 5, 255))
    '0..2, 5, 255'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("..".join(map(str, run)) for run in runs)


def _made_up_color(train_id: int) -> Color:
    """Return a colour for a class without one, from the bits of its number, as in the palette of PASCAL VOC."""
    number = train_id + 1
    red, green, blue = (
        sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
