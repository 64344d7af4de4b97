"""The images of a rank in a round, and the forward passes that they go through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ripu.io.errors import is_out_of_memory
from ripu.loading.samples import of_one_size
from ripu.selection.ranks import Ranks, SelectionError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The images of this rank, and the network that they go through."""

    pool: Callable[[list[int]], DataLoader[Any]]
    images: list[int]
    network: Callable[[Tensor], Tensor]
    device: torch.device

    def batches(self) -> Iterator[tuple[dict[str, Any], Iterator[Tensor]]]:
        """Yield the batches of the pool with the (1, C, h, w) logits of their images."""
        forward = _Forward(self.network, self.device)
        for batch in self.pool(self.images):
            yield batch, forward(batch)


@dataclass
class _Forward:
    """Runs batches through the network; halves them once memory runs out."""

    network: Callable[[Tensor], Tensor]
    device: torch.device
    limit: int | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Tensor]:
        """Yield the (1, C, h, w) logits of each image."""
        if "logits" in batch:
            for logits in batch["logits"]:
                yield logits[None].to(self.device)
            return
        for images in of_one_size(batch["image"]):
            yield from self._run(images)

    def _run(self, images: Tensor) -> Iterator[Tensor]:
        done = 0
        while done < len(images):
            part = images[done : done + (self.limit or len(images))]
            is_too_much = False
            try:
                with torch.no_grad():
                    logits = self.network(part.to(self.device))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise SelectionError(
                        "there is not enough memory on the device for the forward pass of one image; give a smaller "
                        "data.target_size, or trainer.precision=bf16-mixed"
                    ) from error
                is_too_much = True  # retried below, where the error no longer keeps its tensors alive
            if is_too_much:
                self.limit = len(part) // 2
                _log.warning(
                    "not enough memory for a batch of %d images; continuing with %d (evaluation.batch=%d avoids this)",
                    len(part),
                    self.limit,
                    self.limit,
                )
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield from (logits[at : at + 1] for at in range(len(logits)))
            done += len(part)


def share_of_rank(num_images: int, pool: Callable[[list[int]], DataLoader[Any]], ranks: Ranks) -> list[int]:
    """Return the images of this rank: whole batches in turn, so that an image is in the same one with any ranks."""
    images = list(range(num_images))
    size = getattr(pool(images), "batch_size", None) or 1
    batches = [images[first : first + size] for first in range(0, num_images, size)]
    return [image for batch in batches[ranks.rank :: ranks.world_size] for image in batch]
