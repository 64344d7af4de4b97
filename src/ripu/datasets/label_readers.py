"""Readers of label files: ids, and colours with their meaning from the yaml or from a ``labelmap.txt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import open_image, read_ids
from ripu.datasets.taxonomy import VOID, Taxonomy

Color = tuple[int, int, int]
Classes = Mapping[str, Sequence[int]] | Sequence[str]
ColorMap = str | Mapping[str, Sequence[Sequence[int]]]

BACKGROUND = "background"
"""The label of pixels that nobody has labelled, in exports of CVAT and in PASCAL VOC."""


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


def read_color_map(color_map: ColorMap, root: Path, classes: Classes) -> Mapping[str, Sequence[Sequence[int]]]:
    """Return class name -> list of RGB colours.

    Args:
        color_map: That map; ``classes`` for the colours of ``classes``; or a file below ``root`` with a line
            ``label:red,green,blue:parts:actions`` for each label, as CVAT exports it
            (https://docs.cvat.ai/docs/dataset_management/formats/format-smask).
        root: The folder of the data set.
        classes: Names, or names with colours.

    Raises:
        SceneError: The word or the file cannot be used.
    """
    if not isinstance(color_map, str):
        return color_map
    if color_map == "classes" and isinstance(classes, Mapping):
        return {name: [color] for name, color in classes.items()}
    path = root / color_map
    if color_map == "classes" or not path.is_file():
        raise SceneError(
            f"dataset.color_map={color_map} is not understood: give class names with lists of RGB colours, the word "
            "classes if dataset.classes has the colours, or a labelmap.txt below dataset.root"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SceneError(f"dataset.color_map={path} cannot be read ({error}); name the labelmap.txt") from error
    except UnicodeDecodeError as error:
        raise SceneError(f"dataset.color_map={path} is not text in UTF-8 ({error}); save it as UTF-8") from error
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, color, *_ = (*line.split(":"), "")
        values = [value.strip() for value in color.split(",")]
        if not name.strip() or not all(value.isdecimal() for value in values):
            raise SceneError(f"{path}, line {number}: {line!r} is not label:red,green,blue:parts:actions; correct it")
        found.setdefault(name.strip(), []).append([int(value) for value in values])
    return found


def color_labels(
    color_map: Mapping[str, Sequence[Sequence[int]]], ignored: Sequence[Sequence[int]] | None, taxonomy: Taxonomy
) -> ColorLabels:
    """Return the reader of colours; refuse a colour with two meanings, and one that is also in ``ignored``.

    The label ``background`` is void unless it is a class.
    """
    unlabelled: Sequence[Sequence[int]] = ()
    if BACKGROUND not in taxonomy.class_names:
        color_map = dict(color_map)
        unlabelled = color_map.pop(BACKGROUND, ())
    pairs: list[tuple[Color, int]] = []
    for name, colors in color_map.items():
        train_id = position(name, taxonomy.class_names, "dataset.color_map")
        pairs += [(read_color(color, f"dataset.color_map.{name}"), train_id) for color in colors]
    void = (
        None
        if ignored is None
        else tuple(read_color(color, "dataset.ignore_colors") for color in (*unlabelled, *ignored))
    )
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


def id_labels(ignored: Sequence[int] | None, taxonomy: Taxonomy, key: str) -> IdLabels:
    """Return the reader of ids; refuse ``ignored`` if it is not a list of ids, or contains the id of a class."""
    if ignored is None:
        return IdLabels(None)
    is_list = isinstance(ignored, Sequence) and not isinstance(ignored, str)
    if not is_list or not all(type(value) is int and 0 <= value < 2**16 for value in ignored):
        raise SceneError(f"{key}: ignore_ids={ignored} must be a list of ids in files, whole numbers from 0, or null")
    clash = set(taxonomy.disk_to_train) & set(ignored)
    if clash:
        raise SceneError(f"{key}: the ids {sorted(clash)} are in dataset.ids and in dataset.ignore_ids; choose one")
    return IdLabels(tuple(sorted({*taxonomy.disk_to_train, *ignored})))


def class_name(name: object, key: str) -> str:
    """Return a class name as it was written; refuse what yaml reads as a truth value, a float or null."""
    if isinstance(name, (bool, float)) or name is None:
        shown = "null" if name is None else str(name).lower() if isinstance(name, bool) else name
        raise SceneError(
            f"{key} has a name that yaml does not read as text but as {shown} (as it does yes, no, on, off, null and "
            "1e3); put it into quotes, e.g. 'yes'"
        )
    return str(name)


def position(name: object, names: Sequence[str], key: str) -> int:
    """Return the train id of a class; refuse an unknown one."""
    if class_name(name, key) not in names:
        raise SceneError(f"{key} names the class {name!r}, which is not in dataset.classes {list(names)}")
    return names.index(str(name))


def read_color(color: Sequence[int], key: str) -> Color:
    """Return an RGB triple; refuse anything else."""
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


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
