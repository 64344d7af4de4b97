"""Batches that are cut into parts which fit into the memory of the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ripu.io.errors import is_out_of_memory

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass
class FittingParts:
    """Calls a function with the parts of batches, and halves them once memory runs out.

    Attributes:
        limit: Most images in a part; None until memory has run out.
    """

    limit: int | None = None

    def __call__(self, images: Tensor, run: Callable[[Tensor], _T]) -> Iterator[_T]:
        """Yield the results of the parts of a batch, (B, ...), in order.

        Raises:
            Exception: What ``run`` raises, unless memory ran out for more than one image.
        """
        done = 0
        while done < len(images):
            part = images[done : done + (self.limit or len(images))]
            is_too_much = False
            try:
                result = run(part)
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                is_too_much = True  # repeated below, where the error no longer keeps its tensors alive
            if is_too_much:
                self._halve(part)
                continue
            yield result
            done += len(part)

    def _halve(self, part: Tensor) -> None:
        self.limit = len(part) // 2
        _log.warning(
            "not enough memory for a batch of %d images; continuing with %d "
            "(a smaller evaluation.batch avoids this, or batch of ripu.evaluate and ripu.replay)",
            len(part),
            self.limit,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
