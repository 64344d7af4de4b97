"""When rounds take place, and that the network comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ripu.models.interface import evaluating, keeping_statistics
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from running import ROUNDS, compose, spec_of, tiny, train_here
from tiny import TinyNetwork


def test_every_part_comes_back_in_its_own_mode() -> None:
    network = nn.Sequential(TinyNetwork(3), nn.Dropout(), nn.BatchNorm2d(3)).train()
    network[1].eval()
    network[0].norm.eval()  # type: ignore[union-attr]
    modes = [part.training for part in network.modules()]
    assert len(set(modes)) == 2
    with evaluating(network):
        assert not any(part.training for part in network.modules())
    assert [part.training for part in network.modules()] == modes
    with pytest.raises(RuntimeError), evaluating(network):
        raise RuntimeError
    assert [part.training for part in network.modules()] == modes


def test_statistics_can_be_kept_while_the_batch_normalises() -> None:
    network = TinyNetwork(3)
    before = [buffer.clone() for buffer in (network.norm.running_mean, network.norm.running_var)]  # type: ignore[union-attr]
    momentum = network.norm.momentum
    image = torch.randn(2, 3, 8, 8)
    with keeping_statistics(network):
        kept = network.norm(network.body(image))
    assert torch.equal(before[0], network.norm.running_mean)  # type: ignore[arg-type]
    assert torch.equal(before[1], network.norm.running_var)  # type: ignore[arg-type]
    assert network.norm.momentum == momentum
    assert torch.equal(kept, network.norm(network.body(image)))
    assert not torch.equal(before[0], network.norm.running_mean)  # type: ignore[arg-type]


def test_rounds_run_in_evaluation_mode_after_the_step_and_leave_modes_alone(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    run, select = SelectionEngine.run, SelectionCallback.on_train_epoch_end

    def watch_engine(self: SelectionEngine, store: Any, index: int, step: int, **arguments: Any) -> Any:
        seen[-1] |= {"index": index, "step": step, "rounds before": store.num_rounds}
        network = arguments["network"]

        def watched(image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = network(image)
            seen[-1]["grad"] = logits.requires_grad
            return logits

        return run(self, store, index, step, **(arguments | {"network": watched}))

    def watch_callback(self: SelectionCallback, trainer: Any, pl_module: Any) -> None:
        modes = {name: part.training for name, part in pl_module.named_modules()}
        weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        seen.append({"global step": trainer.global_step})
        select(self, trainer, pl_module)
        seen[-1]["same modes"] = modes == {name: part.training for name, part in pl_module.named_modules()}
        seen[-1]["frozen"] = modes["network.frozen"]
        seen[-1]["training"] = modes["network.norm"]
        after = pl_module.state_dict()
        seen[-1]["same weights"] = all(torch.equal(weights[name], after[name]) for name in weights)

    monkeypatch.setattr(SelectionEngine, "run", watch_engine)
    monkeypatch.setattr(SelectionCallback, "on_train_epoch_end", watch_callback)
    train_here(data_root, tmp_path / "run")
    always = {"same modes": True, "same weights": True, "frozen": False, "training": True}
    done = {"grad": False} | always
    assert seen == [
        {"global step": 2} | always,
        {"global step": 3, "index": 0, "step": 3, "rounds before": 0} | done,
        {"global step": 5, "index": 1, "step": 5, "rounds before": 1} | done,
        {"global step": 7} | always,
    ]


def test_the_step_after_a_round_trains_on_its_labels(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With prefetching workers too: what training reads at a step is what the rounds before it revealed."""
    from ripu.module import RipuModule

    labelled: dict[int, bool] = {}
    loss = RipuModule.domain_loss

    def watch(self: RipuModule, batch: Any, domain: str, **more: Any) -> Any:
        if domain == "target":
            labelled[self.global_step] = bool((batch["target"]["label"] != 255).any())
        return loss(self, batch, domain, **more)

    monkeypatch.setattr(RipuModule, "domain_loss", watch)
    train_here(data_root, tmp_path / "run", "data.num_workers=2", "budget=0.4")
    assert labelled == {2: False, 3: True, 4: True, 5: True, 6: True}


def test_a_failed_round_stops_the_run_and_says_so(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripu.labelstore import LabelStore
    from ripu.selection.oracles import GroundTruthOracle
    from ripu.selection.ranks import SelectionError

    def leave(self: GroundTruthOracle, *arguments: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(GroundTruthOracle, "answer", leave)
    with pytest.raises(SelectionError, match=r"round 0 at step 3 was not committed: OSError: gone"):
        train_here(data_root, tmp_path / "run")
    assert LabelStore.open(tmp_path / "run" / "labels").num_rounds == 0


def test_the_learning_curve_is_part_of_a_checkpoint(data_root: Path, tmp_path: Path) -> None:
    cfg = compose(*tiny(data_root, tmp_path, *ROUNDS))
    callback = SelectionCallback(spec_of(cfg).plan, None, None)
    assert callback.labelled_fraction == 0.0
    state = {"evaluations": [{"step": 2, "mIoU": 3.0}], "rounds": [{"step": 3, "labelled_fraction": 0.25}]}
    callback.load_state_dict(state)
    assert callback.state_dict() == state
    assert callback.labelled_fraction == 0.25
