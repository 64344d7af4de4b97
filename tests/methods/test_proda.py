"""ProDA: labels, terms and prototypes against literal loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reference import losses as reference
from reference import self_training as literal
from ripu.methods import Proda
from students import CLASSES, Taught, make_batch, numpy


def weights(features: np.ndarray, means: np.ndarray, temperature: float) -> list[float]:
    far = [math.sqrt(sum((a - b) ** 2 for a, b in zip(features, mean, strict=True))) for mean in means]
    shares = [math.exp(-one / temperature) for one in far]
    return [one / sum(shares) for one in shares]


def test_the_prototypes_are_the_means_over_all_images() -> None:
    method = Proda()
    student = Taught(method)
    images = torch.cat([make_batch(seed)["image"] for seed in range(5)])
    with torch.no_grad():
        found = [method.survey(*student.with_features(image[None])) for image in images]
    assert method.adds_surveys
    method.learn(np.sum(found, axis=0), student.kept, 0)
    by_class: dict[int, list[np.ndarray]] = {}
    for image in images:
        logits, features = student.with_features(image[None])
        label = logits[0].argmax(dim=0).numpy()
        for i, j in np.ndindex(*label.shape):
            by_class.setdefault(int(label[i, j]), []).append(numpy(features.values[0])[:, i, j])
    for number in range(CLASSES):
        wanted = np.mean(by_class[number], axis=0) if number in by_class else np.zeros(6)
        np.testing.assert_allclose(numpy(student.kept.means)[number], wanted, atol=1e-4)


def test_the_terms_are_the_formulas_and_move_the_prototypes() -> None:
    method = Proda(temperature=2.0, momentum=0.25, jitter=0.0, blur=0.0)
    student, batch = Taught(method), make_batch(3)
    means = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(2))
    student.kept.means.copy_(means)
    terms = method.target_terms(student, batch)
    taught, seen = student.teacher_with_features(batch["image"])
    logits, own = student.with_features(batch["image"])
    probs = np.stack([literal.softmax(one) for one in numpy(taught)])
    label = np.zeros((2, 32, 40), dtype=np.uint8)
    far, members = [], {number: [] for number in range(CLASSES)}  # type: ignore[var-annotated]
    for b, i, j in np.ndindex(*label.shape):
        weight = weights(numpy(seen.values)[b, :, i, j], numpy(means), 2.0)
        label[b, i, j] = int(np.argmax([p * w for p, w in zip(probs[b, :, i, j], weight, strict=True)]))
        mine = weights(numpy(own.values)[b, :, i, j], numpy(means), 2.0)
        far.append(sum(p * math.log(p / q) for p, q in zip(weight, mine, strict=True)))
        members[int(label[b, i, j])].append(numpy(seen.values)[b, :, i, j])
    entropy = reference.supervised(numpy(logits), label, "labelled", 0.0)
    mine = np.stack([literal.softmax(one) for one in numpy(logits)])
    reverse = [-math.log(1e-4) * (1 - mine[b, label[b, i, j], i, j]) for b, i, j in np.ndindex(*label.shape)]
    wanted = 0.1 * entropy + sum(reverse) / len(reverse)
    assert float(terms["pseudo"].detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(terms["consistency"].detach()) == pytest.approx(10 * sum(far) / len(far), rel=1e-3)
    assert float(terms["smooth"].detach()) == pytest.approx(0.1 * literal.smooth(numpy(logits), label), rel=1e-4)
    for number in range(CLASSES):
        old = numpy(means)[number]
        new = 0.75 * old + 0.25 * np.mean(members[number], axis=0) if members[number] else old
        np.testing.assert_allclose(numpy(student.kept.means)[number], new, atol=1e-4)
    torch.stack(list(terms.values())).sum().backward()
    assert student.body.weight.grad is not None
    assert all(one.grad is None for one in student.teacher.parameters())
