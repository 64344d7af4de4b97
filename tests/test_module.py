"""The training step: two backward passes one after the other, under accumulation and in every precision."""

from __future__ import annotations

import copy
import json
import weakref
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.module import RipuModule
from ripu.objectives import RipuObjective
from ripu.schedule import Plan
from ripu.training.optimizers import Optimization
from running import call, tiny, train_here, weights
from tiny import TinyDeepLab, TinyNetwork

Batch = dict[str, dict[str, Tensor]]


def make_module(steps: int = 1, pretrain: int = 0, accumulate: int = 1, rate: float = 0.05) -> RipuModule:
    network = TinyNetwork(19, dropout=0.0)
    plan = Plan(steps, pretrain)
    optimization = Optimization(partial(torch.optim.SGD, momentum=0.9), learning_rate=rate)
    return RipuModule(
        network,
        CITYSCAPES19,
        plan,
        seed=0,
        objective=RipuObjective(),
        optimization=optimization,
        accumulate=accumulate,
    )


def make_batches(count: int, size: tuple[int, int] = (24, 32), num_images: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)

    def part(revealed: float) -> dict[str, Tensor]:
        label = torch.randint(0, 19, (num_images, *size), generator=generator, dtype=torch.uint8)
        label[torch.rand(label.shape, generator=generator) > revealed] = 255
        image = torch.randint(0, 256, (num_images, 3, *size), generator=generator, dtype=torch.uint8)
        return {"image": image, "label": label, "position": torch.arange(num_images)}

    return [{"source": part(0.9), "target": part(0.05)} for _ in range(count)]


class Gradients(pl.Callback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: pl.LightningModule, optimizer: Any) -> None:
        named = pl_module.network.named_parameters()  # type: ignore[operator]
        self.steps.append({name: one.grad.clone() for name, one in named if one.grad is not None})


def fit(module: RipuModule, batches: list[Batch], *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=module.plan.max_steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def summed_gradients(module: RipuModule, batches: list[Batch], autocast: bool = False) -> dict[str, Tensor]:
    """The gradients of one backward pass through the sum of all terms of all micro-batches, divided by their number."""
    module = copy.deepcopy(module).train()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        terms = [
            term
            for batch in batches
            for part in (
                module.domain_loss(batch, "source", is_adapting=True),
                module.domain_loss(batch, "target", is_adapting=True),
            )
            for term in part.values()
        ]
    (torch.stack(terms).sum() / len(batches)).backward()
    return {name: one.grad for name, one in module.network.named_parameters() if one.grad is not None}  # type: ignore[operator]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_are_those_of_the_sum(accumulate: int, precision: str) -> None:
    module, batches, kept = make_module(accumulate=accumulate), make_batches(accumulate), Gradients()
    expected = summed_gradients(module, batches, autocast=precision != "32-true")
    fit(module, batches, kept, precision=precision)
    (found,) = kept.steps
    assert found.keys() == expected.keys()
    tolerance = 1e-6 if precision == "32-true" else 0.01
    for name, gradient in expected.items():
        assert float(gradient.abs().max()) > 0, name
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * scale, msg=name)


class Held:
    """Counts the bytes that graphs keep for their backward passes."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def _drop(self, count: int) -> None:
        self.now -= count

    def __enter__(self) -> Held:
        class Box:
            def __init__(self, tensor: Tensor) -> None:
                self.tensor = tensor

        def pack(tensor: Tensor) -> Box:
            box, count = Box(tensor), tensor.numel() * tensor.element_size()
            self.now += count
            self.most = max(self.most, self.now)
            weakref.finalize(box, self._drop, count)
            return box

        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def test_two_graphs_are_never_held_at_once() -> None:
    module, (batch,) = make_module(), make_batches(1)
    alone = {}
    for domain in batch:
        with Held() as held:
            one = copy.deepcopy(module).train()
            terms = one.domain_loss(batch, domain, is_adapting=True)
            torch.stack(list(terms.values())).sum().backward()
        alone[domain] = held.most
        del terms
    with Held() as held:
        fit(module, [batch])
    assert held.most == pytest.approx(max(alone.values()), rel=0.05)
    assert held.most < 0.8 * sum(alone.values())
    assert held.now == 0


def losses(precision: str, **options: Any) -> list[float]:
    class Losses(pl.Callback):
        found: list[float]

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            self.found.append(float(pl_module.step_losses["loss"]))

    watch = Losses()
    watch.found = []
    if not options:
        options = {"precision": precision}
    fit(make_module(steps=8, rate=0.01), make_batches(2) * 4, watch, **options)
    return watch.found


@pytest.fixture(scope="module")
def exact_losses() -> list[float]:
    return losses("32-true")


def test_bfloat16_stays_close(exact_losses: list[float]) -> None:
    assert losses("bf16-mixed") == pytest.approx(exact_losses, rel=0.03)
    assert exact_losses[-1] < 0.9 * exact_losses[0]


def test_float16_is_scaled_once_for_both_backward_passes(exact_losses: list[float]) -> None:
    """With a scaler of its own kind, whose scale both passes share and the optimiser step takes back."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    assert losses("16-mixed", plugins=[plugin]) == pytest.approx(exact_losses, rel=0.03)
    assert scaler.get_scale() == 2.0**12  # it grew twice in 8 steps: it was updated once a step


def test_a_float16_step_that_overflows_is_left_out() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    module = make_module()
    before = copy.deepcopy(module.network.state_dict())
    fit(module, make_batches(1), plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    after = module.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "norm" not in name)
    assert scaler.get_scale() == 2.0**39


@pytest.mark.slow
def test_two_ranks_learn_what_two_micro_batches_teach(data_root: Path, tmp_path: Path) -> None:
    """Without batch norm and dropout, ranks that exchange gradients once a step are micro-batches of one process."""
    start = tmp_path / "start.pth"
    torch.save(TinyDeepLab(11).state_dict(), start)
    more = ["model._target_=tiny.TinyDeepLab", f"model.checkpoint={start}", "selection_steps=[3]"]
    more += ["data.source_batch=1", "data.target_batch=1", "pretrain_steps=2", "data.transforms=[]"]
    words = tiny(data_root, tmp_path / "two", *more, "trainer.devices=2", "trainer.strategy=ddp")
    done = call("ripu.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    train_here(data_root, tmp_path / "one", *more, "trainer.accumulate=2")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    picks = [json.loads((tmp_path / run / "results.json").read_text())["rounds"][0]["picks"] for run in ("one", "two")]
    assert picks[0] == picks[1]
