"""The data side of a run: mixed source and target batches, validation, and the pool that selection reads.

Everything that training reads is a pure function of (seed, position in the stream, labels of the round), so a run that
is picked up at any step reads what it would have read without the interruption, with any number of workers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ripu.datasets.scenes import SceneDataset, SceneError
from ripu.datasets.taxonomy import VOID
from ripu.datasets.unreadable import Fault, TolerantScenes, strict
from ripu.labelstore import LabelStore
from ripu.loading.class_balance import ClassBalancedStream
from ripu.loading.image_cache import ImageCache
from ripu.loading.order import PhaseSampler, ShuffledStream, Stream, seed_of
from ripu.schedule import Plan

SOURCE, TARGET = 0, 1

MOST_SUBSTITUTES = 100
"""Draws in place of a scene that cannot be read, under ``data.unreadable=skip``, before it is an error after all."""

LabelReader = Callable[[int], NDArray[np.uint8]]
Transform = Callable[..., dict[str, Any]]


class _Fault(TypedDict, total=False):
    fault: list[Fault]


class TrainSample(_Fault):
    """What training reads of one image: uint8 (3, H, W) RGB, uint8 (H, W) train ids, the place in the stream and the scene."""

    image: Tensor
    label: Tensor
    position: int
    index: int


class _PoolFault(TypedDict, total=False):
    fault: Fault


class EvalSample(_PoolFault):
    """What evaluation and selection read of one image: uint8 (3, h, w) RGB at network size and the scene's index.

    Of :class:`TolerantScenes`, what cannot be read is black (a label void) and ``fault`` says so; loaders leave such a
    scene out of the batch.
    """

    image: Tensor
    index: int


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 to ``size`` (height, width) with Pillow's antialiased bicubic filter."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_label(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W) uint8 ids to ``size`` (height, width) with Pillow's centre-sampled nearest filter."""
    if label.shape == tuple(size):
        return label
    return np.asarray(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))


def sized_image(scenes: SceneDataset, index: int, size: tuple[int, int], cache: ImageCache | None) -> NDArray[np.uint8]:
    """The image of a scene at ``size`` (height, width), through a cache where there is one: (h, w, 3) uint8 RGB."""
    if cache is not None:
        return cache.image(scenes, index, size, resize_image)
    return resize_image(scenes.read_image(index), size)


