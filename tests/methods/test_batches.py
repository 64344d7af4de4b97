"""Every method ignores padding in its terms and weights cross-entropies as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from method_runs import OTHERS
from reference import losses as reference
from ripu.config.nodes import instantiate
from ripu.run.assembly.network import make_objective
from running import compose, spec_of
from students import Taught, make_batch, numpy

FIXED: dict[str, Any] = {
    "dropout": 0.0,
    "jitter": 0.0,
    "blur": 0.0,
    "rank_spread": 0,
    "regularizer": 0.1,
    "min_cells": 5,
    "first_phase": 0,
    "hidden_share": 0.0,
}
"""Parameters with which nothing in the terms is drawn, and every term counts."""


def objective_of(name: str, **more: Any) -> Any:
    """The objective of a method without random numbers."""
    made = instantiate(spec_of(compose(f"method={name}")).method.node)
    return replace(made, **{key: value for key, value in {**FIXED, **more}.items() if hasattr(made, key)})


def student_of(objective: Any, num_renewals: int) -> Taught:
    """A student whose layers, and those that the objective keeps beside it, read a pixel for a pixel."""
    torch.manual_seed(5)
    student = Taught(objective if hasattr(objective, "keeps") else _Nothing())
    student.num_renewals = num_renewals
    layers = [student.body, student.teacher.body]
    if isinstance(student.kept, torch.nn.Module):
        layers += [part.body for part in student.kept.modules() if hasattr(part, "body")]
        layers += [part.convolution for part in student.kept.modules() if hasattr(part, "convolution")]
        for buffer in student.kept.buffers():
            buffer.copy_(torch.randn(buffer.shape))
    with torch.no_grad():
        for layer in layers:
            middle = layer.weight[:, :, 1:2, 1:2].clone()
            layer.weight.zero_()
            layer.weight[:, :, 1:2, 1:2] = middle
    return student


class _Nothing:
    def keeps(self, network: Any) -> None:
        return None


def terms_of(name: str, batch: dict[str, Tensor], num_renewals: int, **more: Any) -> dict[str, Tensor]:
    """All terms on both domains, and their gradient by the weights of the network's body."""
    objective = objective_of(name, **more)
    student = student_of(objective, num_renewals)
    source = {key: value for key, value in batch.items() if key != "pseudo"}
    terms = {**objective.source_terms(student, source, is_adapting=True)}
    target = dict(batch) if num_renewals else source
    terms |= objective.target_terms(student, target, source=None, teacher=None)
    torch.stack(list(terms.values())).sum().backward()
    assert student.body.weight.grad is not None
    moved = {} if student.kept is None else {key: value.clone() for key, value in student.kept.named_buffers()}
    return {**terms, "gradient": student.body.weight.grad[:, :, 1, 1], **moved}


@pytest.mark.parametrize("num_renewals", [0, 1])
@pytest.mark.parametrize("name", OTHERS)
def test_padding_has_no_part_in_the_terms(name: str, num_renewals: int) -> None:
    alone = make_batch(3)
    alone = {**alone, "pseudo": make_batch(4)["label"]}
    size, padded_size = tuple(alone["label"].shape[1:]), (70, 50)
    padded = {
        "image": torch.randint(0, 256, (2, 3, *padded_size), generator=torch.Generator().manual_seed(8)).to(
            torch.uint8
        ),
        **{key: torch.full((2, *padded_size), 255, dtype=torch.uint8) for key in ("label", "pseudo")},
    }
    for key, value in alone.items():
        padded[key][..., : size[0], : size[1]] = value
    padded["shape"] = torch.tensor([size, size])
    wanted, found = (terms_of(name, batch, num_renewals) for batch in (alone, padded))
    assert set(found) == set(wanted)
    for key in wanted:
        torch.testing.assert_close(
            found[key], wanted[key], rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", OTHERS)
def test_cross_entropies_have_the_recipe_and_the_protocol(name: str) -> None:
    balance, average = (0.5, "all") if name != "ld" else (0.0, "labelled")
    dataset = "streets" if balance else "gtav"
    words = [f"method={name}", f"dataset={dataset}", f"protocol={'paper' if balance else 'official'}"]
    objective: Any = make_objective(spec_of(compose(*words)))
    assert (objective.class_balance, objective.supervised_average) == (balance, average)
    batch = make_batch(6)
    changed = replace(objective_of(name), class_balance=0.5, supervised_average="all")
    student = student_of(changed, 1)
    logits, label = numpy(student(batch["image"])), batch["label"].numpy()
    terms = changed.source_terms(student, batch, is_adapting=True)
    wanted = reference.supervised(logits, label, "all", 0.5)
    assert float(terms["source_ce"].detach()) == pytest.approx(wanted, rel=1e-4)
    terms = changed.target_terms(student, {**batch, "pseudo": batch["label"]}, source=None, teacher=None)
    if key := next((key for key in ("target_ce", "pseudo") if key in terms and "proda" not in name), None):
        assert float(terms[key].detach()) == pytest.approx(wanted, rel=1e-4)
