"""Partial labels that a run begins with: a folder of masks, a PNG for each target image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError
from ripu.io.reading import read_json

if TYPE_CHECKING:
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.labelstore import Mask

UNKNOWN = 255
"""In a mask: the class of the pixel is not known."""

_NAMES_FILE = "images.json"
_LISTED = 3


class MaskFolder(Mapping[str, "Mask"]):
    """Partial labels by image id: a PNG for each target image, 255 where nothing is known.

    A file belongs to the image whose id is its path below the folder without the suffix, or the only one whose id ends
    with that path. An ``images.json``, as ``python -m ripu.labels export`` writes it, takes precedence.
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
        """Find the masks.

        Args:
            folder: The folder of masks.
            target: The target scenes.
            taxonomy: The classes of the run.
            ids: ``train``: 0 .. C-1 in the order of the classes. ``label``: as in the label files of the data set,
                where void ids are answers, too.
            allows_missing: Let images without a mask begin with nothing.

        Raises:
            ConfigError: A file belongs to no image, two belong to one, or an image has none.
        """
        self.folder = folder
        self.ids = ids
        self._target, self._taxonomy = target, taxonomy
        self._counts: Counter[int] = Counter()
        self._numbers = {scene.image_id: number for number, scene in enumerate(target.scenes)}
        self._paths = self._pair()
        missing = [scene.image_id for scene in target.scenes if scene.image_id not in self._paths]
        if missing and not allows_missing:
            raise ConfigError(
                f"start.labels={folder}: {len(missing)} of {len(target)} target images have no mask: "
                f"{missing[:_LISTED]}; the first should be {missing[0]}.png. Add masks that are 255 throughout, or set "
                "start.missing_masks=allow"
            )

    def _pair(self) -> dict[str, Path]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        names = self.folder / _NAMES_FILE
        listed = self._listed(names) if names.exists() else None
        ends: dict[str, list[str]] = {}
        from ripu.datasets.pairing import composed

        by_name = {composed(one): one for one in self._numbers}
        for written, one in by_name.items():
            parts = PurePosixPath(written).parts
            for first in range(len(parts)):
                ends.setdefault("/".join(parts[first:]), []).append(one)
        pairs: dict[str, Path] = {}
        stray: list[str] = []
        for path in found:
            name = path.relative_to(self.folder)
            stem = name.with_suffix("").as_posix()
            if path == names:
                continue
            image_id: str | None
            if listed is not None:
                image_id = listed.get(name.as_posix())
                if image_id is None and listed.get(name.as_posix().replace("_colour.png", ".png")) is not None:
                    continue  # a picture for people
            else:
                options = ends.get(composed(stem), [])
                image_id = by_name.get(composed(stem)) or (options[0] if len(options) == 1 else None)
            if image_id is None or image_id not in self._numbers or path.suffix.lower() != ".png":
                stray.append(name.as_posix())
            elif image_id in pairs:
                raise ConfigError(
                    f"start.labels={self.folder}: {pairs[image_id].relative_to(self.folder)} and {name} are both masks "
                    f"of {image_id}; keep one"
                )
            else:
                pairs[image_id] = path
        if stray:
            example = next(iter(self._numbers), "IMAGE")
            raise ConfigError(
                f"start.labels={self.folder}: {len(stray)} files are not masks of target images: {stray[:_LISTED]}; a "
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
                f"start.labels={self.folder}: the masks hold train ids (0..18), most of which would be void as label "
                "ids of Cityscapes; give start.ids=train"
            )

    def digest(self) -> str:
        """Return the SHA-256 over image ids and the bytes of their masks."""
        digest = hashlib.sha256()
        for image_id in sorted(self._paths):
            content = hashlib.sha256(self._paths[image_id].read_bytes()).hexdigest()
            digest.update(f"{image_id!r} {content}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, image_id: str) -> Mask:
        """Return the mask of an image; if it has no mask file, every pixel is unknown."""
        from ripu.datasets.errors import SceneError
        from ripu.labelstore import Mask

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
                f"{size[1]} x {size[0]}; make masks of the size of the labels (of the images, where there are no "
                "labels)"
            )
        return Mask(known, label)

    def _decode(self, path: Path) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Return where a mask is known, (H, W) bool, and its train ids, (H, W) uint8."""
        from ripu.datasets.folder import ColorLabels, IdLabels
        from ripu.datasets.image_files import read_ids

        decode, table = self._target.decode_label, self._taxonomy
        if self.ids == "label" and isinstance(decode, ColorLabels):
            label = decode(path).astype(np.uint8)  # a colour of void may be anything
            return label != UNKNOWN, label
        ids = read_ids(path)
        known = ids != UNKNOWN
        if self.ids == "train":
            allowed: set[int] = set(range(table.num_classes))
            meaning = f"train ids are 0..{table.num_classes - 1} (or {UNKNOWN}: unknown)"
            other = "; start.ids=label reads the ids of the data set's own label files"
        else:
            table = self._target.taxonomy
            named = decode.known if isinstance(decode, IdLabels) else None
            allowed = {*table.disk_to_train, *(named or table.file_ids or range(UNKNOWN))}
            self._counts.update(
                dict(zip(*(one.tolist() for one in np.unique(ids[known], return_counts=True)), strict=True))
            )
            meaning = "these are neither class ids nor void ids"
            other = "; start.ids=train reads 0, 1, ... in the order of the classes"
        strange = sorted(set(np.unique(ids[known]).tolist()) - allowed)
        if strange:
            raise ConfigError(f"{path} holds the ids {strange[:10]}, but {meaning}{other}")
        label = np.full(ids.shape, UNKNOWN, dtype=np.uint8)
        if self.ids == "train":
            label[known] = ids[known]
        else:
            label[known] = table.to_train_ids(ids[known])
        return known, label
