"""The measurement of the loaders."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import bench_loading
from ripu.io.errors import RipuError


def measured(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_loading.py", *words])
    bench_loading.main()


def test_every_loader_is_timed_with_and_without_a_cache(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset=camvid", f"paths.data_root={data_root}", "data.source_size=[32,48]", "data.target_size=[32,48]"]
    cache = tmp_path / "cache"
    measured(monkeypatch, *words, "--workers", "0", "--images", "5", "--cache", str(cache), "--step-ms", "1e9")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("files", "cache"))]
    assert [(row[0], row[1]) for row in rows] == [
        (place, part) for place in ("files", "cache") for part in ("source", "target", "pool")
    ]
    assert all(float(row[3]) > 0 for row in rows)
    assert sum("enough from 0 workers" in line for line in lines) == 4
    assert any(path.is_file() for path in cache.rglob("*"))


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RipuError, match="CamVid"):
        measured(monkeypatch, "dataset=camvid", f"paths.data_root={tmp_path}")


class Slow(Dataset[dict[str, Tensor]]):
    """Takes 50 ms for an image."""

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        time.sleep(0.05)
        return {"image": torch.zeros(3, 2, 2), "label": torch.zeros(2, 2)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_were_fetched_before_the_clock_starts_do_not_count(workers: int) -> None:
    rate = bench_loading.images_per_second(Slow(), [0, 1, 2], batch=2, workers=workers, least=1)
    assert 0 < rate < 2 * max(1, workers) / 0.05  # with prefetched ones it would be hundreds of times as much
