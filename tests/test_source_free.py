"""Rounds before the first step, and adaptation that opens no source data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from running import label_bytes, same_weights, train_here

FIRST = ("selection_steps=[0,3]", "pretrain_steps=0")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_round_at_step_0_is_trained_on_from_the_first_step(workers: int, data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", *FIRST, f"data.num_workers={workers}")
    assert [one["step"] for one in results["rounds"]] == [0, 3]
    assert [one["step"] for one in results["evaluations"]] == [0, 3]
    assert results["evaluations"][0]["labelled_fraction"] == 0.0
    assert results["evaluations"][1]["labelled_fraction"] == pytest.approx(results["rounds"][0]["labelled_fraction"])
    first = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = first[0].split(",").index("train/target_ce")
    losses = [line.split(",")[column] for line in first[1:] if line.split(",")[column]]
    assert len(losses) == 7
    assert all(float(loss) > 0 for loss in losses)


def test_a_run_lost_before_its_first_checkpoint_keeps_the_round_of_step_0(data_root: Path, tmp_path: Path) -> None:
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    train_here(data_root, whole, *FIRST)
    train_here(data_root, lost, *FIRST)
    shutil.rmtree(lost / "checkpoints")
    train_here(data_root, lost, *FIRST, "resume=true")
    assert same_weights(whole, lost)
    assert label_bytes(whole) == label_bytes(lost)
