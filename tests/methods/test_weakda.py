"""WeakDA: classes of images, class features and terms against literal loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference import losses as reference
from ripu.acquisition import Features
from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from ripu.methods import WeakLabels
from ripu.methods.weak_labels import class_features, classes_of, presence
from running import compose
from students import CLASSES, Student, make_batch, numpy

Array = NDArray[np.float64]


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def present(logits: Array, sharpness: float) -> list[float]:
    """The logit of each class of an image, (C, H, W)."""
    pixels = logits.reshape(len(logits), -1)
    return [math.log(sum(math.exp(sharpness * one) for one in row) / len(row)) / sharpness for row in pixels]


def pooled(logits: Array, features: Array) -> Array:
    """The features of each class, (C, D), of an image whose cells are its pixels."""
    found = np.zeros((len(logits), len(features)))
    for number, own in enumerate(logits):
        total = sum(math.exp(one) for one in own.ravel())
        for row, column in np.ndindex(*own.shape):
            found[number] += math.exp(own[row, column]) / total * features[:, row, column]
    return found


def told(kept: Any, features: Array) -> list[float]:
    """The probability of the target by the discriminator of each class, from (C, D) features."""
    first, _, last = kept.layers
    width = first.out_channels // CLASSES
    found = []
    for number, values in enumerate(features):
        rows = range(number * width, (number + 1) * width)
        hidden = [float(numpy(first.weight)[row, :, 0] @ values + numpy(first.bias)[row]) for row in rows]
        hidden = [one if one > 0 else 0.2 * one for one in hidden]
        weight = numpy(last.weight)[number, :, 0]
        found.append(sigmoid(float(weight @ np.array(hidden) + numpy(last.bias)[number])))
    return found


def sparse_batch(seed: int) -> dict[str, Tensor]:
    """Two images with labels of the classes 0 and 2, and 1."""
    batch = make_batch(seed)
    label = batch["label"]
    label[0][(label[0] == 1) | (label[0] == 3)] = 255
    label[1][label[1] != 1] = 255
    return batch


@pytest.mark.parametrize("threshold", [0.2, 0.999])
def test_the_terms_and_who_learns_from_them(threshold: float) -> None:
    method = WeakLabels(presence_weight=0.5, adversarial_weight=0.25, sharpness=1.5, threshold=threshold)
    student, batch = Student(method), sparse_batch(2)
    kept: Any = student.kept
    logits, features = student.with_features(batch["image"])
    label = batch["label"].numpy()
    found = [present(numpy(one), 1.5) for one in logits]
    points = [{*np.unique(one).tolist()} - {255} for one in label]
    assert points == [{0, 2}, {1}]
    is_there = [
        [number in points[b] or sigmoid(found[b][number]) > threshold for number in range(CLASSES)] for b in range(2)
    ]
    losses = [
        sum(-math.log(sigmoid(one if there else -one)) for one, there in zip(found[b], is_there[b], strict=True))
        for b in range(2)
    ]
    probs = [told(kept, pooled(numpy(logits[b]), numpy(features.values[b]))) for b in range(2)]
    chosen = [probs[b][number] for b, number in np.ndindex(2, CLASSES) if is_there[b][number]]
    target = method.target_terms(student, batch)
    wanted = {
        "target_ce": reference.supervised(numpy(logits), label, "labelled", 0.0),
        "presence": 0.5 * sum(losses) / 2,
        "adversarial": 0.25 * sum(-math.log(1.0 - one) for one in chosen) / len(chosen),
        "discriminator_target": 0.5 * sum(-math.log(one) for one in chosen) / len(chosen),
    }
    assert {name: float(term.detach()) for name, term in target.items()} == pytest.approx(wanted, rel=1e-4)
    source = method.source_terms(student, batch, is_adapting=True)
    chosen = [probs[b][number] for b in range(2) for number in points[b]]
    assert set(source) == {"source_ce", "discriminator_source"}
    assert float(source["source_ce"].detach()) == pytest.approx(wanted["target_ce"], abs=1e-5)
    assert float(source["discriminator_source"].detach()) == pytest.approx(
        0.5 * sum(-math.log(1.0 - one) for one in chosen) / len(chosen), rel=1e-4
    )
    assert set(method.source_terms(student, batch, is_adapting=False)) == {"source_ce"}
    networks, discriminators = list(student.network.parameters()), list(student.kept.parameters())
    for terms, name, who, others in (
        (target, "presence", networks, discriminators),
        (target, "adversarial", networks, discriminators),
        (target, "discriminator_target", discriminators, networks),
        (source, "discriminator_source", discriminators, networks),
    ):
        learnt = torch.autograd.grad(terms[name], who, retain_graph=True)
        assert all(one.any() for one in learnt)
        unused = torch.autograd.grad(terms[name], others, retain_graph=True, allow_unused=True)
        assert all(one is None for one in unused)


def test_without_points_the_network_says_which_classes_are_there() -> None:
    method, batch = WeakLabels(threshold=0.6), make_batch(3)
    student = Student(method)
    batch = {**batch, "label": torch.full_like(batch["label"], 255)}
    found = [present(numpy(one), 1.0) for one in student(batch["image"])]
    losses = [sum(-math.log(sigmoid(one if sigmoid(one) > 0.6 else -one)) for one in row) for row in found]
    terms = method.target_terms(student, batch)
    assert float(terms["presence"].detach()) == pytest.approx(0.01 * sum(losses) / 2, rel=1e-4)
    assert float(terms["target_ce"].detach()) == 0.0


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 20.0])
def test_presence_lies_between_mean_and_maximum(sharpness: float) -> None:
    logits = torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(1)) * 3
    found = presence(logits, sharpness)
    wanted = [present(numpy(one), sharpness) for one in logits]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert (found <= logits.amax(dim=(2, 3)) + 1e-5).all()
    assert (found >= logits.mean(dim=(2, 3)) - 1e-5).all()
    assert not presence(torch.full((1, 2, 3, 3), 100.0), sharpness).isinf().any()


def test_the_gradient_of_presence_is_that_of_differences() -> None:
    logits = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    presence(logits, 1.5)[0, 0].backward()
    assert logits.grad is not None
    exact = numpy(logits[0])
    for place in np.ndindex(*exact.shape):
        ends = []
        for change in (1e-5, -1e-5):
            moved = exact.copy()
            moved[place] += change
            ends.append(present(moved, 1.5)[0])
        assert float(logits.grad[0][place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)


def test_cells_outside_the_image_have_no_part_in_class_features() -> None:
    """Of 4 x 5 cells that cover 40 x 50 pixels, 3 x 4 have their middle in an image of 28 x 38."""
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(2, 6, 4, 5, generator=generator)
    logits = torch.randn(2, CLASSES, 28, 38, generator=generator)
    found = class_features(logits, Features(values, (40, 50)))
    rows, columns = [5, 15, 25], [5, 15, 25, 35]
    for number in range(2):
        at = numpy(logits[number])[:, rows][:, :, columns]
        np.testing.assert_allclose(found[number], pooled(at, numpy(values[number])[:, :3, :4]), atol=1e-5)
    smaller = class_features(logits, Features(values, (40, 50)), torch.tensor([[28, 38], [20, 20]]))
    torch.testing.assert_close(smaller[0], found[0])
    at = numpy(logits[1])[:, rows[:2]][:, :, columns[:2]]
    np.testing.assert_allclose(smaller[1], pooled(at, numpy(values[1])[:, :2, :2]), atol=1e-5)
    # No cell has its middle in 4 rows of pixels: all of them count alike
    flat = class_features(logits, Features(values, (40, 50)), torch.tensor([[28, 38], [4, 38]]))
    torch.testing.assert_close(flat[0], found[0])
    torch.testing.assert_close(flat[1], values[1].mean(dim=(1, 2)).expand(CLASSES, -1))


def test_classes_of_labels() -> None:
    label = torch.tensor([[[0, 255], [3, 3]], [[255, 255], [255, 255]]], dtype=torch.uint8)
    assert classes_of(label, 4).tolist() == [[True, False, False, True], [False] * 4]


def test_it_asks_for_points_once() -> None:
    spec = checked_spec(compose("method=weakda", "dataset=gtav", "paths.output_dir=run"))
    assert spec.query is not None
    assert spec.query.pixel
    assert spec.plan.selection_steps == (10_000,)
    assert spec.query.picks_per_round((640, 1280), (640, 1280)) == 40
    with pytest.raises(ConfigError, match=r"method=weakda cannot ask with mode=ra; use mode=pa"):
        checked_spec(compose("method=weakda", "mode=ra", "paths.output_dir=run"))
