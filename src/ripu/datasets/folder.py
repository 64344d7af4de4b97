"""A user's own data: images and labels found by folders or globs; classes, ids and colours given in a yaml."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ripu.datasets.class_masks import ClassMasks, all_or_none, is_class_pattern
from ripu.datasets.coco_labels import CocoLabels, is_coco_file
from ripu.datasets.errors import SceneError, SkippedFileError
from ripu.datasets.image_files import read_header
from ripu.datasets.label_readers import (
    Classes,
    Color,
    ColorLabels,
    ColorMap,
    IdLabels,
    class_name,
    color_labels,
    id_labels,
    position,
    read_color,
    read_color_map,
)
from ripu.datasets.pairing import Patterns, below, choose, label_fit, matches
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import VOID, Taxonomy

CHECKED_LABELS = 20  # spread over the data set, decoded on opening to catch a wrong class map early

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
    names = tuple(class_name(given, "dataset.classes") for given in classes)
    if not 1 <= len(names) < VOID or len(set(names)) != len(names):
        raise SceneError(f"dataset.classes={list(names)} must be 1 to 254 different names")
    if isinstance(classes, Mapping):
        colors = tuple(read_color(color, f"dataset.classes.{key}") for key, color in classes.items())
    else:
        colors = tuple(map(_made_up_color, range(len(names))))
    disk_to_train = {} if ids is not None else {train_id: train_id for train_id in range(len(names))}
    for disk_id, owner in (ids or {}).items():
        if isinstance(disk_id, str) and disk_id.isdigit():  # quoted, or from the command line
            disk_id = int(disk_id)
        if not isinstance(disk_id, int) or not 0 <= disk_id < 256:
            raise SceneError(f"dataset.ids has the id {disk_id!r}; ids of classes are whole numbers in 0..255")
        disk_to_train[disk_id] = position(owner, names, f"dataset.ids.{disk_id}")
    groups = {str(group): tuple(map(str, members)) for group, members in (subsets or {}).items()}
    for group, members in groups.items():
        for member in members:
            position(member, names, f"dataset.subsets.{group}")
    return Taxonomy(name, names, colors, disk_to_train, groups)


def load_folder(
    name: str,
    root: str | Path,
    images: Patterns | None,
    labels: Patterns | None,
    classes: Classes,
    ids: Mapping[int, str] | None = None,
    ignore_ids: Sequence[int] | None = (255,),
    color_map: ColorMap | None = None,
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
        labels: The same for the labels, as many as ``images``; None if nothing is labelled (target only). With
            ``{class}`` in it, a label is a mask for each class, see :mod:`ripu.datasets.class_masks`; a ``.json`` is
            read as in :mod:`ripu.datasets.coco_labels`.
        classes, ids, subsets: See :func:`make_taxonomy`; ``ids`` are not used with a ``color_map``.
        ignore_ids: Ids that are void; any other id without a class is an error. None makes all others void.
        color_map: None for labels with ids; ``classes`` for images in the colours of ``classes``; a ``labelmap.txt``
            below ``root``; else class name -> list of RGB colours.
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
    root, key, named = Path(root), f"dataset.{name}", f"{name} in {root}"
    taxonomy = make_taxonomy(f"{name} of folder", classes, ids if color_map is None else None, subsets)
    image_patterns, label_patterns = _patterns(images, labels, name)
    masks = ClassMasks(taxonomy.class_names)
    coco = CocoLabels(taxonomy.class_names, ids, is_strict=ignore_ids is not None)
    scenes = _find(root, key, image_patterns, label_patterns, masks, coco, list_file)
    if verify and labels is not None and (missing_labels != "allow" or name != "target"):
        _refuse_unlabelled(scenes, key, label_patterns)
    _refuse_color_map(key, color_map, ids, masks, coco)
    decode: IdLabels | ColorLabels | ClassMasks | CocoLabels = coco if coco.sources else masks
    if coco.sources:
        taxonomy = make_taxonomy(taxonomy.name, classes, None, subsets)
    elif not masks.files:
        decode = _by_value(color_map, root, classes, ignore_ids, ignore_colors, taxonomy, key)
    size_of = coco.size_of if coco.sources else None
    found = named, tuple(scenes), taxonomy, decode, unreadable, name
    dataset = SceneDataset(*found, size_of_label=size_of, has_equal_sizes=True)
    return _checked(dataset) if verify else dataset


def _refuse_color_map(
    key: str, color_map: ColorMap | None, ids: Mapping[int, str] | None, masks: ClassMasks, coco: CocoLabels
) -> None:
    """Refuse colours of labels that have none, and ids of masks."""
    if (coco.sources and color_map is not None) or (masks.files and (color_map is not None or ids is not None)):
        kind = "in a COCO file need no" if coco.sources else "with a mask for each class need no dataset.ids and no"
        raise SceneError(f"{key}: labels {kind} dataset.color_map; leave it out")


def _by_value(
    color_map: ColorMap | None,
    root: Path,
    classes: Classes,
    ignore_ids: Sequence[int] | None,
    ignore_colors: Sequence[Sequence[int]] | None,
    taxonomy: Taxonomy,
    key: str,
) -> IdLabels | ColorLabels:
    """Return the reader of labels whose pixels are ids, or colours if there is a map of them."""
    if color_map is None:
        return id_labels(ignore_ids, taxonomy, key)
    return color_labels(read_color_map(color_map, root, classes), ignore_colors, taxonomy)


def _patterns(images: Patterns | None, labels: Patterns | None, name: str) -> tuple[list[str], list[str]]:
    """Return the patterns of images and of labels as lists; refuse missing ones, and lists that do not fit."""
    key = f"dataset.{name}"
    needed = _NEEDED.get(name, f"{key}.images is not given; name a folder or a glob below dataset.root")
    if images is None:
        raise SceneError(needed)
    if labels is None and name != "target":
        raise SceneError(f"{key}.labels is not given. {needed}")
    first, second = (
        [patterns] if isinstance(patterns, str) else [str(pattern) for pattern in patterns or ()]
        for patterns in (images, labels)
    )
    if labels is not None and len(first) != len(second):
        raise SceneError(f"{key}: {len(first)} patterns of images but {len(second)} of labels; give one for each")
    return first, second


def _find(
    root: Path,
    key: str,
    images: list[str],
    labels: list[str],
    masks: ClassMasks,
    coco: CocoLabels,
    list_file: str | None,
) -> list[Scene]:
    """Pair images and labels; those that are a mask for each class or in COCO files are noted in their readers.

    With a list file, only the pairs that it names are returned.
    """
    all_or_none(labels, f"{key}.labels", is_class_pattern, "{class}")
    all_or_none(labels, f"{key}.labels", is_coco_file, ".json")
    by_path: dict[Path, Scene] = {}
    for number, pattern in enumerate(images):
        found = matches(root, pattern, f"{key}.images")
        partners: Mapping[tuple[str, ...], Path] = {}
        if labels and is_class_pattern(labels[number]):
            partners = masks.find(root, labels[number], f"{key}.labels")
        elif labels and is_coco_file(labels[number]):
            own = coco.find(below(root, labels[number], f"{key}.labels"), list(found.values()), f"{key}.labels")
            partners = {wildcards: own[path] for wildcards, path in found.items() if path in own}
        elif labels:
            partners = matches(root, labels[number], f"{key}.labels")
        for wildcards, path in found.items():
            by_path[path] = Scene(path.relative_to(root).with_suffix("").as_posix(), path, partners.get(wildcards))
    scenes = list(by_path.values())
    return scenes if list_file is None else choose(scenes, root / list_file, key)


_NEEDED = {
    "val": "dataset.val needs images with labels: every run reports the mIoU on them, and could not be judged without "
    "them. Label a few images of the target domain (ten are a start) and name them in dataset.val.images and "
    "dataset.val.labels",
    "source": "dataset.source needs images with labels: training starts on them; name dataset.source.images and "
    ".labels, or train without a source: setting=target_only",
}


def _refuse_unlabelled(scenes: list[Scene], key: str, patterns: list[str]) -> None:
    unlabelled = [scene.image_id for scene in scenes if scene.label is None]
    if unlabelled:
        rule = "the wildcards must match the same text in images and labels"
        if any(map(is_coco_file, patterns)):
            rule = "a COCO file lists its images by name"
        also = ", or set dataset.target.missing_labels=allow" if key == "dataset.target" else ""
        raise SceneError(
            f"{key}: {len(unlabelled)} of {len(scenes)} images have no label in {patterns}: {unlabelled[:5]}; {rule}. "
            f"Add the labels, take the images out{also}"
        )


def _checked(dataset: SceneDataset) -> SceneDataset:
    """Compare the sizes of all pairs, from the headers of the files, and decode a few labels; return the same."""
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
    return dataset


def _made_up_color(train_id: int) -> Color:
    """Return a colour for a class without one, from the bits of its number, as in the palette of PASCAL VOC."""
    number = train_id + 1
    red, green, blue = (
        sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue
