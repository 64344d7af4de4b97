"""Samples: one image with its label, as training, evaluation and selection read it.

A training sample depends on (seed, position in the stream, labels of the round) alone, so a resumed run reads the same
samples as an uninterrupted one, with any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ripu.datasets.errors import Fault, SceneError, SkippedFileError
from ripu.datasets.image_files import resize_label
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.labelstore import LabelStore
from ripu.loading.image_cache import ImageCache
from ripu.loading.order import seed_of

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

MOST_SUBSTITUTES = 100
"""Scenes drawn in place of an unreadable one (``data.unreadable=skip``) before training gives up."""

LabelReader = Callable[[int], NDArray[np.uint8]]
Transform = Callable[..., dict[str, Any]]
Sample = dict[str, Any]


@dataclass(frozen=True)
class RevealedLabels:
    """Reader of the labels revealed before the run and in its first ``num_rounds`` rounds, and of nothing else."""

    store: LabelStore
    image_ids: tuple[str, ...]
    num_rounds: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Return (H, W) uint8 train ids at label resolution, 255 = not revealed."""
        return self.store.revealed_label(self.image_ids[index], self.num_rounds)


class TrainScenes(Dataset[Sample]):
    """Scenes as training sees them: resized, then augmented by a draw that depends on (seed, position) alone."""

    def __init__(
        self,
        scenes: SceneDataset,
        size: tuple[int, int],
        read_label: LabelReader | None,
        transforms: Sequence[Transform],
        *key: int,
        cache: ImageCache | None = None,
        read_pseudo: LabelReader | None = None,
    ) -> None:
        """Describe the data set.

        Args:
            scenes: Source of the images; with ``scenes.translations``, half are taken from there.
            size: (height, width) that images and labels are resized to, or, under ``scenes.fit`` pad, into.
            read_label: Reads the label of a scene; None if there are no labels at all.
            transforms: Albumentations transforms, applied in order to image and label together.
            *key: Non-negative integers that seed the augmentation, with the position.
            cache: Keeps images, and labels that ``scenes.require_label`` reads, at their training size.
            read_pseudo: Reads the pseudo-label of a scene; None if there are none.
        """
        import albumentations

        self.scenes, self.size, self.read_label = scenes, size, read_label
        self.key, self.cache, self.read_pseudo = key, cache, read_pseudo
        more = {} if read_pseudo is None else {"additional_targets": {"pseudo": "mask"}}
        self.augment = albumentations.Compose(list(transforms), **more) if transforms else None

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of a (position, index) pair.

        It contains ``image`` (B, H, W) uint8; ``label`` (H, W) uint8 train ids, 255 for void and for what is not
        revealed; the same as ``pseudo`` for pseudo-labels, if there are any; ``position`` and ``index``; and, if files
        could not be read, ``fault``, a list of them. Under the policy ``skip``, a scene that cannot be read is replaced
        by one drawn from key and position alone.

        Raises:
            SceneError: The scene cannot be read, nor, under ``skip``, can :data:`MOST_SUBSTITUTES` others.
        """
        position, index = key
        faults: list[Fault] = []
        while True:
            try:
                image, label = self._read(position, index)
                break
            except SkippedFileError as skipped:
                faults.append(skipped.fault)
                if len(faults) > MOST_SUBSTITUTES:
                    raise SceneError(
                        f"{self.scenes.name}: none of {len(faults)} scenes drawn in a row could be read; the last was "
                        f"{faults[-1].file}; restore the files (python -m ripu.doctor lists them)"
                    ) from skipped
                index = seed_of(*self.key, position, len(faults)) % len(self.scenes)
        pseudo = {}
        if self.read_pseudo is not None:
            pseudo = {"pseudo": resize_label(self.read_pseudo(index), image.shape[:2])}
        if self.augment is not None:
            self.augment.set_random_seed(seed_of(*self.key, position) % 2**32)
            drawn = self.augment(image=image, mask=label, **pseudo)
            image, label = drawn["image"], drawn["mask"]
            pseudo = {name: drawn[name] for name in pseudo}
        sample: Sample = {
            "image": _channels_first(image),
            "label": torch.from_numpy(np.array(label)),
            **{name: torch.from_numpy(np.array(value)) for name, value in pseudo.items()},
            "position": position,
            "index": index,
        }
        if faults:
            sample["fault"] = faults
        return sample

    def _read(self, position: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        others = self.scenes.translations
        scenes = others if others is not None and seed_of(*self.key, position, 0) % 2 else self.scenes
        image = _sized_image(scenes, index, self.size, self.cache)
        if self.read_label is None:
            return image, np.full(image.shape[:2], VOID, dtype=np.uint8)
        if self.cache is not None and self.read_label == self.scenes.require_label:
            return image, self.cache.label(self.scenes, index, image.shape[:2])
        return image, resize_label(self.read_label(index), image.shape[:2])


@dataclass(eq=False)
class PoolScenes(Dataset[Sample]):
    """Scenes without augmentation and without labels, at the size that the network is fed.

    Attributes:
        scenes: Source of the images.
        size: (height, width) that images are resized to, or, under ``scenes.fit`` pad, into.
        indices: The scenes to read, in this order.
        cache: Keeps images at their size.
    """

    scenes: SceneDataset
    size: tuple[int, int]
    indices: Sequence[int]
    cache: ImageCache | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Sample:
        """Return the sample of the ``item``-th of the chosen scenes.

        It contains ``image`` (B, h, w) uint8 and ``index``. If the file cannot be read and is to be skipped, the
        image is black, and ``fault`` names the file; :func:`collate_eval` leaves such a sample out.
        """
        index = self.indices[item]
        try:
            return {"image": _channels_first(_sized_image(self.scenes, index, self.size, self.cache)), "index": index}
        except SkippedFileError as skipped:
            black = torch.zeros((self.scenes.image_reader.num_bands, *self.size), dtype=torch.uint8)
            return {"image": black, "index": index, "fault": skipped.fault}


class EvalScenes(PoolScenes):
    """Scenes for evaluation: the image at network size, the label at its own size."""

    def __getitem__(self, item: int) -> Sample:
        """Return the sample with ``label``, (H, W) uint8 train ids at the label's own size; void if it is skipped."""
        sample = super().__getitem__(item)
        index = sample["index"]
        try:
            label = self.scenes.require_label(index)
        except SkippedFileError as skipped:
            label = np.full(self.scenes.label_size(index), VOID, dtype=np.uint8)
            sample.setdefault("fault", skipped.fault)
        sample["label"] = torch.from_numpy(label)
        return sample


