"""The processes that share a round: they fail together, and exchange the scores of their candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripu.acquisition.nested import Survey
from ripu.io.errors import RipuError, line_of
from ripu.io.writing import TMP_PREFIX, writing
from ripu.selection.candidates import Candidates

_T = TypeVar("_T")


class SelectionError(RipuError, RuntimeError):
    """A failed round; nothing of it was committed."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a job; only this one by default.

    Attributes:
        all_true: Returns whether a value is True on every rank; waits for all of them.
    """

    rank: int = 0
    world_size: int = 1
    all_true: Callable[[bool], bool] = bool


@dataclass(frozen=True)
class Together:
    """Work that fails on all ranks if it fails on one; errors call it ``name``."""

    ranks: Ranks
    name: str

    def __call__(self, work: Callable[[], _T], failed: str = "was not committed") -> _T:
        """Do this rank's part, and wait for the others; if one of them failed, raise SelectionError."""
        failure: Exception | None = None
        result: Any = None
        try:
            result = work()
        except Exception as error:
            failure = error
        if not self.ranks.all_true(failure is None):
            cause = "another process of the job failed"
            if failure is not None:
                cause = line_of(failure) or f"{type(failure).__name__}: {failure}"
            raise SelectionError(f"{self.name} {failed}: {cause}") from failure
        return result  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Exchange:
    """The scores of all ranks' candidates, or what a score wants to know of the pool, exchanged by files.

    The files lie beside the shards.

    After a crash, the label store removes these files as temporary ones when it is next opened for writing.
    """

    folder: Path
    index: int
    ranks: Ranks
    content: str = "candidates"

    def _path(self, rank: int) -> Path:
        return self.folder / f"{TMP_PREFIX}{self.content}-{self.index:03d}-{rank:05d}.npz"

    def write(self, offers: Iterator[Candidates]) -> list[Candidates]:
        """Collect this rank's candidates, and write their scores and costs for the others."""
        held = list(offers)
        path = self._path(self.ranks.rank)
        with writing(path):
            np.savez(
                path,
                image=np.array([offer.index for offer in held], dtype=np.int64),
                count=np.array([len(offer) for offer in held], dtype=np.int64),
                score=np.concatenate([np.zeros(0, np.float32), *(offer.scores for offer in held)]),
                cost=np.concatenate([np.zeros(0, np.int64), *(offer.pixels for offer in held)]),
            )
        return held

    def read(self, num_images: int) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
        """Return scores and costs by image, from all ranks."""
        scores = [np.zeros(0, np.float32)] * num_images
        costs = [np.zeros(0, np.int64)] * num_images
        for rank in range(self.ranks.world_size):
            with np.load(self._path(rank), allow_pickle=False) as part:
                ends = np.cumsum(part["count"])[:-1]
                split = zip(
                    part["image"].tolist(), np.split(part["score"], ends), np.split(part["cost"], ends), strict=True
                )
                for image, score, cost in split if len(part["image"]) else ():
                    scores[image], costs[image] = score, cost
        return scores, costs

    def write_surveys(self, surveys: Iterable[tuple[int, list[Survey]]]) -> None:
        """Write what is known of this rank's images, each with its index, for the others."""
        numbers, found = [], []
        for number, parts in surveys:
            numbers.append(number)
            found.append(parts)
        path = self._path(self.ranks.rank)
        with writing(path):
            columns = {f"part{place}": np.stack(column) for place, column in enumerate(zip(*found, strict=True))}
            np.savez(path, image=np.array(numbers, dtype=np.int64), **columns)  # type: ignore[arg-type]

    def read_surveys(self) -> list[list[Survey]]:
        """Return what is known of the images of all ranks, in the order of the images; unreadable ones are left out."""
        found: dict[int, list[Survey]] = {}
        for rank in range(self.ranks.world_size):
            with np.load(self._path(rank), allow_pickle=False) as part:
                columns = [part[f"part{place}"] for place in range(len(part.files) - 1)]
                for place, number in enumerate(part["image"].tolist()):
                    found[number] = [column[place] for column in columns]
        return [found[number] for number in sorted(found)]

    def remove(self) -> None:
        """Remove this rank's file."""
        self._path(self.ranks.rank).unlink(missing_ok=True)
