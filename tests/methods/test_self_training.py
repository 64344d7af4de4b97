"""CBST and MRKLD: terms, thresholds and pseudo-labels against literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import losses as reference
from reference import self_training as literal
from ripu.methods import SelfTraining
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS, labels_above


def make_logits(count: int, seed: int, spread: float = 2.0) -> Tensor:
    return torch.randn(count, 5, 7, 9, generator=torch.Generator().manual_seed(seed)) * spread


def test_the_thresholds_and_labels_of_ten_images() -> None:
    method = SelfTraining(share=0.3, share_step=0.1, most_share=0.45)
    logits = make_logits(10, 0)
    logits[:, 4] -= 100.0  # is never predicted
    images = [literal.softmax(one.double().numpy()) for one in logits]
    found = sum(method.survey(one[None]) for one in logits)
    for number, share in enumerate((0.3, 0.4, 0.45, 0.45)):
        learnt = method.learn(found, None, number)  # type: ignore[arg-type]
        wanted = literal.thresholds(images, share, MOST_NATS / NUM_LEVELS)
        assert learnt.share == share
        assert learnt.threshold_C.tolist() == pytest.approx(wanted, abs=1e-12)
        assert wanted[4] == 1.0
        for one, probs in zip(logits, images, strict=True):
            assert np.array_equal(
                method.pseudo_label(one[None], learnt)[0].numpy(), literal.pseudo_label(probs, wanted)
            )


def test_every_predicted_class_keeps_its_share() -> None:
    """Of images that are far from sure about one class, it has pseudo-labels nevertheless."""
    logits = make_logits(10, 1, 1.0)
    logits[:, 0] += 3.0
    method = SelfTraining(share=0.2)
    learnt = method.learn(sum(method.survey(one[None]) for one in logits), None, 0)  # type: ignore[arg-type]
    label, predicted = labels_above(logits, learnt.threshold_C), logits.argmax(dim=1)
    for number in range(5):
        assert int((label == number).sum()) >= 0.2 * int((predicted == number).sum()) > 0
    assert 0.05 < float((label != 255).float().mean()) < 0.6
    assert learnt.threshold_C[0] == learnt.threshold_C.max()


def test_thresholds_tell_sure_pixels_from_surer_ones() -> None:
    """Of a class whose pixels are all predicted above 0.9999, it is the surest ones that have pseudo-labels."""
    logits = torch.zeros(1, 2, 1, 100)
    logits[0, 0, 0] = torch.linspace(10.0, 14.0, 100)  # 1 - P from 5e-5 to 8e-7
    method = SelfTraining(share=0.2)
    label = method.pseudo_label(logits, method.learn(method.survey(logits), None, 0))
    assert (label[0, 0] == 0).tolist() == [False] * 80 + [True] * 20


@pytest.mark.parametrize("regularizer", [0.0, 0.1])
def test_terms_and_gradients_are_the_formulas(regularizer: float) -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 3, 6, 5), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 4, (2, 6, 5), generator=generator, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=generator) > 0.4] = 255
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 4, 3, padding=1).double()

    def student(image: Tensor) -> Tensor:
        return network(image.double() / 64.0 - 2.0)  # type: ignore[no-any-return]

    method: Any = SelfTraining(regularizer=regularizer)
    source = method.source_terms(student, {"image": image, "label": label}, is_adapting=True)
    void = torch.full_like(label, 255)
    target = method.target_terms(student, {"image": image, "label": void, "pseudo": label}, source=None, teacher=None)
    logits = student(image).detach().numpy()
    entropy = reference.supervised(logits, label.numpy(), "labelled", 0.0)
    assert float(source["source_ce"].detach()) == pytest.approx(entropy, abs=1e-5)
    assert float(target["pseudo"].detach()) == pytest.approx(entropy, abs=1e-5)
    assert set(target) == ({"pseudo", "smooth"} if regularizer else {"pseudo"})
    if regularizer:
        assert float(target["smooth"].detach()) == pytest.approx(0.1 * literal.smooth(logits, label.numpy()), abs=1e-6)
    before = method.target_terms(student, {"image": image, "label": void}, source=None, teacher=None)
    total = torch.stack(list(before.values())).sum()
    total.backward()
    assert float(total.detach()) == 0.0
    assert network.bias.grad is not None
    assert not network.bias.grad.any()
