"""LabOR: terms and picks against literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference import losses as reference
from reference.self_training import softmax
from ripu.acquisition import Features, Inconsistency, UncertaintyOnly
from ripu.methods import Labor
from ripu.selection.picks import fair_picks, greedy_picks
from students import CLASSES, Student, numpy

SIZE = (9, 11)


def make_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, CLASSES, (2, *SIZE), generator=generator, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=generator) < 0.5] = 255
    return {"image": torch.randint(0, 256, (2, 3, *SIZE), generator=generator, dtype=torch.uint8), "label": label}


def test_the_terms_and_who_learns_from_them() -> None:
    method, batch = Labor(second_weight=0.5, discrepancy_weight=0.25), make_batch()
    student = Student(method)
    logits, features = student.with_features(batch["image"])
    second = student.kept.head(features, SIZE)
    wanted = [reference.supervised(numpy(one), batch["label"].numpy(), "labelled", 0.0) for one in (logits, second)]
    far = 0.0
    for b, row, column in np.ndindex(2, *SIZE):
        both = [softmax(numpy(one[b]))[:, row, column] for one in (logits, second)]
        far += sum(abs(p - q) for p, q in zip(*both, strict=True))
    source = method.source_terms(student, batch, is_adapting=False)  # type: ignore[arg-type]
    target = method.target_terms(student, batch)  # type: ignore[arg-type]
    for terms, names in ((source, ("source_ce", "second_ce")), (target, ("target_ce", "second_target_ce"))):
        assert [float(terms[name].detach()) for name in names] == pytest.approx([wanted[0], 0.5 * wanted[1]], abs=1e-5)
    assert float(target["discrepancy"].detach()) == pytest.approx(-0.25 * far / (2 * SIZE[0] * SIZE[1]), abs=1e-6)
    target["discrepancy"].backward(retain_graph=True)
    assert all(one.grad is None for one in student.network.parameters())
    assert all(one.grad is not None and one.grad.any() for one in student.kept.parameters())
    target["second_target_ce"].backward()
    assert student.network.body.weight.grad is not None  # the features learn from the second classifier's labels


def literal(first: NDArray[np.float64], second: NDArray[np.float64], *, pixel: bool) -> list[list[float]]:
    """Score every pixel of one image, (C, H, W) logits at the size of the map."""
    p, q = softmax(first), softmax(second)
    height, width = p.shape[1:]
    label, differs = p.argmax(axis=0), p.argmax(axis=0) != q.argmax(axis=0)
    found = [[0.0] * width for _ in range(height)]
    for row, column in np.ndindex(height, width):
        far = 0.5 * sum(abs(p[c, row, column] - q[c, row, column]) for c in range(len(p)))
        if not pixel:
            found[row][column] = float(differs[row, column]) + far
        elif differs[row, column]:
            mean = p[:, differs & (label == label[row, column])].mean(axis=1)
            found[row][column] = 2.0 - 0.5 * float(np.sqrt(((p[:, row, column] - mean) ** 2).sum()))
        else:
            found[row][column] = far
    return found


class Given:
    """A method that keeps a second classifier whose logits are given."""

    def __init__(self, second: Tensor) -> None:
        self.head = lambda features, size: second


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    first = [3.0 * torch.randn(1, CLASSES, *SIZE, generator=generator) for _ in range(10)]
    return [(one, one + 2.0 * torch.randn(one.shape, generator=generator)) for one in first]


FEATURES = Features(torch.zeros(1, 1, 1, 1), SIZE)


@pytest.mark.parametrize("number", range(10))
def test_pixels_are_picked_as_by_hand(number: int) -> None:
    first, second = images()[number]
    score: Any = Inconsistency(2, pixel=True).with_kept(Given(second))
    assert not score.is_comparable
    maps = score(first, SIZE, [0], features=FEATURES)
    wanted = np.array(literal(numpy(first[0]), numpy(second[0]), pixel=True))
    np.testing.assert_allclose(maps.score[0], wanted, atol=1e-5)
    label = numpy(first[0]).argmax(axis=0)
    assert (maps.group[0].numpy() == label).all()
    picks = fair_picks(maps.score[0], maps.group[0], 8, 1)
    left, counts, expected = np.ones(SIZE, dtype=bool), dict.fromkeys(np.unique(label).tolist(), 0), []
    while len(expected) < 8:
        open_classes = [c for c in counts if (left & (label == c)).any()]
        fewest = min(counts[c] for c in open_classes)
        turn = np.isin(label, [c for c in open_classes if counts[c] == fewest]) & left
        row, column = np.unravel_index(int(np.where(turn, wanted, -1.0).argmax()), SIZE)
        counts[int(label[row, column])] += 1
        expected.append([int(row), int(column)])
        left[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = False
    assert picks.tolist() == expected


def test_regions_ask_the_mask_first() -> None:
    first, second = images()[0]
    score: Any = Inconsistency(0).with_kept(Given(second))
    maps = score(first, SIZE, [0], features=FEATURES)
    np.testing.assert_allclose(maps.score[0], literal(numpy(first[0]), numpy(second[0]), pixel=False), atol=1e-5)
    differs = (first.argmax(dim=1) != second.argmax(dim=1))[0]
    picks = greedy_picks(maps.score[0], int(differs.sum()), 0)
    assert differs[picks[:, 0], picks[:, 1]].all()
    assert score.is_comparable


def test_outside_rounds_it_is_the_entropy() -> None:
    first, _ = images()[0]
    for pixel in (True, False):
        maps = Inconsistency(1, pixel).with_kept(None)(first, SIZE, [0])
        assert torch.equal(maps.score, UncertaintyOnly(1, pixel)(first, SIZE, [0]).score)
