"""The order of images: pure functions of (seed, position), so that a run can be resumed at any step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class Stream(Protocol):
    """A sequence of image indices."""

    def __getitem__(self, position: int) -> int:
        """Return the index of the image that is drawn at a position."""


def seed_of(*key: int) -> int:
    """Return a 63-bit seed that depends on all parts of a key and on nothing else."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class ShuffledStream:
    """Uniform sampling without replacement: one seeded permutation of the data set after another."""

    def __init__(self, length: int, *key: int) -> None:
        """Order ``length`` images by non-negative integers, e.g. (seed, domain)."""
        self.length = length
        self.key = key

    def __getitem__(self, position: int) -> int:
        """Return the image index at a position >= 0."""
        epoch, offset = divmod(position, self.length)
        return int(_permutation(self.length, (*self.key, epoch))[offset])


@lru_cache(maxsize=8)
def _permutation(length: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(np.random.SeedSequence(key)).permutation(length)


@dataclass(eq=False)
class PhaseSampler(Sampler[tuple[int, int]]):
    """The (position, index) pairs that one rank reads in one phase.

    Position ``p`` of the stream belongs to micro-batch ``p // (batch_size * world_size)`` and within it to rank
    ``(p // batch_size) % world_size``, wherever in the phase reading begins.

    Attributes:
        stream: The sequence to read.
        steps: The next optimiser step, and the end of the phase (exclusive).
        batch_size: Images per micro-batch and rank.
        accumulate: Micro-batches per optimiser step.
    """

    stream: Stream
    steps: tuple[int, int]
    _: KW_ONLY
    batch_size: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return (self.steps[1] - self.steps[0]) * self.accumulate * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for micro in range(self.steps[0] * self.accumulate, self.steps[1] * self.accumulate):
            first = (micro * self.world_size + self.rank) * self.batch_size
            for position in range(first, first + self.batch_size):
                yield position, self.stream[position]
