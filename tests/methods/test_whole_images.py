"""AADA and MADA: terms and scores against literal loops, and whole images in rounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reference import adversary
from reference import anchors as literal
from reference import losses as reference
from reference.self_training import softmax
from ripu.acquisition import AnchorDistance, DomainEntropy, Features
from ripu.acquisition.anchors import anchors_of, class_means, label_of_cells
from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.methods import Aada, Mada
from ripu.methods.adversary import Adversary
from ripu.selection.query import Query
from running import compose, train_here
from students import CLASSES, Student, layers_of, make_batch, numpy


def test_the_class_means_are_the_loop() -> None:
    values = torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(1))
    label = torch.randint(0, CLASSES, (3, 6, 7), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    label[0, :3], label[1][label[1] == 2] = 255, 255
    label[2, 0, 0] = 3
    for least in (1, 10):
        found = numpy(class_means(values, label, CLASSES, least))
        for number in range(3):
            wanted = literal.class_means(numpy(values[number]), label[number].numpy(), CLASSES, least)
            np.testing.assert_allclose(found[number], wanted, atol=1e-5)


def test_the_anchors_and_distances_of_ten_images() -> None:
    torch.manual_seed(3)
    body, head = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1), torch.nn.Conv2d(5, CLASSES, 1)
    score = AnchorDistance(num_anchors=3, min_cells=2)
    source, points = [], []
    for number in range(10):
        image = torch.randn(1, 3, 12, 16) + (number % 3)
        values = body(image).detach()
        logits = torch.nn.functional.interpolate(head(values), (12, 16)).detach()
        label = torch.randint(0, CLASSES, (12, 16)).to(torch.uint8)
        label[0] = 255
        source.append(score.survey_source(logits, Features(values, (12, 16)), label))
        points.append(literal.class_means(numpy(values[0]), label[1::2, 1::2].numpy(), CLASSES, 2))
    np.testing.assert_allclose(np.stack(source), points, atol=1e-5)
    knowing = score.with_source(np.stack(source))
    wanted = literal.anchors([list(one) for one in source], 3, 31)
    np.testing.assert_allclose(knowing.anchors, wanted, atol=1e-9)  # type: ignore[arg-type]
    image = torch.randn(2, 3, 12, 16)
    values = body(image).detach()
    logits = torch.nn.functional.interpolate(head(values), (12, 16), mode="nearest").detach()
    maps = knowing(logits, (12, 16), [0, 1], features=Features(values, (12, 16)))
    for number in range(2):
        predicted = logits[number, :, 1::2, 1::2].argmax(dim=0).numpy()
        means = literal.class_means(numpy(values[number]), predicted, CLASSES, 2)
        np.testing.assert_allclose(maps.score[number], min(literal.distances(means, wanted)), rtol=1e-4)


def test_fewer_images_than_anchors_are_all_anchors() -> None:
    points = np.arange(6.0).reshape(3, 2)
    assert anchors_of(points, 5, 0).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]


def test_cells_outside_the_image_have_no_class() -> None:
    features = Features(torch.zeros(1, 2, 4, 4), (16, 16))
    label = label_of_cells(torch.zeros(1, CLASSES, 9, 16), features)
    assert (label[0, :2] == 0).all()
    assert (label[0, 2:] == 255).all()


def test_the_domain_entropy_is_the_formula() -> None:
    torch.manual_seed(0)
    keeps, logits = Adversary(CLASSES, 4), torch.randn(2, CLASSES, 32, 33) * 3
    maps = DomainEntropy().with_kept(keeps)(logits, (32, 33), [0, 1])
    for number in range(2):
        probs = softmax(numpy(logits[number]))
        told = adversary.cells(layers_of(keeps.discriminator), probs[None])
        assert len(told) == 2
        odds = math.exp(sum(math.log(one / (1.0 - one)) for one in told) / len(told))
        entropy = -(probs * np.log(probs)).sum(axis=0)
        np.testing.assert_allclose(maps.score[number].detach(), entropy * odds, rtol=1e-4, atol=1e-6)
    assert DomainEntropy().with_kept(None).discriminator is None


def test_the_terms_of_aada_and_who_learns_from_them() -> None:
    method = Aada(adversarial_weight=0.25)
    student, batch = Student(method), make_batch()
    assert set(method.source_terms(student, batch, is_adapting=False)) == {"source_ce"}
    source = method.source_terms(student, batch, is_adapting=True)
    target = method.target_terms(student, batch)
    logits = student(batch["image"])
    entropy = reference.supervised(numpy(logits), batch["label"].numpy(), "labelled", 0.0)
    assert float(source["source_ce"].detach()) == pytest.approx(entropy, abs=1e-5)
    assert float(target["target_ce"].detach()) == pytest.approx(entropy, abs=1e-5)
    probs = np.stack([softmax(one) for one in numpy(logits)])
    told = adversary.cells(layers_of(student.kept.discriminator), probs)
    is_source, is_target = (adversary.entropy(told, domain) for domain in (0, 1))
    assert float(source["discriminator_source"].detach()) == pytest.approx(0.5 * is_source, abs=1e-6)
    assert float(target["discriminator_target"].detach()) == pytest.approx(0.5 * is_target, abs=1e-6)
    assert float(target["adversarial"].detach()) == pytest.approx(0.25 * is_source, abs=1e-6)
    target["adversarial"].backward(retain_graph=True)
    assert student.head.weight.grad is not None
    assert student.head.weight.grad.any()
    assert all(one.grad is None for one in student.kept.parameters())
    before = student.head.weight.grad.clone()
    (target["discriminator_target"] + source["discriminator_source"]).backward()
    assert torch.equal(student.head.weight.grad, before)
    assert all(one.grad is not None for one in student.kept.parameters())


def test_the_terms_of_both_stages_of_mada() -> None:
    method = Mada(num_anchors=3, min_cells=5, anchor_decay=0.75)
    student, batch = Student(method), make_batch(1)
    assert student.kept.anchors.shape == (3, CLASSES * 6)
    assert set(method.target_terms(student, batch)) == {"target_ce"}
    images = make_batch(2)["image"]
    with torch.no_grad():
        found = [method.survey(*student.with_features(image[None])) for image in (*images, *batch["image"])]
    method.learn(np.stack(found), student.kept, 0)
    wanted = literal.anchors([list(map(float, one)) for one in found], 3, 31)
    np.testing.assert_allclose(numpy(student.kept.anchors), wanted, atol=1e-5)
    student.num_renewals = 1
    student.kept.anchors += 0.1 * torch.randn(3, CLASSES * 6)
    anchors = [list(one) for one in numpy(student.kept.anchors)]
    terms = method.target_terms(student, batch)
    logits, features = student.with_features(batch["image"])
    predicted = logits.argmax(dim=1).numpy()
    own = np.where(batch["label"].numpy() == 255, predicted, 255)
    wanted = reference.supervised(numpy(logits), own, "labelled", 0.0)
    assert float(terms["self_ce"].detach()) == pytest.approx(wanted, abs=1e-5)
    means = [literal.class_means(numpy(features.values[number]), predicted[number], CLASSES, 5) for number in range(2)]
    distances = [3 / sum(1 / one for one in literal.distances(mean, anchors)) for mean in means]
    assert float(terms["anchor"].detach()) == pytest.approx(0.7 * sum(distances) / 2, rel=1e-4)
    for mean in means:  # each image moves the anchor that is nearest by then
        far = literal.distances(mean, anchors)
        nearest = far.index(min(far))
        anchors[nearest] = [0.75 * a + 0.25 * b for a, b in zip(anchors[nearest], mean, strict=True)]
    np.testing.assert_allclose(numpy(student.kept.anchors), anchors, atol=1e-5)
    terms["anchor"].backward()
    assert student.body.weight.grad is not None
    assert student.body.weight.grad.any()


def test_the_budget_counts_images() -> None:
    query = Query(False, 1, 2, 0.05, 5, budget_per="dataset", whole_image=True)
    assert [query.images_until(2975, number) for number in range(5)] == [30, 60, 90, 119, 149]
    assert query.picks_per_round((1024, 2048), (640, 1280)) == query.most_picks((1024, 2048), (640, 1280)) == 1
    with pytest.raises(ConfigError, match=r"mode\.whole_image=true.*use mode=images"):
        Query(False, 1, 2, 0.05, 5, whole_image=True)


@pytest.mark.parametrize("score", ["entropy", "random"])
def test_an_image_is_one_pick(score: str, data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = train_here(data_root, run, "mode=images", f"acquisition={score}", "budget=0.6")
    with LabelStore.open(run / "labels") as store:
        count = len(store.images)
        picked = [
            [image for image in store.images if len(store.picks(image.image_id, number).picks)] for number in (0, 1)
        ]
        first = math.ceil(0.3 * count)
        assert [len(part) for part in picked] == [first, math.ceil(0.6 * count) - first]
        assert not {one.image_id for one in picked[0]} & {one.image_id for one in picked[1]}
        for image in (*picked[0], *picked[1]):
            assert store.asked_mask(image.image_id).all()
        pixels = sum(image.height * image.width for image in store.images)
        share = sum(image.height * image.width for part in picked for image in part) / pixels
        assert store.verify() == []
    assert results["labelled_fraction"] == pytest.approx(share)
    assert [one["picks"] for one in results["rounds"]] == [len(part) for part in picked]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=mada", "mode=ra"], r"method=mada cannot ask with mode=ra; use mode=images"),
        (["method=aada", "setting=source_free", "model.checkpoint=x"], r"method=aada reads source images"),
        (["method=aada", "setting=unlabelled"], r"method=aada has no use for setting=unlabelled.*setting=active"),
        (["mode=images", "oracle=human"], r"mode=images asks for every pixel.*oracle=truth"),
        (["mode=images", "region=rectangles"], r"mode=images asks for whole images"),
        (
            ["mode=images", "budget=40"],
            r"budget=40\.0 is not a share of the images; mode=images takes a share in \(0, 1\]",
        ),
        (["mode=images", "mode.budget_per=image"], r"mode\.budget_per=image is not defined"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_with_whole_images_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assert checked_spec(compose(*overrides, "paths.output_dir=run")).region is not None
