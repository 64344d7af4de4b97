"""Resuming: the checkpoint that a run resumes from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import ledger
from fake_trainer import FakeTrainer, save
from ripu.labelstore import LabelStoreError
from ripu.run.lifecycle import find_checkpoint
from ripu.schedule import Plan
from ripu.training.checkpoint_callback import RunCheckpoint

PLAN = Plan(400, 0, (100, 200, 300))


def saved(run: Path, *steps: int) -> None:
    folder = run / "checkpoints"
    run.mkdir(exist_ok=True)
    save(RunCheckpoint(folder, PLAN, keep=9), FakeTrainer(folder), *steps)


def test_the_newest_checkpoint_that_the_rounds_allow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    saved(run, 90, 100, 150, 200, 250)
    with ledger.make(run / "labels", 2) as store:
        assert find_checkpoint(run, PLAN) == run / "checkpoints" / "step-00000250.ckpt"
        store.undo_round(1)
        with caplog.at_level(logging.WARNING):
            assert find_checkpoint(run, PLAN) == run / "checkpoints" / "step-00000150.ckpt"
        assert "step-00000250.ckpt is from after a round that is not in" in caplog.text
        store.undo_round(0)
        assert find_checkpoint(run, PLAN) == run / "checkpoints" / "step-00000090.ckpt"
    (run / "checkpoints" / "step-00000090.ckpt").write_bytes(b"")
    assert find_checkpoint(run, PLAN) is None


def test_labels_that_are_gone_or_damaged_stop_the_run_before_it_asks_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved(run, 50)
    assert find_checkpoint(run, PLAN) is not None
    saved(run, 150)
    with pytest.raises(
        LabelStoreError, match=r"labels is gone, but .*step-00000150.ckpt is from after 1 rounds; restore"
    ):
        find_checkpoint(run, PLAN)
    ledger.make(run / "labels", 1).close()
    manifest = run / "labels" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    with pytest.raises(LabelStoreError, match=r"manifest\.json"):
        find_checkpoint(run, PLAN)
