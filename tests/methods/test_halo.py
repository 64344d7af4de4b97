"""HALO: the hyperbolic head, its terms and its picks against literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import hyperbolic as literal
from reference import losses as reference
from reference.self_training import softmax
from ripu.acquisition import Features, HyperbolicRadius, UncertaintyOnly
from ripu.methods import Halo
from ripu.methods.halo import FARTHEST, Ball, class_logits, into_ball
from ripu.selection.picks import greedy_picks
from students import CLASSES, Student, make_batch, numpy

SIZE = (9, 11)


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("c", [0.25, 1.0, 2.0])
def test_logits_are_distances_to_hyperplanes(c: float) -> None:
    root = c**0.5
    tangent, normal, offset = random(2, 3, 4, 5, seed=0), random(6, 3, seed=1), random(6, 3, seed=2, scale=0.5)
    point = into_ball(tangent, root)
    found = class_logits(point, normal, offset, root)
    for b, k, i, j in np.ndindex(*found.shape):
        x = literal.from_origin(tangent[b, :, i, j].numpy(), c)
        np.testing.assert_allclose(point[b, :, i, j], x, atol=1e-12)
        p = literal.from_origin(offset[k].numpy(), c)
        assert float(found[b, k, i, j]) == pytest.approx(literal.class_logit(x, p, normal[k].numpy(), c), abs=1e-9)


def test_gradients_are_those_of_differences() -> None:
    given = (random(1, 3, 2, 2, seed=0), random(4, 3, seed=1), random(4, 3, seed=2, scale=0.3))
    assert torch.autograd.gradcheck(
        lambda tangent, normal, offset: class_logits(into_ball(tangent, 0.7), normal, offset, 0.7),
        tuple(one.requires_grad_() for one in given),
    )


def test_the_radius_is_the_distance_to_the_origin_and_ends() -> None:
    torch.manual_seed(0)
    ball = Ball(5, CLASSES, dimensions=3, curvature=0.5)
    features = Features(random(1, 5, 4, 6, seed=3).float(), (8, 12))
    far, tangent = ball.radius(features), ball.embedding(features.values).detach().double().numpy()
    for i, j in np.ndindex(4, 6):
        x = literal.from_origin(tangent[0, :, i, j], 0.5)
        assert float(far[0, 0, i, j].detach()) == pytest.approx(literal.distance(0.0 * x, x, 0.5), abs=1e-4)
    long = Features(1e6 * features.values, features.extent)
    assert ball.radius(long).detach().max() == pytest.approx(2 * FARTHEST / 0.5**0.5, rel=1e-5)
    ball.offset.data.fill_(1e6)
    logits = ball(long, (8, 12))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in ball.parameters())
    nothing = Features(torch.zeros(1, 5, 2, 2), (2, 2))
    ball.embedding.bias.data.zero_()  # type: ignore[union-attr]
    ball.zero_grad()
    ball(nothing, (2, 2)).sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in ball.parameters())


def test_the_terms_are_cross_entropies_of_both() -> None:
    method, batch = Halo(hyperbolic_weight=0.5, dimensions=3), make_batch()
    student = Student(method)
    logits, features = student.with_features(batch["image"])
    head = student.kept.ball(features, (32, 40))
    wanted = [reference.supervised(numpy(one), batch["label"].numpy(), "labelled", 0.0) for one in (logits, head)]
    source = method.source_terms(student, batch, is_adapting=False)  # type: ignore[arg-type]
    target = method.target_terms(student, batch)  # type: ignore[arg-type]
    for terms, names in ((source, ("source_ce", "hyperbolic_ce")), (target, ("target_ce", "hyperbolic_target_ce"))):
        assert list(terms) == list(names)
        assert [float(terms[name].detach()) for name in names] == pytest.approx([wanted[0], 0.5 * wanted[1]], abs=1e-5)
    target["hyperbolic_target_ce"].backward()
    assert all(one.grad is not None and one.grad.any() for one in student.kept.parameters())
    assert student.network.body.weight.grad is not None  # the features learn from the head


class Given:
    """A head whose logits and radii are given."""

    def __init__(self, logits: Tensor, far: Tensor) -> None:
        self.logits, self.far = logits, far
        self.ball = self

    def __call__(self, features: Features, size: tuple[int, int]) -> Tensor:
        return self.logits

    def radius(self, features: Features) -> Tensor:
        return self.far


@pytest.mark.parametrize("number", range(10))
def test_picks_are_those_by_hand(number: int) -> None:
    logits, far = random(1, CLASSES, *SIZE, seed=number, scale=3.0).float(), random(1, 1, *SIZE, seed=99).float().abs()
    probs = softmax(numpy(logits[0]))
    own = numpy(far[0, 0]) * -(probs * np.log(probs)).sum(axis=0)
    features = Features(torch.zeros(1, 1, 1, 1), SIZE)
    for pixel in (True, False):
        score: Any = HyperbolicRadius(1, pixel).with_kept(Given(logits, far))
        maps = score(torch.zeros_like(logits), SIZE, [0], features=features)
        wanted = np.array(
            [
                [
                    own[i, j] if pixel else own[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean()
                    for j in range(SIZE[1])
                ]
                for i in range(SIZE[0])
            ]
        )
        np.testing.assert_allclose(maps.score[0], wanted, atol=1e-5)
        expected, left = [], wanted.copy()
        for _ in range(6):
            row, column = divmod(int(left.argmax()), SIZE[1])
            expected.append([row, column])
            left[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = -1.0
        assert greedy_picks(maps.score[0], 6, 1).tolist() == expected


def test_outside_rounds_it_is_the_entropy() -> None:
    logits = random(1, CLASSES, *SIZE, seed=0).float()
    for pixel in (True, False):
        maps = HyperbolicRadius(1, pixel).with_kept(None)(logits, SIZE, [0])
        assert torch.equal(maps.score, UncertaintyOnly(1, pixel)(logits, SIZE, [0]).score)
