"""Partial labels that a run begins with: a folder of masks, a PNG for each target image or for each of its classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.class_masks import ClassMasks, is_class_pattern
from ripu.datasets.coco_labels import CocoLabels
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import read_ids
from ripu.datasets.label_readers import ColorLabels, IdLabels
from ripu.datasets.pairing import composed
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import Taxonomy
from ripu.io.errors import ConfigError
from ripu.io.reading import read_json
from ripu.labelstore import Mask

UNKNOWN = 255  # in a mask: the class of the pixel is not known


def root_of(given: Path) -> tuple[Path, str]:
    """Return the folder of ``start.labels``, and the rest: a pattern with ``{class}``, or an empty text."""
    parts = given.parts
    if not is_class_pattern(str(given)):
        return given, ""
    fixed = next(number for number, part in enumerate(parts) if set("*?[{") & set(part))
    return Path(*parts[:fixed]), "/".join(parts[fixed:])


class MaskFolder(Mapping[str, Mask]):
    """Partial labels by image id: a PNG for each target image, 255 where nothing is known.

    A file belongs to the image whose id is its path below the folder without the suffix, or the only one whose id ends
    with that path. An ``images.json``, as ``python -m ripu.labels export`` writes it, takes precedence.

    With ``{class}`` in the path of the folder, an image has a mask for each class (:mod:`ripu.datasets.class_masks`),
    and pixels outside all of them are unknown; the text of the wildcards is the path of the image.
    """

    def __init__(
        self,
        folder: Path,
        target: SceneDataset,
        taxonomy: Taxonomy,
        ids: str = "train",
        *,
        allows_missing: bool = False,
    ) -> None:
        """Find the masks in a folder.

        The ids are ``train``, 0 .. C-1 in the order of the classes of the run, or ``label``, as in the label files of
        the data set, where void ids are answers, too. With ``allows_missing``, images may lack a mask.

        Raises:
            ConfigError: A file belongs to no image, two belong to one, or an image has none.
        """
        self.folder, self._pattern = root_of(folder)
        self.ids = ids
        self._classes = ClassMasks(taxonomy.class_names)
        self._target, self._taxonomy = target, taxonomy
        self._counts: Counter[int] = Counter()
        self._numbers = {scene.image_id: number for number, scene in enumerate(target.scenes)}
        clash = target.taxonomy.disk_to_train.get(UNKNOWN)
        if ids == "label" and clash is not None and not isinstance(target.decode_label, ColorLabels):
            raise ConfigError(
                f"start.ids=label: {UNKNOWN} is the class {target.taxonomy.class_names[clash]} in dataset.ids, but in "
                f"masks {UNKNOWN} means unknown; write the masks in train ids (0, 1, ... in the order of the classes) "
                "and give start.ids=train"
            )
        has_no_ids = self._pattern or isinstance(target.decode_label, (ClassMasks, CocoLabels))
        if ids == "label" and has_no_ids:
            raise ConfigError(
                "start.ids=label: masks of one class each and COCO files have no ids; leave start.ids out, and write "
                "masks in train ids (0, 1, ... in the order of the classes) or as start.labels=FOLDER/{class}/*.png"
            )
        self._paths = self._pair()
        missing = [image_id for image_id in self._numbers if image_id not in self._paths]
        if missing and not allows_missing:
            raise ConfigError(
                f"start.labels={folder}: {len(missing)} of {len(target)} target images have no mask: "
                f"{missing[:3]}; the first should be {missing[0]}.png. Add masks that are 255 throughout, or set "
                "start.missing_masks=allow"
            )

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files, of several masks of an image the first, with the path that tells which image it is."""
        if self._pattern:
            found = self._classes.find(self.folder, self._pattern, "start.labels")
            for texts, path in found.items():
                yield "/".join(text.rstrip("/") for text in texts if text) + path.suffix, path
            return
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            yield path.relative_to(self.folder).as_posix(), path

    def _pair(self) -> dict[str, Path]:
        names = self.folder / "images.json"
        listed = self._listed(names) if names.exists() else None
        by_name = {composed(image_id): image_id for image_id in self._numbers}
        ends: dict[str, list[str]] = {}
        for written, image_id in by_name.items():
            parts = PurePosixPath(written).parts
            for first in range(len(parts)):
                ends.setdefault("/".join(parts[first:]), []).append(image_id)
        pairs: dict[str, Path] = {}
        stray: list[str] = []
        for name, path in self._files():
            if path == names:
                continue
            if listed is None:
                stem = composed(str(PurePosixPath(name).with_suffix("")))
                options = ends.get(stem, [])
                owner = by_name.get(stem) or (options[0] if len(options) == 1 else None)
            else:
                owner = listed.get(name)
                if owner is None and name.replace("_colour.png", ".png") in listed:
                    continue  # a picture for people
            if owner not in self._numbers or path.suffix.lower() != ".png":
                stray.append(name)
            elif owner in pairs:
                raise ConfigError(
                    f"start.labels={self.folder}: {pairs[owner].relative_to(self.folder)} and {Path(name)} are both "
                    f"masks of {owner}; keep one"
                )
            else:
                pairs[owner] = path
        if stray:
            example = next(iter(self._numbers), "IMAGE")
            raise ConfigError(
                f"start.labels={self.folder}: {len(stray)} files are not masks of target images: {stray[:3]}; a "
                f"mask is named after its image, e.g. {example}.png. Rename or remove them"
            )
        return pairs

    def _listed(self, path: Path) -> dict[str, str]:
        remedy = "remove it if masks are named after images"
        try:
            listed = read_json(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); {remedy}") from error
        if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
            raise ConfigError(f"{path} does not map each file to its image; {remedy}")
        return listed

    def check(self) -> None:
        """Read every mask.

        Raises:
            ConfigError: A mask has another size or an id without a meaning, all masks are unknown throughout, or their
                ids are of another kind than ``ids``.
        """
        if not sum(int(self[image_id].known.any()) for image_id in self._paths):  # every one of them is read
            raise ConfigError(
                f"start.labels={self.folder}: all {len(self._paths)} masks are {UNKNOWN} (unknown) throughout; leave "
                "start.labels out"
            )
        if self._target.taxonomy.look_like_train_ids(self._counts):
            raise ConfigError(
                f"start.labels={self.folder}: the masks contain train ids (0..18), most of which would be void as "
                "label ids of Cityscapes; give start.ids=train"
            )

    def digest(self) -> str:
        """Return the SHA-256 over image ids and the bytes of their masks."""
        digest = hashlib.sha256()
        for image_id, path in sorted(self._paths.items()):
            for file, train_id in self._classes.files.get(path, ((path, None),)):
                of_class = "" if train_id is None else f" {train_id}"
                digest.update(f"{image_id!r}{of_class} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, image_id: str) -> Mask:
        """Return the mask of an image; if it has no mask file, every pixel is unknown."""
        size = self._target.label_size(self._numbers[image_id])
        path = self._paths.get(image_id)
        if path is None:
            return Mask(np.zeros(size, dtype=np.bool_), np.full(size, UNKNOWN, dtype=np.uint8))
        try:
            known, label = self._decode(path)
        except (SceneError, OSError, ValueError) as error:
            raise ConfigError(f"start.labels: {error}") from error
        if label.shape != size:
            raise ConfigError(
                f"start.labels: {path} has {label.shape[1]} x {label.shape[0]} pixels and the label of {image_id} "
                f"{size[1]} x {size[0]}; make masks of the size of the labels (of the images, if there are no "
                "labels)"
            )
        return Mask(known, label)

    def _decode(self, path: Path) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Return where a mask is known, (H, W) bool, and its train ids, (H, W) uint8."""
        decode, table = self._target.decode_label, self._target.taxonomy
        if self._pattern:
            label = self._classes(path).astype(np.uint8)
            return label != UNKNOWN, label
        if self.ids == "label" and isinstance(decode, ColorLabels):
            label = decode(path).astype(np.uint8)  # a colour of void may be anything
            return label != UNKNOWN, label
        ids = read_ids(path)
        known = ids != UNKNOWN
        values, counts = (array.tolist() for array in np.unique(ids[known], return_counts=True))
        if self.ids == "train":
            allowed = set(range(self._taxonomy.num_classes))
            meaning = f"train ids are 0..{self._taxonomy.num_classes - 1} (or {UNKNOWN}: unknown)"
            other = "; start.ids=label reads the ids of the data set's own label files"
        else:
            named = decode.known if isinstance(decode, IdLabels) else None
            allowed = {*table.disk_to_train, *(named or table.file_ids or range(UNKNOWN))}
            self._counts.update(dict(zip(values, counts, strict=True)))
            meaning = "these are neither class ids nor void ids"
            other = "; start.ids=train reads 0, 1, ... in the order of the classes"
        strange = [value for value in values if value not in allowed]
        if strange:
            raise ConfigError(f"{path} contains the ids {strange[:10]}, but {meaning}{other}")
        label = np.full(ids.shape, UNKNOWN, dtype=np.uint8)
        label[known] = ids[known] if self.ids == "train" else table.to_train_ids(ids[known])
        return known, label
