"""A renewal: which images are looked at, what is held of them, and files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

import rounds
from ripu.datasets.errors import Fault
from ripu.loading.pseudo_labels import PseudoLabels
from ripu.loading.samples import collate_eval
from ripu.selection.forward import Source
from ripu.selection.ranks import Ranks, SelectionError, Together
from ripu.selection.renewal import _Renewal


class Pool(rounds.Pool):
    """The images of a small round, some of whose files cannot be read."""

    broken: frozenset[int] = frozenset()

    def __getitem__(self, item: int) -> dict[str, Any]:
        sample = super().__getitem__(item)
        index = sample["index"]
        return (
            {**sample, "fault": Fault("target", rounds.IDS[index], f"{index}.png", "cut off")}
            if index in self.broken
            else sample
        )


class Looking:
    """An objective that notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.found: Any = None

    def survey(self, logits: Tensor, features: None) -> NDArray[np.float64]:
        self.seen.append(round(float(logits.mean()), 5))
        return np.array([1.0, float(logits.mean())])

    def learn(self, found: NDArray[np.float64], kept: None, number: int) -> str:
        self.found = found
        return f"renewal {number}"

    def pseudo_label(self, logits: Tensor, learnt: str) -> Tensor:
        assert learnt == "renewal 2"
        return logits.argmax(dim=1).to(torch.uint8)


class Adding(Looking):
    adds_surveys = True


class LookingAtFew(Looking):
    most_surveyed = 3


def renewal_of(objective: Any, run: Path, broken: frozenset[int] = frozenset()) -> _Renewal:
    def loader(indices: list[int]) -> DataLoader[Any]:
        pool = Pool(indices)
        pool.broken = broken
        return DataLoader(pool, batch_size=2, collate_fn=collate_eval)

    def part(most: int | None) -> Source:
        images = list(range(rounds.NUM_IMAGES)) if most is None else [0, 2, 4][:most]
        return Source(loader, images, lambda image: (rounds.network()(image), None), torch.device("cpu"))

    run.mkdir(exist_ok=True)
    return _Renewal(objective, None, 2, part, Together(Ranks(), "renewal 2 at step 9"), run, rounds.NUM_IMAGES)


def means(*indices: int) -> list[float]:
    return [float(rounds.network()(image[None]).mean()) for image in rounds.images()[list(indices)]]


def test_surveys_are_stacked_or_added_up(tmp_path: Path) -> None:
    every, sums, few = Looking(), Adding(), LookingAtFew()
    for objective in (every, sums, few):
        assert renewal_of(objective, tmp_path).learn() == "renewal 2"
    values = means(*range(rounds.NUM_IMAGES))
    np.testing.assert_allclose(every.found, [[1.0, value] for value in values], rtol=1e-5)
    np.testing.assert_allclose(sums.found, [rounds.NUM_IMAGES, sum(values)], rtol=1e-5)
    np.testing.assert_allclose(few.found, [[1.0, value] for value in means(0, 2, 4)], rtol=1e-5)


def test_an_image_that_cannot_be_read_has_no_pseudo_label_and_is_reported(tmp_path: Path) -> None:
    objective = Looking()
    renewal = renewal_of(objective, tmp_path, frozenset({3}))
    labels = PseudoLabels.of_renewal(tmp_path, 2, rounds.IDS)
    renewal.label(renewal.learn(), labels, {"step": 9})
    assert len(objective.found) == rounds.NUM_IMAGES - 1
    assert {fault.file for fault in renewal.faults} == {"3.png"}
    index = json.loads((labels.folder / "index.json").read_text())
    assert index == {"images": rounds.NUM_IMAGES, "step": 9, "unreadable": [3]}
    assert len([*labels.folder.glob("*.png")]) == rounds.NUM_IMAGES - 1
    read = labels.checked()
    assert read(3).tolist() == [[255]]  # if the file can be read again
    assert read(2).shape == rounds.INPUT


class OnlyLabelling:
    def pseudo_label(self, logits: Tensor, learnt: None) -> Tensor:
        return logits.argmax(dim=1).to(torch.uint8)


@pytest.mark.parametrize("objective", [Looking(), Adding(), OnlyLabelling()], ids=lambda one: type(one).__name__)
def test_a_renewal_without_a_readable_image_says_what_to_do(objective: Any, tmp_path: Path) -> None:
    renewal = renewal_of(objective, tmp_path, frozenset(range(rounds.NUM_IMAGES)))
    labels = PseudoLabels.of_renewal(tmp_path, 2, rounds.IDS)
    message = r"renewal 2 at step 9 failed: none of the target images could be read; restore the files \(python"
    with pytest.raises(SelectionError, match=message):
        renewal.label(renewal.learn(), labels, {})
    assert len(renewal.faults) == rounds.NUM_IMAGES
    assert not (labels.folder / "index.json").exists()
