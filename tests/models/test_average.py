"""The moving average of weights, against a literal loop."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from ripu.models.average import MovingAverage, averaged_weights, statistics_of
from ripu.models.checkpoints import load_weights
from ripu.run.restore import restore
from ripu.training.step_failure import StepGuard
from running import ROUNDS, spec, tiny, train_here, weights
from tiny import TinyNetwork


def test_the_average_is_its_formula() -> None:
    network = TinyNetwork(3, dropout=0.0)
    average = MovingAverage(network, decay=0.6)
    wanted = {name: value.double().numpy() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        network.train()(torch.rand(2, 3, 8, 8, generator=generator))
        average.move(network, step)
        kept = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            new = value.double().numpy()
            is_copied = name in statistics_of(network)
            wanted[name] = new if is_copied else kept * wanted[name] + (1 - kept) * new
    for name, value in average.network.state_dict().items():
        np.testing.assert_allclose(value.double().numpy(), wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert not average.train().network.training


def test_a_teacher_follows_the_statistics_of_what_it_sees() -> None:
    """By its own weights, in batch statistics, and only where the network in training does."""
    network = TinyNetwork(3, dropout=0.5).train()
    average = MovingAverage(network, decay=0.9)
    norms = [part for part in average.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms
    image = 5.0 + 2.0 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    twin = deepcopy(average.network).train()
    for part in twin.modules():
        if isinstance(part, torch.nn.Dropout | torch.nn.Dropout2d):
            part.eval()
    with torch.no_grad():
        wanted = twin(image)
    assert torch.equal(average.follow(image, network), wanted)
    assert not any(part.training for part in average.modules())
    for name, value in twin.state_dict().items():
        assert torch.equal(average.network.state_dict()[name], value), name
    before = {name: value.clone() for name, value in average.network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network(image)
    average.move(network, 3, statistics=False)
    for name, value in average.network.state_dict().items():
        is_statistic = name in statistics_of(average.network)
        assert torch.equal(value, before[name]) == is_statistic, name
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()  # frozen
    before = {name: value.clone() for name, value in average.network.state_dict().items()}
    assert torch.equal(average.follow(image, network), average(image))
    assert all(torch.equal(value, before[name]) for name, value in average.network.state_dict().items())


def test_an_undone_step_leaves_the_statistics_of_both_networks() -> None:
    network = TinyNetwork(3, dropout=0.0).train()
    average = MovingAverage(network, decay=0.9)
    before = {
        **deepcopy(statistics_of(network)),
        **{f"average.{k}": v for k, v in deepcopy(statistics_of(average)).items()},
    }
    guard = StepGuard()
    guard.begin(network, average)
    image = 5.0 + torch.rand(2, 3, 8, 8)
    network(image)
    average.follow(image, network)
    assert guard.undo()
    after = {**statistics_of(network), **{f"average.{k}": v for k, v in statistics_of(average).items()}}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_command_uses_the_average(data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", "ema.decay=0.9")
    path = tmp_path / "run" / "checkpoints" / "final.ckpt"
    stored = weights(tmp_path / "run")
    assert not torch.equal(stored["network.head.weight"], stored["average.network.head.weight"])
    _, module = restore(path)
    assert torch.equal(module.network.head.weight, stored["average.network.head.weight"])  # type: ignore[union-attr,arg-type]
    assert module.average is None
    network = TinyNetwork(11)
    assert load_weights(network, path) == "project"
    assert torch.equal(network.head.weight, stored["average.network.head.weight"])
    from ripu.evaluate import evaluate
    from running import compose

    words = (f"checkpoint={tmp_path / 'run'}", f"paths.output_dir={tmp_path / 'measured'}", "accelerator=cpu")
    assert evaluate(compose(*words, config_name="evaluate"))["mIoU"] == pytest.approx(results["mIoU"], abs=1e-6)


def test_a_run_without_an_average_is_read_as_it_is() -> None:
    state = {"network.a": 1, "mean": 2}
    assert averaged_weights(state) is state


def test_rounds_score_with_the_average(data_root: Path, tmp_path: Path) -> None:
    described = spec(*tiny(data_root, tmp_path, *ROUNDS, "ema.decay=0.5"))
    from ripu.run.assembly.network import make_module

    module = make_module(described)
    assert module.average is not None
    with torch.no_grad():
        module.network.head.weight.add_(1.0)  # type: ignore[union-attr,operator]
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(module.eval()(image), module.teacher(image))
        assert not torch.equal(module.network(module._normalised(image)), module(image))
