"""A cache of the logits of a run's network on its target images, for many rounds of selection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.datamodule import RipuDataModule
from ripu.datasets.errors import Fault
from ripu.io.console import Progress
from ripu.io.errors import ConfigError
from ripu.io.reading import UntrustedError, read_array, read_json
from ripu.io.writing import AtomicFile, write_json
from ripu.loading.samples import of_one_size

MEMORY_BYTES = 2 << 30  # without a folder, larger logits are computed again for every round


class LogitSource:
    """The logits of a run's target images, kept in a folder (:meth:`keep_in`), else in memory if they fit."""

    def __init__(self, module: Any, datamodule: RipuDataModule, device: torch.device, num_classes: int) -> None:
        self.network: Callable[[Tensor], Tensor] = module  # maps raw images to logits
        self._data = datamodule
        self.device = device
        height, width = datamodule.target_size
        self._images = list(range(len(datamodule.target)))
        # An upper bound: networks with a smaller output need less.
        self._fits = 4 * num_classes * height * width * len(self._images) <= MEMORY_BYTES
        self._memory: dict[int, Tensor] = {}
        self._faults: dict[int, Fault] = {}
        self._folder: Path | None = None

    def keep_in(self, folder: Path, checkpoint: str) -> None:
        """Keep logits in a folder, one float16 ``.npy`` per image; use those that exist.

        Raises:
            ConfigError: The folder contains logits of other images, another size or weights of another digest.
        """
        ids = "\n".join(scene.image_id for scene in self._data.target.scenes)
        facts = {
            "checkpoint_sha256": checkpoint,
            "target_size": list(self._data.target_size),
            "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        }
        record = folder / "cache.json"
        if record.exists():
            try:
                before = read_json(record)
            except UntrustedError as error:
                raise ConfigError(f"cache={folder}: {error}; remove the folder, or name another") from error
            differs = [key for key in facts if not isinstance(before, dict) or before.get(key) != facts[key]]
            if differs:
                raise ConfigError(
                    f"cache={folder} contains logits of another {', '.join(differs)}; name another folder"
                )
        write_json(record, facts)
        self._folder = folder

    def pool(self, *, with_images: bool) -> Callable[[list[int]], Any]:
        """Return a function that makes the loaders of :meth:`ripu.selection.engine.SelectionEngine.run`.

        Batches contain images if their logits are not known, or ``with_images`` is set.
        """
        if self._folder is None and not self._fits:
            return self._data.pool_loader
        self._fill()

        def loader(indices: list[int]) -> Any:
            images = self._data.pool_loader(indices)
            known = _KnownLogits(images.dataset, indices, self._folder, self._memory, self._faults, with_images)
            return DataLoader(
                known,  # type: ignore[arg-type]
                images.batch_size,
                num_workers=images.num_workers if self._folder else 0,
                collate_fn=images.collate_fn,
            )

        return loader

    def _fill(self) -> None:
        """Compute missing logits; unreadable images are recorded and not tried again."""
        missing = [
            image
            for image in self._images
            if image not in self._faults
            and (image not in self._memory if self._folder is None else not _file(self._folder, image).exists())
        ]
        if not missing:
            return
        # Whole batches as in a round: an image is in the same batch whatever is missing.
        size = self._data.eval_batch
        wanted = {image // size for image in missing}
        images = [image for image in self._images if image // size in wanted]
        numbers = {self._data.target.scenes[image].image_id: image for image in missing}
        show, done = Progress("logits", len(images)), 0
        for batch in self._data.pool_loader(images):
            faults = batch.get("fault", ())
            self._faults |= {numbers[fault.image_id]: fault for fault in faults if fault.image_id in numbers}
            if batch["index"]:
                with torch.no_grad():
                    parts = [self.network(images.to(self.device)).cpu() for images in of_one_size(batch["image"])]
                for image, own in zip(batch["index"], chain.from_iterable(parts), strict=True):
                    self._keep(image, own)
            done += len(batch["index"]) + len(faults)
            show(done)

    def _keep(self, image: int, logits: Tensor) -> None:
        if self._folder is None:
            self._memory[image] = logits.clone()
            return
        with AtomicFile(_file(self._folder, image)) as file:  # another replay may fill the same cache
            np.save(file, logits.to(torch.float16).numpy())
            file.publish()


def _file(folder: Path, image: int) -> Path:
    return folder / f"{image:06d}.npy"


@dataclass(frozen=True)
class _KnownLogits:
    """A data set of cached logits, with the images if they are needed."""

    images: Any
    indices: Sequence[int]
    folder: Path | None
    memory: Mapping[int, Tensor]
    faults: Mapping[int, Fault]
    with_images: bool

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any]:
        index = self.indices[item]
        if index in self.faults:  # dropped when samples are collated, which needs the keys of the others
            return {"index": index, "image": torch.empty(0), "logits": torch.empty(0), "fault": self.faults[index]}
        sample = self.images[item] if self.with_images else {"index": index, "image": torch.empty(0)}
        if self.folder is None:
            return {**sample, "logits": self.memory[index]}
        path = _file(self.folder, index)
        try:
            logits = read_array(path, "number", 3, most_bytes=1 << 32)
        except UntrustedError as error:
            raise ConfigError(f"cache={self.folder}: {error}; remove it to compute it again") from error
        return {**sample, "logits": torch.from_numpy(logits).float()}
