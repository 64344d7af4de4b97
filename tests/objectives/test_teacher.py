"""The teacher objective: its terms against literal loops, the mixing, and what it may learn from."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import losses as reference
from reference.pseudo import pseudo_labels, weighted_ce
from relabelled import relabel, wrong_outside
from ripu.objectives import RipuObjective, TeacherObjective
from ripu.objectives.mixing import Mixture, disturbed, pasted_area, shift_donors
from running import call, kill_after, same_weights, tiny, train_here

CALM = TeacherObjective(jitter=0.0, blur=0.0, mix=False, confidence=0.4)


def make_batch(seed: int, size: tuple[int, int] = (5, 7), revealed: float = 0.2, count: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (count, *size), generator=generator, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=generator) > revealed] = 255
    return {"image": torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8), "label": label}


def make_network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Conv2d(3, 4, 3, padding=1).double()


def looking(network: torch.nn.Module) -> object:
    return lambda image: network(image.double() / 64.0 - 2.0)


def numpy(value: Tensor) -> np.ndarray:
    return value.detach().double().numpy()


@pytest.mark.parametrize("balance", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_without_mixing_are_the_formulas(seed: int, balance: float) -> None:
    batch, network, teacher = make_batch(seed), make_network(seed), looking(make_network(seed + 10))
    student = looking(network)
    calm = replace(CALM, class_balance=balance)
    terms = calm.target_terms(student, batch, source=None, teacher=teacher)  # type: ignore[arg-type]
    logits, label = numpy(student(batch["image"])), batch["label"].numpy()  # type: ignore[operator]
    pseudo, weight = pseudo_labels(numpy(teacher(batch["image"])), label, 0.4)  # type: ignore[operator]
    assert set(terms) == {"target_ce", "negative", "pseudo"}
    assert 0 < weight.max() < 1
    wanted = reference.supervised(logits, label, "labelled", balance)
    assert float(terms["target_ce"].detach()) == pytest.approx(wanted, abs=1e-5)
    counts = [int((pseudo == index).sum()) for index in range(4)]
    rarity = [float(count) ** -balance if count else 0.0 for count in counts]
    mean = sum(one * count for one, count in zip(rarity, counts, strict=True)) / sum(counts)
    weight = weight * np.array([*rarity, *[0.0] * 252])[pseudo] / mean
    assert float(terms["pseudo"].detach()) == pytest.approx(weighted_ce(logits, pseudo, weight), abs=1e-5)
    terms["pseudo"].backward()
    bias = network.bias
    for index in range(4):  # the gradient, by differences of the literal loop
        with torch.no_grad():
            values = []
            for move in (1e-5, -2e-5):
                bias[index] += move  # type: ignore[index,operator]
                values.append(weighted_ce(numpy(student(batch["image"])), pseudo, weight))  # type: ignore[operator]
            bias[index] += 1e-5  # type: ignore[index,operator]
        assert float(bias.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-5)  # type: ignore[index,union-attr]


def test_revealed_labels_win_and_padding_has_no_part() -> None:
    batch, teacher = make_batch(1), looking(make_network(1))
    shape = torch.tensor([[5, 7], [3, 4]])
    logits = teacher(batch["image"])  # type: ignore[operator]
    pseudo, weight = CALM.pseudo_labels(logits, batch["label"], shape)
    revealed = batch["label"] != 255
    assert (pseudo[revealed] == 255).all()
    assert (weight[revealed] == 0).all()
    outside = torch.ones_like(revealed)
    outside[0], outside[1, :3, :4] = False, False
    assert (pseudo[outside] == 255).all()
    assert (weight[outside] == 0).all()
    alone = {"image": batch["image"][1:, :, :3, :4], "label": batch["label"][1:, :3, :4]}
    small, small_weight = CALM.pseudo_labels(logits[1:, :, :3, :4], alone["label"], None)
    assert torch.equal(pseudo[1:, :3, :4], small)
    assert torch.equal(weight[1:, :3, :4], small_weight)


def test_half_of_the_classes_of_a_source_image_are_pasted() -> None:
    target = make_batch(2, (8, 6))
    source = make_batch(3, (10, 4), revealed=0.9, count=1)
    mixture = Mixture(target["image"], target["label"], torch.full_like(target["label"], 2), torch.ones(2, 8, 6))
    torch.manual_seed(0)
    donors = Mixture.of_source(source, mixture)
    area = pasted_area(donors.classes())
    mixed = mixture.with_pasted(donors, area)
    assert mixed.pasted is not None
    for place in range(2):
        ids = source["label"][0, 1:9]  # the middle rows of 10 for 8
        classes = set(mixed.pasted[place][area[place]].tolist())
        present = set(ids.unique().tolist()) - {255}
        assert len(classes) == (len(present) + 1) // 2
        wanted = torch.zeros(8, 6, dtype=torch.bool)
        wanted[:, 1:5] = torch.isin(ids, torch.tensor(sorted(classes), dtype=torch.uint8))
        assert torch.equal(area[place], wanted)
        inside = source["image"][0, :, 1:9][:, wanted[:, 1:5]]
        assert torch.equal(mixed.image[place][:, wanted], inside)
        assert torch.equal(mixed.image[place][:, ~wanted], target["image"][place][:, ~wanted])
        assert torch.equal(mixed.label[place][~wanted], target["label"][place][~wanted])
        assert (mixed.label[place][wanted] == 255).all()
        assert (mixed.pseudo[place][wanted] == 255).all()
        assert (mixed.weight[place][wanted] == 0).all()
        assert (mixed.pasted[place][~wanted] == 255).all()


def test_without_a_source_target_images_lend_each_other_their_labels() -> None:
    target = make_batch(4, (6, 6))
    pseudo = torch.where(target["label"] == 255, 3, 255).to(torch.uint8)
    mixture = Mixture(target["image"], target["label"], pseudo, torch.rand(2, 6, 6))
    donors = shift_donors(mixture)
    area = pasted_area(donors.classes())
    mixed = mixture.with_pasted(donors, area)
    assert mixed.pasted is None
    for place in range(2):
        for name in ("label", "pseudo", "weight"):
            own, other, found = (getattr(one, name) for one in (mixture, mixture, mixed))
            assert torch.equal(found[place][area[place]], other[1 - place][area[place]])
            assert torch.equal(found[place][~area[place]], own[place][~area[place]])


def test_nothing_is_pasted_outside_the_image_or_from_void() -> None:
    classes = torch.zeros(2, 4, 5, dtype=torch.uint8)
    classes[:, :2] = 255
    area = pasted_area(classes, torch.tensor([[4, 5], [3, 2]]))
    assert area[0].sum() == 10
    assert not area[:, :2].any()
    assert area[1].nonzero().tolist() == [[2, 0], [2, 1]]
    assert not pasted_area(torch.full((1, 3, 3), 255, dtype=torch.uint8)).any()


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_disturbed_images_stay_images(bands: int) -> None:
    image = torch.randint(0, 256, (3, bands, 9, 8), dtype=torch.uint8)
    assert torch.equal(disturbed(image, 0.0, 0.0), image)
    torch.manual_seed(1)
    first = disturbed(image, 0.3, 0.5)
    torch.manual_seed(1)
    assert torch.equal(disturbed(image, 0.3, 0.5), first)
    assert first.dtype == torch.uint8
    assert first.shape == image.shape
    assert not torch.equal(first, image)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (5, 2)])
def test_small_images_are_blurred_too(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8)
    found = disturbed(image, 0.0, 1.0)
    assert found.shape == image.shape
    assert torch.equal(found, image) == (size == (1, 1))
    flat = torch.full_like(image, 7)
    assert torch.equal(disturbed(flat, 0.0, 1.0), flat)


def test_every_term_is_logged_apart_and_adds_up(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "objective=ripu_teacher", "objective.mix=true", "objective.confidence=0.2")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    terms = ("source_ce", "consistency", "target_ce", "negative", "pseudo", "pasted")
    for row in rows:
        parts = sum(float(row[f"train/{term}"] or 0) for term in terms)
        assert float(row["train/loss"]) == pytest.approx(parts, abs=1e-4)
    assert [row["train/pseudo"] != "" for row in rows] == [False, False, True, True, True, True, True]
    assert float(rows[-1]["train/pseudo"]) > 0
    assert float(rows[-1]["train/pasted"]) > 0


def test_a_wrong_label_that_was_not_revealed_changes_nothing(data_root: Path, tmp_path: Path) -> None:
    options = ("objective=ripu_teacher", "objective.mix=true", "objective.confidence=0.2")
    train_here(data_root, tmp_path / "run", *options)
    other = relabel(data_root, tmp_path / "data", tmp_path / "run", wrong_outside)
    train_here(other, tmp_path / "other", *options)
    assert same_weights(tmp_path / "run", tmp_path / "other")


@pytest.mark.slow
def test_two_ranks_that_are_killed_learn_the_same_when_resumed(data_root: Path, tmp_path: Path) -> None:
    """Their batch norms see different images, so the average must not have statistics of a rank's own."""
    more = (
        "objective=ripu_teacher",
        "objective.mix=true",
        "objective.confidence=0.2",
        "selection_steps=[6,16]",
        "pretrain_steps=2",
    )
    more += ("trainer.max_steps=40", "checkpoint.every_steps=3", "trainer.strategy=ddp")

    def words(name: str) -> list[str]:
        return tiny(data_root, tmp_path / name, *more, "trainer.devices=2")

    done = call("ripu.train", *words("whole"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kill_after(6, tmp_path / "run", *words("run"))
    done = call("ripu.train", *words("run"), "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_padding_is_not_disturbed() -> None:
    image = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8)
    torch.manual_seed(3)
    found = disturbed(image, 0.3, 1.0, torch.tensor([[9, 8], [5, 4]]))
    assert torch.equal(found[1, :, 5:], image[1, :, 5:])
    assert torch.equal(found[1, :, :, 4:], image[1, :, :, 4:])
    torch.manual_seed(3)
    alone = disturbed(torch.stack([image[0], image[0]]), 0.3, 1.0)
    assert torch.equal(found[0], alone[0])
    assert not torch.equal(found[1, :, :5, :4], image[1, :, :5, :4])


def test_weight_zero_is_the_paper_on_the_same_images() -> None:
    batch, student, teacher = make_batch(5), looking(make_network(5)), looking(make_network(6))
    quiet = TeacherObjective(pseudo_weight=0.0, mix=False, jitter=0.0, blur=0.0)
    mine = quiet.target_terms(student, batch, source=None, teacher=teacher)  # type: ignore[arg-type]
    paper = RipuObjective().target_terms(student, batch)  # type: ignore[arg-type]
    assert {name: float(value) for name, value in mine.items() if name != "pseudo"} == pytest.approx(
        {name: float(value) for name, value in paper.items()}
    )
    assert float(mine["pseudo"]) == 0.0
