"""TensorBoard: the content of its event files, and how it paints pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripu.dashboards.boards import Picture, class_layer, fitted, round_layer
from ripu.dashboards.tensorboard import paint
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference import palette
from running import train_here


def test_event_files_hold_scalars_pictures_and_tables(data_root: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    results = train_here(data_root, tmp_path / "run", "logger=tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "lr/head", "val/mIoU", "al/mIoU", "al/picks", "train/images_per_second"} <= set(
        tags["scalars"]
    )
    assert [one.value for one in events.Scalars("al/mIoU")][-1] == pytest.approx(results["mIoU"], rel=1e-6)
    assert {"val/confusion", "panel/val/0", "panel/target/0"} <= set(tags["images"])
    assert len(events.Images("panel/val/0")) == 4
    assert "round/images/text_summary" in tags["tensors"]


def test_layers_are_painted_in_their_colours() -> None:
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    label = np.full((20, 30), 255, dtype=np.uint8)
    label[:, :10] = 3
    asked = np.full((20, 30), 255, dtype=np.uint8)
    asked[5, 5], asked[15, 25] = 0, 2
    layers = {"truth": class_layer(label, CAMVID11), "queried": round_layer(asked, 3)}
    painted = paint(Picture("a", image, layers), opacity=1.0)
    assert painted.shape == (20, 90, 3)
    np.testing.assert_array_equal(painted[:, :30], image)
    np.testing.assert_array_equal(painted[0, 30], CAMVID11.class_colors[3])
    np.testing.assert_array_equal(painted[0, 45], [160] * 3)
    np.testing.assert_array_equal(painted[5, 65], palette.round_color(0))
    np.testing.assert_array_equal(painted[14, 84], palette.round_color(2))  # enlarged to be seen
    small = fitted(Picture("a", image, layers), 15)
    assert small.image.shape == (10, 15, 3)
    assert small.layers["queried"].values.shape == (10, 15)
    assert round_layer(asked, 1, is_next=True).names == {1: "next"}
