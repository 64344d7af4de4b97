"""Forward passes of target images, in batches as large as memory allows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ripu.io.errors import is_out_of_memory
from ripu.selection.ranks import SelectionError

_log = logging.getLogger(__name__)


class Forward:
    """Runs batches through the network; halves them once memory runs out."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Use ``network``, uint8 (B, 3, h, w) -> logits (B, C, h, w), on ``device``."""
        self._network = network
        self._device = device
        self._limit: int | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Tensor]:
        """Yield the (1, C, h, w) logits of each image."""
        if "logits" in batch:
            for logits in batch["logits"]:
                yield logits[None].to(self._device)
            return
        images: Tensor = batch["image"]
        done = 0
        while done < len(images):
            part = images[done : done + (self._limit or len(images))]
            is_too_much = False
            try:
                with torch.no_grad():
                    logits = self._network(part.to(self._device))
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
                self._limit = len(part) // 2
                _log.warning(
                    "not enough memory for a batch of %d images; continuing with %d (evaluation.batch=%d avoids this)",
                    len(part),
                    self._limit,
                    self._limit,
                )
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            for item in range(len(part)):
                yield logits[item : item + 1]
            done += len(part)
