"""SFDA: the auto-encoder, its labels and terms against literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reference import autoencoder
from reference import losses as reference
from reference import self_training as literal
from ripu.methods import PriorEnforcing
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS
from ripu.methods.source_free_prior import SIDE, PriorAutoencoder, refined
from students import CLASSES, Student, make_batch, numpy


def weights_of(prior: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: numpy(value) for name, value in prior.named_parameters()}


def made(seed: int) -> PriorAutoencoder:
    torch.manual_seed(seed)
    return PriorAutoencoder(CLASSES, width=3)


def make_logits(count: int, size: tuple[int, int], seed: int = 1) -> torch.Tensor:
    return torch.randn(count, CLASSES, *size, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("size", [(24, 32), (17, 9), (5, 3), (8, 41)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_autoencoder_is_its_layers(size: tuple[int, int], share: float) -> None:
    prior, probs = made(0), make_logits(1, size).softmax(dim=1)
    cells = (-(-size[0] // SIDE), -(-size[1] // SIDE))
    hidden = torch.rand(cells, generator=torch.Generator().manual_seed(2)) < share
    found = prior(probs, hidden)
    wanted = autoencoder.likely(weights_of(prior), numpy(probs[0]), hidden.numpy(), SIDE)
    np.testing.assert_allclose(found[0].detach(), wanted, atol=1e-5)
    if not hidden.any():
        assert torch.equal(prior(probs), found)


def test_the_labels_of_ten_images_before_and_after_it_has_learnt() -> None:
    method, prior = PriorEnforcing(share=0.3, share_step=0.1, prior_share=0.5), made(3)
    with torch.no_grad():
        prior.last.weight *= 20.0  # so that it has something to say
    logits = make_logits(10, (16, 20), 4)
    images = [literal.softmax(numpy(one)) for one in logits]
    found = sum(method.survey(one[None]) for one in logits)
    changed = 0
    for renewal, share in enumerate((0.3, 0.4)):
        learnt = method.learn(found, prior, renewal)  # type: ignore[arg-type]
        limits = literal.thresholds(images, share, MOST_NATS / NUM_LEVELS)
        assert learnt.threshold_C.tolist() == pytest.approx(limits, abs=1e-12)
        assert method.facts(learnt)["is_refined"] == (renewal > 0)
        for one, probs in zip(logits, images, strict=True):
            plain = literal.pseudo_label(probs, limits)
            mixed = probs
            if renewal:
                hidden = np.zeros((2, 3), dtype=bool)
                likely = literal.softmax(autoencoder.likely(weights_of(prior), probs, hidden, SIDE))
                mixed = np.sqrt(probs * likely)
                mixed /= mixed.sum(axis=0)
            label = method.pseudo_label(one[None], learnt)[0].numpy()
            assert np.array_equal(label, literal.pseudo_label(mixed, limits))
            changed += int((label != plain).sum())
    assert changed > 0


def test_without_a_share_the_prediction_stays() -> None:
    logits = make_logits(1, (16, 20))
    for prior, share in ((None, 0.3), (made(1), 0.0)):
        torch.testing.assert_close(refined(logits, prior, share), logits.log_softmax(dim=1))


@pytest.mark.parametrize("shape", [None, [(32, 40), (19, 33)]])
@pytest.mark.parametrize("hidden_share", [0.0, 0.5])
def test_the_terms_and_who_learns_from_them(hidden_share: float, shape: Any) -> None:
    method = PriorEnforcing(hidden_share=hidden_share, regularizer=0.1)
    student, batch = Student(method), make_batch(6)
    batch["pseudo"], batch["label"] = batch["label"], torch.full_like(batch["label"], 255)
    sizes = [(32, 40)] * 2 if shape is None else shape
    if shape is not None:
        batch["shape"] = torch.tensor(shape)
        batch["pseudo"][1, 19:], batch["pseudo"][1, :, 33:] = 255, 255
    torch.manual_seed(3)
    terms = method.target_terms(student, batch)
    torch.manual_seed(3)
    logits, pseudo = numpy(student(batch["image"])), batch["pseudo"].numpy()
    guessed = np.zeros_like(logits)
    for number, (height, width) in enumerate(sizes):
        hidden = torch.rand(-(-height // SIDE), -(-width // SIDE)).numpy() < hidden_share
        probs = literal.softmax(logits[number][:, :height, :width])
        guessed[number, :, :height, :width] = autoencoder.likely(weights_of(student.kept), probs, hidden, SIDE)
    wanted = {
        "pseudo": reference.supervised(logits, pseudo, "labelled", 0.0),
        "smooth": 0.1 * literal.smooth(logits, pseudo),
        "autoencoder": reference.supervised(guessed, pseudo, "labelled", 0.0),
    }
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(wanted, rel=1e-4)
    own = list(student.kept.parameters())
    learnt = torch.autograd.grad(terms["autoencoder"], own, retain_graph=True)
    assert all(one.any() for one in learnt)
    for name, others in (("autoencoder", [*student.network.parameters()]), ("pseudo", own)):
        unused = torch.autograd.grad(terms[name], others, retain_graph=True, allow_unused=True)
        assert all(one is None for one in unused)


def test_it_learns_where_classes_lie() -> None:
    """Of label maps whose lower half is one class and whose upper half another, it fills in what is hidden."""
    torch.manual_seed(0)
    prior = PriorAutoencoder(CLASSES, width=8)
    optimizer = torch.optim.Adam(prior.parameters(), 0.01)
    label = torch.zeros(1, 32, 48, dtype=torch.int64)
    label[:, 16:] = 2
    probs = torch.nn.functional.one_hot(label, CLASSES).permute(0, 3, 1, 2).float()
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(prior(probs, torch.rand(4, 6) < 0.3), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unknown = probs.clone()
    unknown[:, :, 16:24, 16:32] = 1.0 / CLASSES
    unknown[:, :, 4:12, 8:16] = 1.0 / CLASSES
    assert (unknown.argmax(dim=1) != label).any()  # equal ones count as class 0
    assert torch.equal(refined((unknown + 1e-6).log(), prior, 0.5).argmax(dim=1), label)
