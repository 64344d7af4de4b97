"""The forward passes of a round run one batch ahead on a GPU, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rounds
from ripu.acquisition import DensityRatio
from ripu.labelstore import LabelStore
from ripu.selection import forward as module
from ripu.selection.forward import Output, Source, one_ahead
from rounds import make_engine, make_store, run_round, store_bytes

CPU = torch.device("cpu")


class Stream:
    """A stream that notes who waits for it."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    def wait_stream(self, other: Stream) -> None:
        self.seen.append(f"{self.name} waits for {other.name}")


def streams_of_cpu(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    """Let a CPU have streams, on which everything is done at once."""

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        seen.append(f"enter {stream.name}")
        yield
        seen.append(f"leave {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("ahead", seen))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("own", seen))
    monkeypatch.setattr(torch.cuda, "stream", entered)


def test_the_next_batch_is_queued_before_a_batch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    streams_of_cpu(monkeypatch, seen)

    def forward(batch: dict[str, Any]) -> Iterator[Output]:
        seen.append(f"forward {batch['number']}")
        yield Output(torch.zeros(1, 2, 3, 4))

    for batch, outputs in one_ahead(({"number": number} for number in range(3)), forward, CPU):
        seen.append(f"use {batch['number']} ({len(list(outputs))})")
    first = ["ahead waits for own", "enter ahead", "forward 0", "leave ahead"]
    second = ["own waits for ahead", "enter ahead", "forward 1", "leave ahead", "use 0 (1)"]
    third = ["own waits for ahead", "enter ahead", "forward 2", "leave ahead", "use 1 (1)"]
    assert seen == [*first, *second, *third, "own waits for ahead", "use 2 (1)"]
    assert list(one_ahead((), forward, CPU)) == []


@pytest.mark.parametrize(
    "changes", [{}, {"acquisition": DensityRatio(radius=1, dimensions=4, samples=16)}], ids=["logits", "features"]
)
def test_a_round_ahead_is_the_same_round(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(**changes)
    with make_store(tmp_path / "in turn") as store:
        run_round(engine, store, 0)
    seen: list[str] = []
    streams_of_cpu(monkeypatch, seen)
    monkeypatch.setattr(
        Source, "batches", lambda self: one_ahead(self.pool(self.images), module._Forward(self.network, CPU), CPU)
    )
    with make_store(tmp_path / "ahead") as store:
        run_round(engine, store, 0)
    assert seen.count("enter ahead") >= 4  # seven images in batches of two
    assert store_bytes(tmp_path / "in turn") == store_bytes(tmp_path / "ahead")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_wait_for_the_forward_pass_of_their_batch(tmp_path: Path) -> None:
    """The forward pass ends after a pause of the device, in which a score that did not wait would read old memory."""
    device = torch.device("cuda")
    network = rounds.network()

    def late(image: Tensor) -> Tensor:
        found = network(image.cpu()).to(device)
        torch.cuda._sleep(50_000_000)
        return found + 0.0

    stores: list[LabelStore] = []
    for name, forward in (("at once", lambda image: network(image.cpu()).to(device)), ("late", late)):
        with make_store(tmp_path / name) as store:
            for index in range(3):
                run_round(make_engine(), store, index, device=device, network=forward)
            stores.append(store)
    assert store_bytes(tmp_path / "at once") == store_bytes(tmp_path / "late")
