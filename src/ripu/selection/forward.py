"""Batches of target images through the network, as many at once as there is memory for."""

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
    """Batches through the network; where memory runs out, in halves from then on."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Put images on ``device`` and ask ``network``: uint8 (B, 3, h, w) -> logits (B, C, h, w)."""
        self._network = network
        self._device = device
        self._limit: int | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Tensor]:
        """(1, C, h, w) logits, image by image."""
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
                        "there is not enough memory on the device for a forward of one image; give a smaller "
                        "data.target_size, or trainer.precision=bf16-mixed"
                    ) from error
                is_too_much = True  # tried again below, where the error no longer holds on to its tensors
            if is_too_much:
                self._limit = len(part) // 2
                _log.warning(
                    "not enough memory for a forward of %d images; going on with %d (evaluation.batch=%d avoids this)",
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
