"""Every method ignores padding in its terms and weights cross-entropies as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from method_runs import OTHERS
from reference import losses as reference
from ripu.acquisition import Features
from ripu.acquisition.nested import arguments_of, with_kept
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


@pytest.mark.parametrize("num_renewals", [0, 1])
@pytest.mark.parametrize("name", OTHERS)
def test_mixed_precision_changes_neither_means_nor_sums(
    name: str, num_renewals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large features, whose sums over the cells float16 cannot hold; the layers alone compute in float16."""

    def precise(method: Any) -> Any:
        def call(student: Taught, image: Tensor) -> Any:
            with torch.autocast("cpu", enabled=False):
                logits, features = method(student, image)
            return logits, Features(250.0 + features.values, features.extent)

        return call

    for reading in ("with_features", "teacher_with_features"):
        monkeypatch.setattr(Taught, reading, precise(getattr(Taught, reading)))
    batch = {**make_batch(3), "pseudo": make_batch(4)["label"]}
    wanted = terms_of(name, batch, num_renewals)
    with torch.autocast("cpu", torch.float16):
        found = terms_of(name, batch, num_renewals)
    for key in wanted:
        torch.testing.assert_close(
            found[key], wanted[key], rtol=0.02, atol=2e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


def active_scores() -> list[Any]:
    """The methods that ask, in each of their labelling modes."""
    specs = [(name, spec_of(compose(f"method={name}"))) for name in OTHERS]
    return [(name, mode) for name, spec in specs if spec.has_rounds for mode in spec.method.modes]


@pytest.mark.parametrize(("name", "mode"), active_scores())
def test_rounds_of_a_network_in_mixed_precision(name: str, mode: str) -> None:
    """Logits and features come in bfloat16, and the score is computed outside of the passes of the network."""
    spec = spec_of(compose(f"method={name}", f"mode={mode}"))
    assert spec.acquisition is not None
    student = student_of(objective_of(name), 0)
    score: Any = with_kept(instantiate(spec.acquisition), student.kept)
    image = make_batch(5)["image"][:1]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, features = student.with_features(image)
    assert (logits.dtype, features.values.dtype) == (torch.bfloat16, torch.bfloat16)

    def scored(logits: Tensor, features: Features) -> Tensor:
        given = arguments_of(score, {"features": features})
        return score(logits, (64, 80), [3], **given).score  # type: ignore[no-any-return]

    found, wanted = scored(logits, features), scored(logits.float(), features.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)
