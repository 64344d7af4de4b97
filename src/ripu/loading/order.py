"""The order of images: pure functions of (seed, position), so that a run can be resumed at any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Return a 63-bit seed that depends on a key of non-negative integers alone; zeros at its end do not count."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def batches_of_rank(images: Sequence[int], size: int, rank: int, world_size: int) -> list[int]:
    """Return those of the images that a rank reads: whole batches in turn, the same batches with any number of ranks.

    >>> batches_of_rank(range(5), 2, 0, 2)
    [0, 1, 4]
    """
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    return [image for batch in batches[rank::world_size] for image in batch]


def evenly_spread(count: int, most: int | None) -> list[int]:
    """Return at most ``most`` of ``count`` positions, evenly spread; None: all.

    >>> evenly_spread(10, 4)
    [0, 2, 5, 7]
    """
    wanted = count if most is None else min(most, count)
    return [number * count // wanted for number in range(wanted)]


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


@dataclass(frozen=True)
class AlternatingStream:
    """Every second image is one of some, which have an order of their own; the others are of any kind.

    With an even number of ``places``, those of a micro-batch on all ranks, the kinds change places from one micro-batch
    to the next: a rank that reads a single image would get the same kind for ever.

    >>> stream = AlternatingStream((7, 9), ShuffledStream(2, 0), ShuffledStream(10, 1), places=2)
    >>> sorted(stream[position] for position in (0, 3))
    [7, 9]
    """

    some: tuple[int, ...]
    order: Stream  # of some
    others: Stream
    places: int

    def __getitem__(self, position: int) -> int:
        """Return the image index at a position >= 0."""
        half, is_second = divmod(position, 2)
        is_turned = self.places % 2 == 0 and position // self.places % 2 == 1
        return self.others[half] if bool(is_second) != is_turned else self.some[self.order[half]]


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
