"""The peak memory of a run over its ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ripu.run.memory import begin_peak
from ripu.training import peak_memory
from ripu.training.peak_memory import largest_peak_gib, peak_memory_gib
from ripu.training.training_log import memory


def ranks(*others: dict[str, float | None]) -> Any:
    """A trainer whose other ranks have these peaks."""

    def reduce(own: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "max"
        values = [[float("inf") if one is None else one for one in rank.values()] for rank in others]
        return torch.stack([own, *map(torch.tensor, values)]).amax(dim=0)

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    return SimpleNamespace(world_size=1 + len(others), strategy=strategy)


def test_the_largest_of_all_ranks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "process_peak_gib", lambda: 1.5)
    assert largest_peak_gib(ranks()) == {"process": 1.5, "device": None}
    assert largest_peak_gib(ranks({"process": 2.5, "device": None})) == {"process": 2.5, "device": None}
    assert largest_peak_gib(ranks({"process": 0.5, "device": None})) == {"process": 1.5, "device": None}
    assert largest_peak_gib(ranks({"process": None, "device": None})) == {"process": None, "device": None}


def test_the_log_leaves_out_what_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "process_peak_gib", lambda: 1.5)
    assert memory(torch.device("cpu")) == {"system/memory_gib": 1.5}
    monkeypatch.setattr(peak_memory, "process_peak_gib", lambda: None)
    assert memory(torch.device("cpu")) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_has_a_peak_of_its_own() -> None:
    device = torch.device("cuda")
    begin_peak()
    block = torch.zeros(2**28, dtype=torch.uint8, device=device)
    del block
    assert (peak_memory_gib(device)["device"] or 0) >= 0.25
    begin_peak()
    assert (peak_memory_gib(device)["device"] or 0) < 0.25
