"""Seg-Uncertainty, LD and URMA: terms and labels against literal loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from reference import adversary
from reference import losses as reference
from reference import self_training as literal
from ripu.methods import PositiveNegative, SegUncertainty, UncertaintyReduction
from ripu.methods.heads import divergence
from ripu.methods.label_denoising import negative
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS, mean_entropy
from students import CLASSES, Student, layers_of, make_batch, numpy


def probabilities(logits: torch.Tensor) -> np.ndarray:
    return np.stack([literal.softmax(one) for one in numpy(logits)])


def pixels(label: np.ndarray) -> list[tuple[int, int, int]]:
    return list(np.ndindex(*label.shape))


def entropy_of(probs: np.ndarray) -> float:
    values = [-sum(p * math.log(p) for p in probs[b, :, i, j]) for b, i, j in np.ndindex(len(probs), *probs.shape[2:])]
    return sum(values) / len(values)


def far(first: np.ndarray, second: np.ndarray, at: tuple[int, int, int]) -> float:
    b, i, j = at
    return sum(p * math.log(p / q) for p, q in zip(first[b, :, i, j], second[b, :, i, j], strict=True))


def test_both_stages_of_seg_uncertainty() -> None:
    method = SegUncertainty(adversarial_weight=0.5, second_adversarial_weight=0.25, dropout=0.0)
    student, batch = Student(method), make_batch(4)
    kept: Any = student.kept
    logits, features = student.with_features(batch["image"])
    second = kept.head(features, (32, 40))
    one, other = probabilities(logits), probabilities(second)
    label = batch["label"].numpy()
    source = method.source_terms(student, batch, is_adapting=True)
    assert set(method.source_terms(student, batch, is_adapting=False)) == {"source_ce", "second_ce"}
    wanted = reference.supervised(numpy(second), label, "labelled", 0.0)
    assert float(source["second_ce"].detach()) == pytest.approx(0.5 * wanted, abs=1e-5)
    target = method.target_terms(student, batch)
    mean = sum(far(one, other, at) for at in pixels(label)) / label.size
    assert float(target["agreement"].detach()) == pytest.approx(0.1 * mean, rel=1e-4)
    told = [
        adversary.cells(layers_of(part.discriminator), prob) for part, prob in ((kept.first, one), (kept.second, other))
    ]
    as_source, as_target = ([adversary.entropy(values, domain) for values in told] for domain in (0, 1))
    wanted = 0.5 * as_source[0] + 0.25 * as_source[1]
    assert float(target["adversarial"].detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(target["discriminator_target"].detach()) == pytest.approx(0.5 * sum(as_target), rel=1e-4)
    assert float(source["discriminator_source"].detach()) == pytest.approx(0.5 * sum(as_source), rel=1e-4)
    student.num_renewals = 1
    assert set(method.source_terms(student, batch, is_adapting=True)) == {"source_ce", "second_ce"}
    terms = method.target_terms(student, {**batch, "pseudo": batch["label"]})
    known = [at for at in pixels(label) if label[at] != 255]
    rectified = [-math.log(one[b, label[b, i, j], i, j]) * math.exp(-far(one, other, (b, i, j))) for b, i, j in known]
    assert float(terms["rectified"].detach()) == pytest.approx(sum(rectified) / len(known), rel=1e-4)
    rectified = [-math.log(other[b, label[b, i, j], i, j]) * math.exp(-far(one, other, (b, i, j))) for b, i, j in known]
    assert float(terms["second_rectified"].detach()) == pytest.approx(0.5 * sum(rectified) / len(known), rel=1e-4)
    uncertainty = sum(far(one, other, at) for at in known) / len(known)
    assert float(terms["uncertainty"].detach()) == pytest.approx(uncertainty, rel=1e-4)
    assert torch.equal(method.pseudo_label(logits, None).long(), logits.argmax(dim=1))
    assert (divergence(logits, second) > -1e-6).all()


def test_the_labels_of_ld_are_sure_in_all_images_or_in_their_own() -> None:
    method = PositiveNegative(share=0.1, share_step=0.05)
    logits = torch.randn(10, CLASSES, 6, 7, generator=torch.Generator().manual_seed(5)) * 2
    logits[0] *= 0.2  # an image without a sure pixel
    images = [literal.softmax(one.double().numpy()) for one in logits]
    counts = sum(method.survey(one[None]) for one in logits)
    for renewal, share in enumerate((0.1, 0.15)):
        learnt = method.learn(counts, None, renewal)  # type: ignore[arg-type]
        everywhere = literal.thresholds(images, share, MOST_NATS / NUM_LEVELS)
        assert learnt.threshold_C.tolist() == pytest.approx(everywhere, abs=1e-12)
        for one, probs in zip(logits, images, strict=True):
            own = literal.thresholds([probs], share, MOST_NATS / NUM_LEVELS)
            found = method.pseudo_label(one[None], learnt)[0].numpy()
            for i, j in np.ndindex(6, 7):
                number = int(probs[:, i, j].argmax())
                is_sure = probs[number, i, j] >= min(everywhere[number], own[number])
                assert found[i, j] == (number if is_sure else 255)
        assert (method.pseudo_label(logits[:1], learnt) != 255).any()


def test_the_terms_of_ld() -> None:
    method = PositiveNegative(entropy_weight=0.5, negative_weight=2.0, rank_spread=1)
    batch = make_batch(6)
    batch = {**batch, "pseudo": batch["label"], "label": torch.full_like(batch["label"], 255)}
    student = Student(UncertaintyReduction())
    torch.manual_seed(3)
    terms = method.target_terms(student, batch)
    torch.manual_seed(3)
    rank = torch.randint(1, 4, batch["pseudo"].shape)
    logits = student(batch["image"])
    probs, label = probabilities(logits), batch["pseudo"].numpy()
    assert float(terms["entropy"].detach()) == pytest.approx(0.5 * entropy_of(probs), rel=1e-5)
    wanted = reference.supervised(numpy(logits), label, "labelled", 0.0)
    assert float(terms["pseudo"].detach()) == pytest.approx(wanted, abs=1e-5)
    losses = []
    for b, i, j in pixels(label):
        if label[b, i, j] == 255:
            order = sorted(range(CLASSES), key=lambda number, at=(b, i, j): -probs[at[0], number, at[1], at[2]])  # type: ignore[misc]
            losses.append(-math.log(1.0 - probs[b, order[int(rank[b, i, j])], i, j]))
    assert float(terms["negative"].detach()) == pytest.approx(2.0 * sum(losses) / len(losses), rel=1e-5)
    assert float(negative(logits, torch.zeros(2, 32, 40, dtype=torch.bool), rank).detach()) == 0.0
    assert float(mean_entropy(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2) > 0)) == pytest.approx(math.log(4))


def test_the_terms_of_urma() -> None:
    method = UncertaintyReduction(stability_weight=0.3, num_decoders=2, dropout=0.0)
    student, batch = Student(method), make_batch(7)
    batch = {**batch, "pseudo": batch["label"]}
    terms = method.target_terms(student, batch)
    logits, features = student.with_features(batch["image"])
    others = [head(features, (32, 40)) for head in student.kept]
    assert len(others) == 2
    probs, label = probabilities(logits), batch["label"].numpy()
    errors = [
        sum((probs[b, c, i, j] - other[b, c, i, j]) ** 2 for b, c, i, j in np.ndindex(*probs.shape)) / probs.size
        for other in map(probabilities, others)
    ]
    assert float(terms["stability"].detach()) == pytest.approx(0.3 * sum(errors), rel=1e-5)
    (by_network,) = torch.autograd.grad(terms["stability"], student.head.weight, retain_graph=True, allow_unused=True)
    assert by_network is None  # the network's own prediction is what the decoders learn
    (by_decoder,) = torch.autograd.grad(terms["stability"], student.kept[0].convolution.weight)
    assert by_decoder.any()
    entropies = [reference.supervised(numpy(one), label, "labelled", 0.0) for one in others]
    assert float(terms["decoders_ce"].detach()) == pytest.approx(sum(entropies) / 2, abs=1e-5)
    assert float(terms["entropy"].detach()) == pytest.approx(entropy_of(probs), rel=1e-5)
    assert set(terms) == {"pseudo", "entropy", "decoders_ce", "stability"}