@dataclass(frozen=True)
class RevealedLabels:
    """Reads the labels of target images that were revealed before the run and in its first rounds, and nothing else.

    Attributes:
        store: The label store of the run.
        image_ids: Image ids in the order of the data set.
        num_rounds: Rounds that count; later ones are not seen.
    """

    store: LabelStore
    image_ids: tuple[str, ...]
    num_rounds: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 train ids at label resolution, 255 = not revealed."""
        return self.store.revealed_label(self.image_ids[index], self.num_rounds)


class TrainScenes(Dataset[TrainSample]):
    """Scenes as training sees them: resized, then augmented by a draw that depends on (seed, position) alone."""

    def __init__(
        self,
        scenes: SceneDataset,
        size: tuple[int, int],
        read_label: LabelReader | None,
        transforms: Sequence[Transform],
        *key: int,
        cache: ImageCache | None = None,
    ) -> None:
        """Describe the data set.

        Args:
            scenes: Where images come from.
            size: (height, width) that images and labels are resized to.
            read_label: Reads the label of a scene; None where there is no label at all.
            transforms: Albumentations transforms, applied in order to image and label together.
            *key: Non-negative integers that seed the augmentation together with the position.
            cache: Keeps images, and labels that are read from files, at their size.
        """
        import albumentations

        self.scenes = strict(scenes)
        self.tolerant = scenes if isinstance(scenes, TolerantScenes) else None
        self.size = size
        self.read_label = read_label
        self.key = key
        self.cache = cache
        self.augment = albumentations.Compose(list(transforms)) if transforms else None

    def __getitem__(self, key: tuple[int, int]) -> TrainSample:
        """The sample of a (position, index) pair.

        Of :class:`TolerantScenes`, a scene that cannot be read is replaced by one that is drawn from the key and the
        position alone; the sample then holds ``fault``, a list of what could not be read.
        """
        position, index = key
        faults: list[Fault] = []
        while True:
            try:
                image, label = self._read(index)
                break
            except _Unreadable as failed:
                if self.tolerant is None:
                    raise failed.error from None
                faults.append(self.tolerant.fault(index, failed.path, failed.error))
                if len(faults) > MOST_SUBSTITUTES:
                    raise SceneError(
                        f"{self.scenes.name}: of {len(faults)} scenes drawn one after the other none could be read, the last "
                        f"is {faults[-1].file}; restore the files (python -m ripu.doctor lists them)"
                    ) from failed.error
                index = seed_of(*self.key, position, len(faults)) % len(self.scenes)
        if self.augment is not None:
            self.augment.set_random_seed(seed_of(*self.key, position) % 2**32)
            drawn = self.augment(image=image, mask=label)
            image, label = drawn["image"], drawn["mask"]
        sample: TrainSample = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "label": torch.from_numpy(np.array(label)),
            "position": position,
            "index": index,
        }
        if faults:
            sample["fault"] = faults
        return sample

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        path: Path | None = self.scenes.scenes[index].image
        try:
            image = sized_image(self.scenes, index, self.size, self.cache)
            path = self.scenes.scenes[index].label
            if self.read_label is None:
                label = np.full(self.size, VOID, dtype=np.uint8)
            elif self.cache is not None and self.read_label == self.scenes.read_label:
                label = self.cache.label(self.scenes, index, self.size, resize_label)
            else:
                label = resize_label(self.read_label(index), self.size)
        except SceneError as error:
            raise _Unreadable(path, error) from error
        return image, label


class _Unreadable(Exception):
    """Which file of a scene failed, and how."""

    def __init__(self, path: Path | None, error: SceneError) -> None:
        super().__init__(path, error)
        self.path = path
        self.error = error


class PoolScenes(Dataset[EvalSample]):
    """Scenes without augmentation and without labels, at the size that the network is fed."""

    def __init__(
        self, scenes: SceneDataset, size: tuple[int, int], indices: Sequence[int], cache: ImageCache | None = None
    ) -> None:
        """Describe the data set.

        Args:
            scenes: Where images come from.
            size: (height, width) that images are resized to.
            indices: The scenes to read, in this order.
            cache: Keeps images at their size.
        """
        self.scenes = strict(scenes)
        self.tolerant = scenes if isinstance(scenes, TolerantScenes) else None
        self.size = size
        self.indices = list(indices)
        self.cache = cache

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> EvalSample:
        """The sample of the ``item``-th of the chosen scenes."""
        index = self.indices[item]
        try:
            image = sized_image(self.scenes, index, self.size, self.cache)
        except SceneError as error:
            if self.tolerant is None:
                raise
            fault = self.tolerant.fault(index, self.scenes.scenes[index].image, error)
            return {"image": torch.zeros((3, *self.size), dtype=torch.uint8), "index": index, "fault": fault}
        return {"image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), "index": index}


class EvalScenes(PoolScenes):
    """Scenes for evaluation: the image at network size, the label at its own size."""

    def __getitem__(self, item: int) -> EvalSample:
        """The sample with its label, uint8 (H, W) train ids."""
        sample = super().__getitem__(item)
        index = sample["index"]
        try:
            label = torch.from_numpy(self.scenes.read_label(index))
        except SceneError as error:
            if self.tolerant is None:
                raise
            label = torch.full(self.tolerant.label_size(index), VOID, dtype=torch.uint8)
            sample.setdefault("fault", self.tolerant.fault(index, self.scenes.scenes[index].label, error))
        return {**sample, "label": label}  # type: ignore[typeddict-unknown-key]


def collate_train(samples: list[TrainSample]) -> dict[str, Any]:
    """Stack images, labels and numbers; ``fault`` is a list of what could not be read, where there is any."""
    faults = [fault for sample in samples for fault in sample.pop("fault", [])]
    batch: dict[str, Any] = default_collate(samples)
    return {**batch, "fault": faults} if faults else batch


def collate_eval(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the images; labels stay a list, since sizes may differ. Scenes that could not be read are left out and listed
    in ``fault``."""
    whole = [sample for sample in samples if "fault" not in sample]
    batch: dict[str, Any] = {key: [sample[key] for sample in whole] for key in samples[0] if key != "fault"}
    batch["image"] = torch.stack(batch["image"]) if whole else samples[0]["image"].new_empty(0)
    if len(whole) < len(samples):
        batch["fault"] = [sample["fault"] for sample in samples if "fault" in sample]
    return batch


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes of a job, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class RipuDataModule(pl.LightningDataModule):
    """Pairs source and target batches; serves validation images and the unaugmented pool."""

    def __init__(
        self,
        source: SceneDataset | None,
        target: SceneDataset,
        val: SceneDataset,
        *,
        plan: Plan,
        seed: int,
        source_size: tuple[int, int],
        target_size: tuple[int, int],
        source_batch: int,
        target_batch: int,
        uses_target: bool,
        store: LabelStore | None,
        transforms: Sequence[Transform] = (),
        accumulate: int = 1,
        num_workers: int = 0,
        eval_batch: int = 1,
        source_classes: NDArray[np.bool_] | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        """Describe the data.

        Args:
            source: Labelled source scenes; None where none are read.
            target: Target scenes for training. With a ``store`` their own labels are not used here, and should be
                stripped (:meth:`SceneDataset.without_labels`).
            val: Labelled target scenes that are reported on.
            plan: When phases begin and end.
            seed: Seed of order and augmentation.
            source_size: (height, width) of source images in training.
            target_size: (height, width) of target images in training, selection and evaluation.
            source_batch: Source images a micro-batch and device.
            target_batch: Target images a micro-batch and device.
            uses_target: Whether target images are read after pre-training.
            store: Where revealed labels are; None for training on all target labels.
            transforms: Albumentations transforms for training.
            accumulate: Micro-batches an optimiser step.
            num_workers: Loader processes for each of source, target, validation and pool.
            eval_batch: Images a forward in evaluation and selection.
            source_classes: (N, C) bool, which class is in which source image, for class-balanced sampling; None samples
                uniformly.
            cache: Keeps images, and labels that are read from files, at their training size.
        """
        super().__init__()
        self.source, self.target, self.val = source, target, val
        self.plan = plan
        self.seed = seed
        self.source_size, self.target_size = source_size, target_size
        self.source_batch, self.target_batch = source_batch, target_batch
        self.uses_target = uses_target
        self.store = store
        self.transforms = list(transforms)
        self.accumulate = accumulate
        self.num_workers = num_workers
        self.eval_batch = eval_batch
        self.source_classes = source_classes
        self.cache = cache
        self.faults: list[Fault] = []
        self.target_stream: Stream = ShuffledStream(len(target), seed, TARGET)

    def _loader(self, scenes: TrainScenes, stream: Stream, batch_size: int, steps: tuple[int, int]) -> DataLoader[Any]:
        trainer = self._trainer
        sampler = PhaseSampler(
            stream,
            steps,
            batch_size=batch_size,
            accumulate=self.accumulate,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(
            scenes,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate_train,
            worker_init_fn=ignore_interrupts,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    @property
    def source_stream(self) -> Stream:
        """Which source image is read when; class-balanced draws are made for the run as a whole."""
        assert self.source is not None
        if self.source_classes is None:
            return ShuffledStream(len(self.source), self.seed, SOURCE)
        num_draws = self.plan.max_steps * self.accumulate * self.source_batch * self._trainer.world_size
        return ClassBalancedStream(self.source_classes, num_draws, self.seed, SOURCE)

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer

    def target_labels(self, step: int) -> LabelReader | None:
        """How training step ``step`` reads the labels of target scenes."""
        if self.store is None:
            return strict(self.target).read_label
        num_rounds = self.plan.num_rounds(step)
        if num_rounds == 0 and not self.store.carried:
            return None
        return RevealedLabels(self.store, tuple(scene.image_id for scene in self.target.scenes), num_rounds)

    def train_dataloader(self) -> CombinedLoader:
        """Batches ``{"source": ..., "target": ...}`` of the phase that training is in; without source where none is read."""
        step = self._trainer.global_step
        steps = (step, self.plan.phase(step)[1])
        loaders = {}
        if self.source is not None:
            source = TrainScenes(
                self.source,
                self.source_size,
                strict(self.source).read_label,
                self.transforms,
                self.seed,
                SOURCE,
                cache=self.cache,
            )
            loaders["source"] = self._loader(source, self.source_stream, self.source_batch, steps)
        if self.uses_target and not self.plan.is_pretraining(step):
            target = TrainScenes(
                self.target,
                self.target_size,
                self.target_labels(step),
                self.transforms,
                self.seed,
                TARGET,
                cache=self.cache,
            )
            loaders["target"] = self._loader(target, self.target_stream, self.target_batch, steps)
        return CombinedLoader(loaders, "min_size")

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation scenes of this rank."""
        return self.eval_loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Validation scenes of this rank."""
        return self.eval_loader(self.val)

    def eval_loader(self, scenes: SceneDataset, indices: Sequence[int] | None = None) -> DataLoader[Any]:
        """Labelled scenes at network size, each on exactly one rank.

        Args:
            scenes: What to read.
            indices: Which scenes; by default the share of this rank.
        """
        if indices is None:
            indices = range(self._trainer.global_rank, len(scenes), self._trainer.world_size)
        return self._eval(EvalScenes(scenes, self.target_size, indices, self.cache))

    def pool_loader(self, indices: Sequence[int]) -> DataLoader[Any]:
        """Target scenes for selection: no augmentation, no labels, in the given order."""
        return self._eval(PoolScenes(self.target, self.target_size, indices, self.cache))

    def _eval(self, scenes: PoolScenes) -> DataLoader[Any]:
        return DataLoader(
            scenes,
            batch_size=self.eval_batch,
            num_workers=self.num_workers,
            collate_fn=collate_eval,
            worker_init_fn=ignore_interrupts,
        )
