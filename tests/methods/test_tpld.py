"""TPLD: votes, easy images and terms against literal loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import adversary, densification
from reference import losses as reference
from reference import self_training as literal
from ripu.methods import Densification
from ripu.methods.densification import voted
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS
from students import CLASSES, Student, layers_of, make_batch, numpy

STEP = MOST_NATS / NUM_LEVELS


def make_logits(count: int, seed: int, size: tuple[int, int] = (9, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(count, CLASSES, 3, 4, generator=generator) * 2
    large = torch.nn.functional.interpolate(smooth, size, mode="bilinear", align_corners=True)
    return large + 0.5 * torch.randn(count, CLASSES, *size, generator=generator)


@pytest.mark.parametrize("size", [(9, 12), (1, 7)])
@pytest.mark.parametrize(("radius", "passes"), [(1, 1), (2, 3), (20, 2), (1, 0)])
def test_neighbours_vote(radius: int, passes: int, size: tuple[int, int]) -> None:
    changed = 0
    for one in make_logits(10, 1, size):
        probs = literal.softmax(numpy(one))
        label = np.where(probs.max(axis=0) > 0.75, probs.argmax(axis=0), 255).astype(np.uint8)
        found = voted(one[None], torch.from_numpy(label)[None], radius, passes, 0.3)
        assert found.dtype == torch.uint8
        assert np.array_equal(found[0].numpy(), densification.voted(probs, label, radius, passes, 0.3))
        assert np.array_equal(found[0].numpy()[label != 255], label[label != 255])
        changed += int((found[0].numpy() != label).sum())
    assert (changed > 0) == (passes > 0)


def test_without_labels_nobody_votes() -> None:
    nothing = torch.full((1, 9, 12), 255, dtype=torch.uint8)
    assert torch.equal(voted(make_logits(1, 2), nothing, 3, 2, 0.25), nothing)


def test_the_labels_of_ten_images_in_both_phases() -> None:
    method = Densification(share=0.3, share_step=0.1, first_phase=1, easy_share=0.2, easy_step=0.3, vote_radius=0.2)
    logits = make_logits(10, 3)
    logits[7, 0] += 30.0  # one class, and sure of it
    images = [literal.softmax(numpy(one)) for one in logits]
    confidences = [densification.confidence(probs, STEP) for probs in images]
    found = sum(method.survey(one[None]) for one in logits)
    assert found[-1].sum() == 10  # type: ignore[index]
    for renewal, (share, num_easy) in enumerate([(0.3, 0), (0.4, 2), (0.5, 5)]):
        learnt = method.learn(found, None, renewal)  # type: ignore[arg-type]
        limits = literal.thresholds(images, share, STEP)
        assert learnt.threshold_C.tolist() == pytest.approx(limits, abs=1e-12)
        easy = sorted(range(10), key=lambda number: -confidences[number])[:num_easy]
        assert 7 in easy or not easy
        for number, (one, probs) in enumerate(zip(logits, images, strict=True)):
            label = method.pseudo_label(one[None], learnt)[0].numpy()
            if number in easy:
                assert np.array_equal(label, probs.argmax(axis=0))
            else:
                sure = literal.pseudo_label(probs, limits)
                assert np.array_equal(label, densification.voted(probs, sure, 2, 2, 0.25))
        facts = method.facts(learnt)
        assert ("easy_confidence" in facts) == (renewal > 0)
        if easy:
            assert facts["easy_confidence"] == pytest.approx(confidences[easy[-1]], abs=1 / NUM_LEVELS)


def with_pseudo(easy: tuple[int, ...]) -> dict[str, Tensor]:
    """Two images with pseudo-labels: on all pixels of easy ones, on three in ten of the others."""
    batch = make_batch(4)
    pseudo, full = batch["label"].clone(), torch.randint(0, CLASSES, batch["label"].shape, dtype=torch.uint8)
    for number in easy:
        pseudo[number] = full[number]
    return {**batch, "label": torch.full_like(pseudo, 255), "pseudo": pseudo}


def test_the_first_phase_is_self_training() -> None:
    method, batch = Densification(first_phase=2), with_pseudo((0,))
    student = Student(method, num_renewals=2)
    terms = method.target_terms(student, batch)
    logits, pseudo = numpy(student(batch["image"])), batch["pseudo"].numpy()
    assert set(terms) == {"pseudo", "smooth"}
    assert float(terms["pseudo"].detach()) == pytest.approx(
        reference.supervised(logits, pseudo, "labelled", 0.0), abs=1e-5
    )
    assert float(terms["smooth"].detach()) == pytest.approx(0.1 * literal.smooth(logits, pseudo), abs=1e-6)


@pytest.mark.parametrize("easy", [(), (1,), (0, 1)])
def test_the_terms_of_the_second_phase(easy: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    method, batch = Densification(bootstrap=0.75, adversarial_weight=0.5), with_pseudo(easy)
    student = Student(method, num_renewals=3)
    kept: Any = student.kept
    terms = {name: float(term.detach()) for name, term in method.target_terms(student, batch).items()}
    logits, pseudo = numpy(student(batch["image"])), batch["pseudo"].numpy()
    probs = np.stack([literal.softmax(one) for one in logits])
    hard = [number for number in range(2) if number not in easy]
    wanted = dict.fromkeys(
        ("pseudo", "smooth", "bootstrapped", "adversarial", "discriminator_easy", "discriminator_hard"), 0.0
    )
    wanted["smooth"] = 0.1 * literal.smooth(logits, np.where(np.isin([[[0]], [[1]]], easy), 255, pseudo))
    layers = layers_of(kept.discriminator)
    if hard:
        wanted["pseudo"] = reference.supervised(logits[hard], pseudo[hard], "labelled", 0.0)
        told = adversary.cells(layers, probs[hard])
        wanted["adversarial"] = 0.5 * adversary.entropy(told, 0)
        wanted["discriminator_hard"] = 0.5 * adversary.entropy(told, 1)
    if easy:
        values = []
        for number, row, column in np.ndindex(*pseudo.shape):
            if number in easy:
                pixel = probs[number, :, row, column]
                own = -math.log(pixel[pseudo[number, row, column]])
                values.append(0.75 * own - 0.25 * sum(one * math.log(one) for one in pixel))
        wanted["bootstrapped"] = sum(values) / len(values)
        wanted["discriminator_easy"] = 0.5 * adversary.entropy(adversary.cells(layers, probs[list(easy)]), 0)
    assert terms == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_who_learns_from_which_term() -> None:
    method, batch = Densification(adversarial_weight=0.5), with_pseudo((1,))
    student = Student(method, num_renewals=3)
    terms = method.target_terms(student, batch)
    networks, discriminators = list(student.network.parameters()), list(student.kept.parameters())
    for name, who, others in (
        ("adversarial", networks, discriminators),
        ("discriminator_easy", discriminators, networks),
        ("discriminator_hard", discriminators, networks),
    ):
        found = torch.autograd.grad(terms[name], who, retain_graph=True)
        assert all(one.any() for one in found)
        unused = torch.autograd.grad(terms[name], others, retain_graph=True, allow_unused=True)
        assert all(one is None for one in unused)


def test_the_gradient_of_the_bootstrapped_loss_is_that_of_differences() -> None:
    method, batch = Densification(bootstrap=0.6), with_pseudo((0, 1))
    student = Student(method, num_renewals=3)
    bias = student.head.bias
    assert bias is not None

    def value() -> Tensor:
        return method.target_terms(student, batch)["bootstrapped"]

    (gradient,) = torch.autograd.grad(value(), bias)
    for number in range(CLASSES):
        ends = []
        for change in (0.05, -0.05):
            with torch.no_grad():
                bias[number] += change
                ends.append(float(value()))
                bias[number] -= change
        assert float(gradient[number]) == pytest.approx((ends[0] - ends[1]) / 0.1, rel=0.02, abs=1e-4)


def test_padding_makes_no_image_hard() -> None:
    """Pixels of the padding lack a pseudo-label, and do not count."""
    method, alone = Densification(), with_pseudo((0,))
    student = Student(method, num_renewals=3)
    with torch.no_grad():  # read a pixel for a pixel
        middle = student.body.weight[:, :, 1:2, 1:2].clone()
        student.body.weight.zero_()
        student.body.weight[:, :, 1:2, 1:2] = middle
    padded = {
        key: torch.nn.functional.pad(value, (0, 30, 0, 70), value=7 if key == "image" else 255)
        for key, value in alone.items()
    }
    padded["shape"] = torch.tensor([[32, 40], [32, 40]])
    wanted, found = (method.target_terms(student, batch) for batch in (alone, padded))
    assert float(wanted["bootstrapped"].detach()) > 0.0
    assert float(wanted["pseudo"].detach()) > 0.0
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6)