def _sized_image(
    scenes: SceneDataset, index: int, size: tuple[int, int], cache: ImageCache | None
) -> NDArray[np.uint8]:
    return scenes.require_sized_image(index, size) if cache is None else cache.image(scenes, index, size)


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def collate_train(samples: list[Sample]) -> dict[str, Any]:
    """Stack images, labels and numbers; list in ``fault``, if there are any, the files that could not be read.

    Images of different sizes are padded below and to the right, by repeating their last pixels, to the largest height
    and width; labels with void. ``shape`` (B, 2) int64 then has the height and width of each image without its padding.
    """
    faults = [fault for sample in samples for fault in sample.pop("fault", [])]
    shapes = torch.tensor([tuple(sample["label"].shape) for sample in samples])
    rows, columns = shapes.amax(dim=0).tolist()
    if is_padded := bool((shapes != shapes[0]).any()):
        samples = [_padded(sample, rows, columns) for sample in samples]
    batch: dict[str, Any] = default_collate(samples)
    if is_padded:
        batch["shape"] = shapes
    return {**batch, "fault": faults} if faults else batch


def _padded(sample: Sample, rows: int, columns: int) -> Sample:
    height, width = sample["label"].shape
    below, right = (0, rows - height), (0, columns - width)
    image = np.pad(sample["image"].numpy(), ((0, 0), below, right), mode="edge")
    labels = {name: sample[name].numpy() for name in ("label", "pseudo") if name in sample}
    padded = {name: np.pad(value, (below, right), constant_values=VOID) for name, value in labels.items()}
    return {**sample, "image": torch.from_numpy(image)} | {name: torch.from_numpy(one) for name, one in padded.items()}


def of_one_size(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the images of :func:`collate_eval` as batches for the network: one, or one for each if sizes differ."""
    return [images] if isinstance(images, Tensor) else [image[None] for image in images]


def collate_eval(samples: list[Sample]) -> dict[str, Any]:
    """Stack the images, or keep them a list if their sizes differ; keep labels a list, since theirs may.

    Scenes that could not be read are left out and listed in ``fault``.
    """
    whole = [sample for sample in samples if "fault" not in sample]
    batch: dict[str, Any] = {key: [sample[key] for sample in whole] for key in samples[0] if key != "fault"}
    if len({image.shape for image in batch["image"]}) < 2:
        batch["image"] = torch.stack(batch["image"]) if whole else samples[0]["image"].new_empty(0)
    if len(whole) < len(samples):
        batch["fault"] = [sample["fault"] for sample in samples if "fault" in sample]
    return batch
