"""A step never waits for the device: its terms are computed without a look at any value on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from ripu.datamodule import RipuDataModule
from ripu.losses import class_weights
from ripu.objectives import RipuObjective, TeacherObjective
from ripu.objectives.mixing import pasted_area

OBJECTIVES = {
    "ripu": RipuObjective(),
    "paper": RipuObjective(boundary_only=False, supervised_average="all", class_balance=0.5),
    "teacher": TeacherObjective(class_balance=0.5, mix=True),
    "teacher, all blurred": TeacherObjective(blur=1.0, mix=True),
    "teacher, plain": TeacherObjective(jitter=0.0, blur=0.0),
}


def batch_on(device: str, is_padded: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randint(0, 256, (2, 3, 9, 8), generator=generator, dtype=torch.uint8).to(device),
        "label": torch.randint(0, 4, (2, 9, 8), generator=generator, dtype=torch.uint8).to(device),
    }
    return batch | ({"shape": torch.tensor([[9, 8], [6, 5]])} if is_padded else {})


def terms_on(device: str, objective: Any, is_padded: bool, has_source: bool) -> dict[str, Tensor]:
    target, source = batch_on(device, is_padded), batch_on(device, False)
    network = torch.nn.Conv2d(3, 4, 3, padding=1, device=device)

    def look(image: Tensor) -> Tensor:
        return network(image.float() / 64.0 - 2.0)

    return objective.source_terms(look, source, is_adapting=True) | objective.target_terms(
        look, target, source=source if has_source else None, teacher=look
    )


@pytest.mark.parametrize("has_source", [True, False])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_need_no_value_from_the_device(name: str, is_padded: bool, has_source: bool) -> None:
    """Tensors on ``meta`` have no values: reading one, or a size that depends on values, is an error."""
    terms = terms_on("meta", OBJECTIVES[name], is_padded, has_source)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("has_source", [True, False])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_do_not_wait_for_a_gpu(name: str, is_padded: bool, has_source: bool) -> None:
    terms_on("cuda", OBJECTIVES[name], is_padded, has_source)
    target, source = batch_on("cuda", is_padded), batch_on("cuda", False)
    network = torch.nn.Conv2d(3, 4, 3, padding=1, device="cuda")

    def look(image: Tensor) -> Tensor:
        return network(image.float() / 64.0 - 2.0)

    torch.cuda.set_sync_debug_mode("error")
    try:
        objective = OBJECTIVES[name]
        terms = objective.source_terms(look, source, is_adapting=True)
        terms |= objective.target_terms(look, target, source=source if has_source else None, teacher=look)
        torch.stack(list(terms.values())).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_sizes_of_padded_images_stay_on_the_cpu() -> None:
    batch = {"source": batch_on("cpu", False), "target": batch_on("cpu", True)}
    moved = RipuDataModule.__new__(RipuDataModule).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {name: value.device.type for name, value in moved["target"].items()} == {
        "image": "meta",
        "label": "meta",
        "shape": "cpu",
    }
    assert moved["source"]["image"].device.type == "meta"


def test_every_half_of_the_classes_is_as_likely() -> None:
    classes = torch.tensor([[[3, 7, 3, 200, 255]]], dtype=torch.uint8).repeat(600, 1, 1)
    torch.manual_seed(0)
    area = pasted_area(classes)
    pairs = Counter(tuple(sorted({int(one) for one in row})) for row in [classes[0, 0][mask[0]] for mask in area])
    assert set(pairs) == {(3, 7), (3, 200), (7, 200)}
    assert min(pairs.values()) > 150  # 200 expected, with a standard deviation of 12


def test_classes_are_counted_as_bincount_does() -> None:
    label = torch.randint(0, 7, (2, 30, 40), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    label[label == 6] = 255
    count_C = torch.bincount(label.flatten().int(), minlength=256)[:8].float()
    weight_C = torch.where(count_C > 0, count_C.clamp(min=1.0) ** -0.5, 0.0)
    weight_C = weight_C * (count_C.sum() / (weight_C * count_C).sum().clamp(min=1e-12))
    assert torch.equal(class_weights(label, 8, 0.5), weight_C)
