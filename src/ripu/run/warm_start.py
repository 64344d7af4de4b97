"""Warm starts: the weights and labels of a finished run (``start.run``), and existing masks (``start.labels``).

Carried labels are copied into the run's own label store before its first round. They are trained on from step 0 and
never asked about again; the budget of the run comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ripu.config.parts import StartSpec
from ripu.config.spec import RunSpec
from ripu.datasets.pairing import glob_files
from ripu.datasets.scenes import SceneDataset
from ripu.io.console import argument
from ripu.io.errors import ConfigError
from ripu.labelstore import (
    LabelReader,
    LabelStore,
    StoreMissingError,
    TargetImage,
    carried_images,
    carried_rounds,
    check_parent,
    mask_round,
)
from ripu.run.device import early_rank
from ripu.run.mask_folder import UNKNOWN, MaskFolder, root_of


def check_files(start: StartSpec) -> None:
    """Refuse a run or folder to begin with that is missing or unfinished."""
    if start.run is not None:
        folder = Path(start.run)
        if not (folder / "config.yaml").exists():
            raise ConfigError(
                f"start.run={start.run} is not a run (config.yaml is missing); name the output folder of one"
            )
        if not (folder / "results.json").exists() or not (folder / "checkpoints" / "final.ckpt").exists():
            raise ConfigError(
                f"start.run={start.run} is not finished; resume it first: its command with "
                f"{argument('paths.output_dir', start.run)} resume=true"
            )
        if not (folder / "labels" / "manifest.json").exists():
            raise _nothing_revealed(start)
    if start.labels is not None and not (root := root_of(Path(start.labels))[0]).is_dir():
        raise ConfigError(
            f"start.labels={start.labels}: {root} is not a folder; name the one with a PNG for each target image, or "
            "with the masks of a pattern"
        )


def _nothing_revealed(start: StartSpec) -> ConfigError:
    return ConfigError(
        f"start.run={start.run} has revealed no labels; begin with its weights alone: "
        f"{argument('model.checkpoint', start.weights)}"
    )


def files(start: StartSpec) -> Iterator[Path]:
    """Yield the files that the carried weights and labels depend on, in order; for keys of caches."""
    if start.run is not None and start.weights is not None:
        yield start.weights
        yield Path(start.run) / "labels" / "manifest.json"
    if start.labels is not None:
        root, pattern = root_of(Path(start.labels))
        wide = pattern.replace("{class}", "*").replace("{any}", "*") or "**/*"
        yield from glob_files(root, wide, "start.labels")  # where there is none, MaskFolder says so


def find_labels(spec: RunSpec, target: SceneDataset) -> StartLabels | None:
    """Find and check the labels that a run begins with.

    Return None if ``start`` names nothing, if the run's own store has them already, and in processes that do not write.

    Raises:
        ConfigError: Masks are missing or left over, have another size or ids without a meaning, are unknown throughout,
            or contradict the other run.
        LabelStoreError: The other run has other classes or images.
    """
    start, parent, masks = spec.start, None, None
    if not start.has_labels or early_rank() != 0:
        return None
    try:
        if LabelStore.open(spec.output_dir / "labels").carried:
            return None
    except StoreMissingError:
        pass
    if start.run is not None:
        parent = LabelStore.open(Path(start.run) / "labels")
        sizes = [target.label_size(index) for index in range(len(target))]
        images = [TargetImage(scene.image_id, *size) for scene, size in zip(target.scenes, sizes, strict=True)]
        check_parent(parent, images, spec.taxonomy.class_names)
        if not parent.rounds and not parent.carried:
            raise _nothing_revealed(start)
    if start.labels is not None:
        allows_missing = start.missing_masks == "allow"
        masks = MaskFolder(Path(start.labels), target, spec.taxonomy, start.ids, allows_missing=allows_missing)
        masks.check()
        if parent is not None:
            _check_agree(parent, masks, start)
    return StartLabels(parent, masks)


def _check_agree(parent: LabelReader, masks: MaskFolder, start: StartSpec) -> None:
    """Refuse masks that contradict the labels of the other run."""
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
                f"{image.image_id}, row {row}, column {column}: {labels[differs][0]} there, {mask.label[row, column]} "
                "in the mask"
            )
            pixels, images = pixels + int(differs.sum()), images + 1
    if pixels:
        raise ConfigError(
            f"start.run={start.run} and start.labels={masks.folder} contradict each other on {pixels} pixels of "
            f"{images} images (train ids; {example}); answers are never replaced: make these pixels {UNKNOWN} in the "
            f"masks, or begin with the masks alone: {argument('model.checkpoint', start.weights)} instead of start.run"
        )


@dataclass(frozen=True)
class StartLabels:
    """Labels that a run begins with."""

    parent: LabelReader | None  # the label store of the other run
    masks: MaskFolder | None

    def carry(self, store: LabelStore) -> None:
        """Copy them into the store of the run, in one step, unless it has them already."""
        if store.log.events:
            return
        rounds = () if self.parent is None else carried_rounds(self.parent)
        if self.masks is not None:
            rounds = (*rounds, mask_round(len(rounds), {"ids": self.masks.ids, "sha256": self.masks.digest()}))
        store.carry(rounds, carried_images(store.images, self.parent, self.masks))
