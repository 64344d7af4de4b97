"""Where a run begins: the weights and labels of a finished run (``start.run``), and masks that are there (``start.labels``).

What is taken over is copied into the run's own label store before its first round. It is trained on from step 0 and never
asked for again; the budget of the run comes on top.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError
from ripu.io.reading import read_json

if TYPE_CHECKING:
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.labelstore import LabelReader, LabelStore, Mask

UNKNOWN = 255
"""In a mask: nobody has said what the pixel is."""

_NAMES_FILE = "images.json"
_LISTED = 3


def weights(cfg: Any) -> Path | None:
    """The weights that ``start.run`` begins from; None without it."""
    run = _key(cfg, "run")
    return None if run is None else Path(run) / "checkpoints" / "final.ckpt"


def is_given(cfg: Any) -> bool:
    """Whether a run begins with labels that are there already."""
    return _key(cfg, "run") is not None or _key(cfg, "labels") is not None


def _key(cfg: Any, name: str) -> Any:
    node = cfg.get("start")
    return None if node is None else node.get(name)


def check_combination(cfg: Any) -> None:
    """Refuse ``start`` keys that do not go with the rest; looks at no file.

    Raises:
        ConfigError: Naming both, and what to do.
    """
    run, labels = _key(cfg, "run"), _key(cfg, "labels")
    if cfg.setting.target_labels != "revealed":
        for name, value in (("run", run), ("labels", labels)):
            if value is not None:
                instead = f"model.checkpoint={value}/checkpoints/final.ckpt" if name == "run" else "setting=active"
                raise ConfigError(
                    f"start.{name}={value} brings revealed labels, which setting={cfg.setting.name} does not use; use {instead}"
                )
    if run is not None and cfg.model.get("checkpoint"):
        raise ConfigError(
            f"start.run={run} begins from that run's final weights, and model.checkpoint={cfg.model.checkpoint} names others; "
            f"leave one out (its labels alone: python -m ripu.labels export {run} MASKS, then start.labels=MASKS)"
        )
    if run is not None and Path(run).absolute() == Path(cfg.paths.output_dir).absolute():
        raise ConfigError(
            f"start.run={run} is paths.output_dir itself; a run that is begun from another one needs a folder of its own "
            "(resume=true goes on with an unfinished one)"
        )


def check_files(cfg: Any) -> None:
    """Refuse a run or folder to begin with that is not there.

    Raises:
        ConfigError: Naming what is missing, and what to do.
    """
    run, labels = _key(cfg, "run"), _key(cfg, "labels")
    if run is not None:
        folder = Path(run)
        if not (folder / "config.yaml").exists():
            raise ConfigError(f"start.run={run} holds no run (config.yaml is missing); name the output folder of one")
        if not (folder / "results.json").exists() or not (folder / "checkpoints" / "final.ckpt").exists():
            raise ConfigError(
                f"start.run={run} is not finished; go on with it first: its command with paths.output_dir={run} resume=true"
            )
        if not (folder / "labels" / "manifest.json").exists():
            raise ConfigError(_nothing_revealed(run))
    if labels is not None and not Path(labels).is_dir():
        raise ConfigError(f"start.labels={labels} is no folder; name the one with a PNG for each target image")


def _nothing_revealed(run: Any) -> str:
    return (
        f"start.run={run} has revealed no labels; begin from its weights alone with "
        f"model.checkpoint={run}/checkpoints/final.ckpt"
    )


def files(config: Mapping[str, Any]) -> Iterator[Path]:
    """The files that what ``start`` brings depends on, in order; for keys of caches."""
    run, labels = _key(config, "run"), _key(config, "labels")
    if run is not None:
        yield Path(run) / "checkpoints" / "final.ckpt"
        yield Path(run) / "labels" / "manifest.json"
    if labels is not None:
        yield from sorted(path for path in Path(labels).rglob("*") if path.is_file())


def find(cfg: Any, target: SceneDataset, taxonomy: Taxonomy) -> StartLabels | None:
    """The labels that a run begins with, every one of them looked at.

    Args:
        cfg: The configuration.
        target: The target scenes.
        taxonomy: The classes of the run.

    Returns:
        None where ``start`` names nothing.

    Raises:
        ConfigError: Masks are missing or left over, of another size, hold ids without a meaning, know nothing, or contradict
            the other run.
        LabelStoreError: The other run has other classes or images.
    """
    from ripu.labelstore import LabelStore, TargetImage, check_parent

    run, labels = _key(cfg, "run"), _key(cfg, "labels")
    if run is None and labels is None:
        return None
    parent = None
    if run is not None:
        parent = LabelStore.open(Path(run) / "labels")
        sizes = [target.label_size(index) for index in range(len(target))]
        images = [TargetImage(scene.image_id, *size) for scene, size in zip(target.scenes, sizes, strict=True)]
        check_parent(parent, images, taxonomy.class_names)
        if not parent.rounds and not parent.carried:
            raise ConfigError(_nothing_revealed(run))
    masks = None
    if labels is not None:
        node = cfg.start
        masks = MaskFolder(Path(labels), target, taxonomy, str(node.ids), allows_missing=node.missing_masks == "allow")
        masks.check()
        if parent is not None:
            _check_agree(parent, masks, str(run))
    return StartLabels(parent, masks)


def _check_agree(parent: LabelReader, masks: MaskFolder, run: str) -> None:
    """Refuse masks that contradict what the other run knows."""
    pixels, images, example = 0, 0, ""
    for image in parent.images:
        if image.image_id not in masks:
            continue
        known, labels = parent.answers(image.image_id)
        mask = masks[image.image_id]
        differs = mask.known.reshape(-1)[known] & (mask.label.reshape(-1)[known] != labels)
        if differs.any():
            row, column = divmod(int(known[differs][0]), image.width)
            example = example or (
                f"{image.image_id}, row {row}, column {column}: {labels[differs][0]} there, {mask.label[row, column]} in "
                "the mask"
            )
            pixels, images = pixels + int(differs.sum()), images + 1
    if pixels:
        raise ConfigError(
            f"start.run={run} and start.labels={masks.folder} contradict each other on {pixels} pixels of {images} images "
            f"(train ids; {example}); answers are never replaced: make these pixels {UNKNOWN} in the masks, or begin with them "
            f"alone: model.checkpoint={run}/checkpoints/final.ckpt in the place of start.run"
        )


@dataclass(frozen=True)
class StartLabels:
    """Labels that a run begins with.

    Attributes:
        parent: The label store of the run that is gone on from.
        masks: A folder of masks.
    """

    parent: LabelReader | None
    masks: MaskFolder | None

    def carry(self, store: LabelStore) -> None:
        """Copy them into the store of the run, in one step; does nothing where they are there already.

        Raises:
            LabelStoreError: They contradict each other.
        """
        from ripu.labelstore import carried_images, carried_rounds, mask_round

        if store.log.events:
            return
        rounds = () if self.parent is None else carried_rounds(self.parent)
        if self.masks is not None:
            rounds = (*rounds, mask_round(len(rounds), {"ids": self.masks.ids, "sha256": self.masks.digest()}))
        store.carry(rounds, carried_images(store.images, self.parent, self.masks))


class MaskFolder(Mapping[str, "Mask"]):
    """Partial labels by image id: a PNG for each target image, 255 where nothing is known.

    A file belongs to the image whose id is its path below the folder without ending, or ends with that path where this is
    so of one id alone. An ``images.json``, as ``python -m ripu.labels export`` writes it, says it instead.
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
            folder: Where they are.
            target: The target scenes.
            taxonomy: The classes of the run.
            ids: ``train``: 0 .. C-1 in the order of the classes. ``label``: as the label files of the data set hold them;
                void ids are answers, too.
            allows_missing: Let images without a mask begin with nothing.

        Raises:
            ConfigError: Files belong to no image, two to one, or images have none.
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
                f"start.labels={folder}: {len(missing)} of {len(target)} target images have no mask: {missing[:_LISTED]}; the "
                f"first is looked for as {missing[0]}.png. Add masks that are 255 throughout, or set start.missing_masks=allow"
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
                    continue  # for people to look at
            else:
                options = ends.get(composed(stem), [])
                image_id = by_name.get(composed(stem)) or (options[0] if len(options) == 1 else None)
            if image_id is None or image_id not in self._numbers or path.suffix.lower() != ".png":
                stray.append(name.as_posix())
            elif image_id in pairs:
                raise ConfigError(
                    f"start.labels={self.folder}: {pairs[image_id].relative_to(self.folder)} and {name} are both masks of "
                    f"{image_id}; keep one"
                )
            else:
                pairs[image_id] = path
        if stray:
            example = next(iter(self._numbers), "IMAGE")
            raise ConfigError(
                f"start.labels={self.folder}: {len(stray)} files are no mask of a target image: {stray[:_LISTED]}; a mask is "
                f"named after its image, e.g. {example}.png. Rename or remove them"
            )
        return pairs

    def _listed(self, path: Path) -> dict[str, str]:
        try:
            listed = read_json(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}); remove it where masks are named after images"
            ) from error
        if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
            raise ConfigError(
                f"{path} does not say which image each file is; remove it where masks are named after images"
            )
        return listed

    def check(self) -> None:
        """Read every mask.

        Raises:
            ConfigError: One is of another size, holds an id without a meaning, all of them know nothing, or hold ids that
                are not the kind that ``ids`` says.
        """
        if not sum(int(self[image_id].known.any()) for image_id in self._paths):  # every one of them is read
            raise ConfigError(
                f"start.labels={self.folder}: all {len(self._paths)} masks are {UNKNOWN} (unknown) throughout, so that nothing "
                "would be known; leave start.labels out"
            )
        if self._target.taxonomy.look_like_train_ids(self._counts):
            raise ConfigError(
                f"start.labels={self.folder}: the masks hold train ids (0..18), not the label ids of Cityscapes, read as which "
                "most of them are void; give start.ids=train"
            )

    def digest(self) -> str:
        """SHA-256 over image ids and the bytes of their masks."""
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
        """The mask of an image; one that knows nothing where there is none."""
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
                f"{size[1]} x {size[0]}; make masks at the size of the labels (of the images, where there are none)"
            )
        return Mask(known, label)

    def _decode(self, path: Path) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Where a mask knows something, and train ids."""
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
            meaning = "they are neither ids of classes nor of void"
            other = "; start.ids=train reads 0, 1, ... in the order of the classes"
        strange = sorted(set(np.unique(ids[known]).tolist()) - allowed)
        if strange:
            raise ConfigError(f"{path} holds the ids {strange[:10]}, and {meaning}{other}")
        label = np.full(ids.shape, UNKNOWN, dtype=np.uint8)
        if self.ids == "train":
            label[known] = ids[known]
        else:
            label[known] = table.to_train_ids(ids[known])
        return known, label
