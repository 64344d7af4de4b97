"""Data of a run: mixed source and target batches, validation, and the pool that selection reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader

from ripu.datasets.errors import Fault
from ripu.datasets.scenes import SceneDataset
from ripu.io.signals import leave_signals_to_parent
from ripu.labelstore import LabelStore
from ripu.loading.class_balance import class_balanced_stream
from ripu.loading.image_cache import ImageCache
from ripu.loading.order import AlternatingStream, PhaseSampler, ShuffledStream, Stream, batches_of_rank
from ripu.loading.pseudo_labels import PseudoLabels
from ripu.loading.samples import (
    EvalScenes,
    LabelReader,
    PoolScenes,
    RevealedLabels,
    TrainScenes,
    Transform,
    collate_eval,
    collate_train,
)
from ripu.schedule import Plan

SOURCE, TARGET = 0, 1
"""Domains, as part of the key that draws and augmentations depend on."""


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
        is_labelled: bool = True,
        pseudo_folder: Path | None = None,
        labelled_images: bool = False,
    ) -> None:
        """Describe the data.

        Args:
            source, target, val: See :class:`ripu.datasets.scenes.Scenes`. With a ``store`` the target's own labels are
                not used, and should be stripped (:meth:`SceneDataset.without_labels`).
            plan, seed: The schedule; the seed of order and augmentation.
            source_size, target_size: (height, width) of images in training; selection and evaluation use the target's.
                Under ``fit`` pad of the scenes, images keep their proportions inside it.
            source_batch, target_batch: Images per micro-batch and device.
            uses_target: Whether target images are read after pre-training.
            store: The revealed labels; None to train on all target labels.
            transforms: Albumentations transforms for training.
            accumulate: Micro-batches per optimiser step.
            num_workers: Loader processes for each of source, target, validation and pool.
            eval_batch: Images per forward in evaluation and selection.
            source_classes: (N, C) bool, the classes in each source image; None samples uniformly, not class-balanced.
            cache: Keeps images, and labels that are read from files, at their training size.
            is_labelled: False to train on no target label at all.
            pseudo_folder: The folder of a run whose renewals make pseudo-labels; None if there are none.
            labelled_images: Let every second target image be one that was asked about, once there are any.
        """
        super().__init__()
        self.source, self.target, self.val = source, target, val
        self.plan, self.seed, self.accumulate = plan, seed, accumulate
        self.source_size, self.target_size = source_size, target_size
        self.source_batch, self.target_batch = source_batch, target_batch
        self.uses_target, self.store = uses_target, store
        self.transforms, self.cache = list(transforms), cache
        self.num_workers, self.eval_batch = num_workers, eval_batch
        self.source_classes = source_classes
        self.is_labelled, self.pseudo_folder, self.labelled_images = is_labelled, pseudo_folder, labelled_images
        self.faults: list[Fault] = []
        self.target_stream: Stream = ShuffledStream(len(target), seed, TARGET)

    def _train_loader(
        self,
        scenes: SceneDataset,
        domain: int,
        labels: LabelReader | None,
        stream: Stream,
        pseudo: LabelReader | None = None,
    ) -> DataLoader[Any]:
        trainer, step = self._trainer, self._trainer.global_step
        size, batch_size = (
            (self.source_size, self.source_batch) if domain == SOURCE else (self.target_size, self.target_batch)
        )
        sampler = PhaseSampler(
            stream,
            (step, self.plan.phase(step)[1]),
            batch_size=batch_size,
            accumulate=self.accumulate,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(
            TrainScenes(scenes, size, labels, self.transforms, self.seed, domain, cache=self.cache, read_pseudo=pseudo),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate_train,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    @property
    def source_stream(self) -> Stream:
        """The order of source images; class-balanced draws are made for the run as a whole."""
        assert self.source is not None
        if self.source_classes is None:
            return ShuffledStream(len(self.source), self.seed, SOURCE)
        num_draws = self.plan.max_steps * self.accumulate * self.source_batch * self._trainer.world_size
        return class_balanced_stream(self.source_classes, num_draws, self.seed, SOURCE)

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer

    def target_labels(self, step: int) -> LabelReader | None:
        """Return the reader of target labels at a training step; None while nothing is revealed."""
        if self.store is None:
            return self.target.require_label if self.is_labelled else None
        num_rounds = self.plan.num_rounds(step)
        if num_rounds == 0 and not self.store.carried:
            return None
        return RevealedLabels(self.store, tuple(scene.image_id for scene in self.target.scenes), num_rounds)

    def pseudo_labels(self, step: int) -> PseudoLabels | None:
        """Return the reader of pseudo-labels at a training step; None while there are none.

        Raises:
            ConfigError: Those of the last renewal are not there.
        """
        number = self.plan.num_renewals(step)
        if self.pseudo_folder is None or number == 0:
            return None
        image_ids = tuple(scene.image_id for scene in self.target.scenes)
        return PseudoLabels.of_renewal(self.pseudo_folder, number - 1, image_ids).checked()

    def _alternating(self, step: int) -> Stream:
        """Return the order of target images in which every second one was asked about."""
        if self.store is None:
            return self.target_stream
        num_rounds, store = self.plan.num_rounds(step), self.store
        asked = [
            index
            for index, scene in enumerate(self.target.scenes)
            if any(len(record.picks) for _, record in store.picks_as_of(scene.image_id, num_rounds))
        ]
        if not asked:
            return self.target_stream
        own = ShuffledStream(len(asked), self.seed, TARGET, num_rounds)
        return AlternatingStream(tuple(asked), own, self.target_stream, self.target_batch * self._trainer.world_size)

    def train_dataloader(self) -> CombinedLoader:
        """Return the loader of the current phase: ``{"source": ..., "target": ...}`` batches, either may be missing."""
        step = self._trainer.global_step
        loaders = {}
        if self.source is not None:
            loaders["source"] = self._train_loader(self.source, SOURCE, self.source.require_label, self.source_stream)
        if self.uses_target and not self.plan.is_pretraining(step):
            labels, pseudo = self.target_labels(step), self.pseudo_labels(step)
            stream = self._alternating(step) if self.labelled_images else self.target_stream
            loaders["target"] = self._train_loader(self.target, TARGET, labels, stream, pseudo)
        return CombinedLoader(loaders, "min_size")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, but leave the sizes of padded images on the CPU, where they are read."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        for domain in ("source", "target"):
            if domain in moved and "shape" in batch[domain]:
                moved[domain]["shape"] = batch[domain]["shape"]
        return moved

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank's share of the validation scenes; each is on exactly one rank."""
        rank, world_size = self._trainer.global_rank, self._trainer.world_size
        size = min(self.eval_batch, len(self.val) // world_size)  # no loader is empty
        indices = batches_of_rank(range(len(self.val)), size, rank, world_size)
        return self._eval_loader(EvalScenes(self.val, self.target_size, indices, self.cache), size)

    test_dataloader = val_dataloader

    def pool_loader(self, indices: Sequence[int]) -> DataLoader[Any]:
        """Return a loader of target scenes for selection: no augmentation, no labels, in the given order."""
        return self._eval_loader(PoolScenes(self.target, self.target_size, indices, self.cache))

    def views_loader(self, indices: Sequence[int]) -> DataLoader[Any]:
        """Return the loader of :meth:`pool_loader`; each scene that has one is followed by its translation.

        The ``index`` of a translation is that of its scene plus the number of target scenes.
        """
        others = self.target.translations
        if others is None:
            return self.pool_loader(indices)
        count = len(self.target)
        renamed = (replace(one, image_id=f"{one.image_id}, translated") for one in others.scenes)
        views = (*self.target.scenes, *renamed)
        both = [view for index in indices for view in (index, index + count)]
        return self._eval_loader(PoolScenes(replace(self.target, scenes=views), self.target_size, both, self.cache))

    def source_pool_loader(self, indices: Sequence[int]) -> DataLoader[Any]:
        """Return a loader of source scenes with their labels for scores that know the source, in the given order."""
        assert self.source is not None
        return self._eval_loader(EvalScenes(self.source, self.source_size, indices, self.cache))

    def _eval_loader(self, scenes: PoolScenes, batch_size: int | None = None) -> DataLoader[Any]:
        trainer = self.trainer  # a replay has none
        return DataLoader(
            scenes,
            batch_size=batch_size or self.eval_batch,
            num_workers=self.num_workers,
            collate_fn=collate_eval,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )
