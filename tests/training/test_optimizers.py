"""Groups of parameters, learning rates, the limit of the gradient, and optimisers by name."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ripu.io.errors import ConfigError
from ripu.run.assembly.network import check_start, make_module
from ripu.training.optimizers import Optimization, Schedule, rate_factor
from running import ROUNDS, failing_at, same_weights, spec, tiny, train_here, weights
from tiny import TinyNetwork

ADAMW = partial(torch.optim.AdamW)


def test_norms_and_biases_do_not_decay_where_asked() -> None:
    network = TinyNetwork(4)
    groups = Optimization(ADAMW, 0.1, weight_decay=0.01, norm_decay=False).groups(network)
    found = [(group["name"], group["weight_decay"], {one.ndim for one in group["params"]}) for group in groups]
    assert found == [
        ("backbone", 0.0, {1}),
        ("backbone", 0.01, {4}),
        ("head", 0.0, {1}),
        ("head", 0.01, {4}),
    ]
    trained = {id(one) for one in network.parameters() if one.requires_grad}
    listed = [id(one) for group in groups for one in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == trained
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.1, 1.0, 1.0])


def test_everything_decays_by_default_in_two_groups() -> None:
    groups = Optimization(ADAMW, 0.1).groups(TinyNetwork(4))
    assert [(group["name"], group["weight_decay"]) for group in groups] == [("backbone", 5e-4), ("head", 5e-4)]


def test_rates_fall_from_layer_to_layer_towards_the_input() -> None:
    from ripu.models.smp import SmpNetwork

    network = SmpNetwork(4, weights=None)
    groups = Optimization(ADAMW, 0.1, layer_decay=0.9).groups(network)
    rates = [group["lr"] for group in groups]
    assert [group["name"] for group in groups] == ["backbone"] * (len(groups) - 1) + ["head"]
    assert rates[-2:] == pytest.approx([0.1, 1.0])
    assert rates[:-1] == pytest.approx([0.1 * 0.9**depth for depth in reversed(range(len(groups) - 1))])
    backbone, _ = network.parameter_groups()
    assert {id(one) for group in groups[:-1] for one in group["params"]} == {id(one) for one in backbone}
    first = next(iter(network.encoder.parameters()))
    assert any(one is first for one in groups[0]["params"])


def test_adamw_in_one_pass_is_its_formula() -> None:
    network = TinyNetwork(4)
    optimizer = Optimization(ADAMW, 0.01, weight_decay=0.1, norm_decay=False).optimizer(network)
    assert [group["fused"] for group in optimizer.param_groups] == [True] * 4
    weights = [one.detach().double() for group in optimizer.param_groups for one in group["params"]]
    first, second = [0.0 * one for one in weights], [0.0 * one for one in weights]
    for step in range(1, 4):
        at = 0
        for group in optimizer.param_groups:
            for one in group["params"]:
                one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(100 * step + at))
                gradient = one.grad.double()
                first[at] = 0.9 * first[at] + 0.1 * gradient
                second[at] = 0.999 * second[at] + 0.001 * gradient**2
                unbiased = first[at] / (1 - 0.9**step), second[at] / (1 - 0.999**step)
                weights[at] = weights[at] * (1 - group["lr"] * group["weight_decay"])
                weights[at] = weights[at] - group["lr"] * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
                at += 1
        optimizer.step()
    found = [one for group in optimizer.param_groups for one in group["params"]]
    for one, wanted in zip(found, weights, strict=True):
        torch.testing.assert_close(one.detach().double(), wanted, rtol=1e-5, atol=1e-6)


def test_how_an_optimiser_updates_can_be_given() -> None:
    for given in ({"fused": False}, {"foreach": True}):
        optimizer = Optimization(partial(torch.optim.AdamW, **given), 0.01).optimizer(TinyNetwork(4))
        assert not any(group["fused"] for group in optimizer.param_groups)
    sgd = Optimization(partial(torch.optim.SGD), 0.01).optimizer(TinyNetwork(4))
    assert not any(group["fused"] for group in sgd.param_groups)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_the_schedule_is_its_formula(schedule: Schedule, warmup: int) -> None:
    for step in range(45):
        done = min(1.0, step / 40)
        wanted = {"poly": (1 - done) ** 0.9, "cosine": 0.5 + 0.5 * math.cos(math.pi * done), "constant": 1.0}[schedule]
        if step < warmup:
            wanted *= (step + 1) / (warmup + 1)
        assert rate_factor(step, schedule, 40, warmup) == pytest.approx(wanted, abs=1e-15)


def test_poly_has_a_horizon_of_its_own_and_cosine_ends_with_the_run() -> None:
    poly = Optimization(ADAMW, 0.1, poly_horizon=200)
    assert poly.factor(100, max_steps=100) == pytest.approx(0.5**0.9)
    assert Optimization(ADAMW, 0.1, schedule="cosine", poly_horizon=200).factor(100, max_steps=100) == 0.0


@pytest.mark.parametrize(
    "options",
    [
        ("optimizer=adamw", "optimizer.clip_norm=0.5", "optimizer.schedule=cosine", "optimizer.warmup_fraction=0.3"),
        ("optimizer=adamw", "optimizer._target_=torch.optim.NAdam", "ema.decay=0.9"),
        ("ema.decay=0.99", "optimizer.norm_decay=false"),
    ],
    ids=["adamw", "nadam-ema", "sgd-ema"],
)
def test_a_run_goes_on_as_if_it_had_never_stopped(options: tuple[str, ...], data_root: Path, tmp_path: Path) -> None:
    whole = train_here(data_root, tmp_path / "whole", *options)
    with failing_at(4):
        train_here(data_root, tmp_path / "run", *options)
    assert sorted((tmp_path / "run" / "checkpoints").glob("step-*4.ckpt"))
    resumed = train_here(data_root, tmp_path / "run", *options, "resume=true")
    assert same_weights(tmp_path / "whole", tmp_path / "run")
    assert resumed["mIoU"] == whole["mIoU"]
    assert resumed["evaluations"] == whole["evaluations"]


def test_the_gradient_is_limited(data_root: Path, tmp_path: Path) -> None:
    """With SGD without momentum and decay, a step is at most rate x limit long."""
    plain = ("optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.head_lr_factor=1")
    more = ("optimizer.clip_norm=1e-3", "optimizer.learning_rate=1.0", "optimizer.schedule=constant")
    train_here(data_root, tmp_path / "run", *plain, *more)
    before = dict(TinyNetwork(11).named_parameters())
    after = weights(tmp_path / "run")
    moved = torch.cat([(after[f"network.{name}"] - value.detach()).flatten() for name, value in before.items()])
    assert 0 < float(moved.norm()) <= 7e-3 * 1.001


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("optimizer._target_=torch.optim.NAdam",), "NAdam has no argument momentum; leave it out with"),
        (
            ("optimizer=adamw", "optimizer._target_=torch.optim.Rprop", "optimizer.betas=null"),
            "Rprop has no weight decay; give optimizer.weight_decay=0",
        ),
        (("+optimizer.lr=0.1",), r"optimizer.lr=0.1 has no effect; give optimizer.learning_rate"),
        (
            ("optimizer.clip_norm=1", "+optimizer.fused=true", "trainer.precision=16-mixed"),
            "optimizer.clip_norm cannot limit the gradient of optimizer.fused=true",
        ),
        (("objective=ripu_teacher", "ema.decay=null"), "ema.decay=null, but TeacherObjective learns from"),
    ],
)
def test_what_an_optimiser_or_objective_cannot_do_is_refused_before_any_work(
    options: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    described = spec(*tiny(tmp_path, tmp_path / "run", *ROUNDS, *options))
    with pytest.raises(ConfigError, match=line):
        check_start(described)


def test_an_argument_that_is_null_is_left_out(tmp_path: Path) -> None:
    words = ("optimizer._target_=torch.optim.NAdam", "optimizer.momentum=null")
    made = make_module(spec(*tiny(tmp_path, tmp_path / "run", *ROUNDS, *words)))
    assert isinstance(made.configure_optimizers()["optimizer"], torch.optim.NAdam)


def test_running_statistics_follow_the_target_or_both(data_root: Path, tmp_path: Path) -> None:
    """Seen on one step: with both, the source's batch moves them first."""
    found = {}
    for choice in ("target", "both"):
        options = (f"protocol.norm_statistics={choice}", "optimizer.learning_rate=1e-12")
        train_here(data_root, tmp_path / choice, *options)
        found[choice] = weights(tmp_path / choice)
    counts = {choice: int(one["network.norm.num_batches_tracked"]) for choice, one in found.items()}
    assert not torch.equal(found["target"]["network.norm.running_mean"], found["both"]["network.norm.running_mean"])
    assert counts["both"] == counts["target"] == 12  # both count; only the momentum differs
    assert isinstance(nn.BatchNorm2d(1).momentum, float)


def test_an_optimiser_that_needs_a_closure_or_takes_none_is_refused() -> None:
    from ripu.config.targets import check_target

    check_target("torch.optim.NAdam", "optimizer")
    for target in ("torch.optim.LBFGS", "test_optimizers.NoClosure", "torch.nn.Linear"):
        with pytest.raises(ConfigError, match="is not an optimiser of torch whose step may have a closure"):
            check_target(target, "optimizer")


class NoClosure(torch.optim.SGD):
    def step(self) -> None:  # type: ignore[override]
        super().step()


@pytest.mark.parametrize("setting", ["source_only", "fully_supervised"])
def test_a_teacher_has_no_part_in_settings_without_revealed_labels(setting: str, tmp_path: Path) -> None:
    described = spec(
        *tiny(
            tmp_path, tmp_path / "run", f"setting={setting}", "objective=ripu_teacher", "dataset.recipe.ema_decay=null"
        )
    )
    assert described.average_decay is None
    check_start(described)
    assert make_module(described).average is None
