"""Runs on images of four bands with 12 bits: the same reading in training, rounds, evaluation and prediction."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from omegaconf import OmegaConf
from PIL import Image

from ripu.datasets.errors import SceneError
from ripu.doctor.__main__ import doctor
from ripu.evaluate import evaluate
from ripu.io.errors import ConfigError
from ripu.predict import predict
from ripu.run.assembly.data import make_scenes, make_transforms
from ripu.run.assembly.network import make_network
from running import ROUNDS, compose, spec, spec_of, tiny, train_here

BANDS = "data.bands=[1,2,3,4]"
FOLDER = [
    "dataset.classes=[ground,roof,tree]",
    *(f"dataset.{part}.{kind}={part}/{kind}" for part in ("source", "target", "val") for kind in ("images", "labels")),
    "evaluation.pictures=1",
]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four bands of 12 bits, with another offset in the fourth."""
    root, rng = tmp_path_factory.mktemp("field"), np.random.default_rng(0)
    for part in ("source", "target", "val"):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        for number in range(3):
            label = np.repeat(np.repeat(rng.integers(0, 3, (4, 6)), 8, 0), 8, 1).astype(np.uint8)
            bands = (
                label[..., None].astype(int) * 900 + rng.integers(0, 300, (32, 48, 4)) + np.array([0, 100, 200, 1500])
            )
            path = root / part / "images" / f"{number}.tif"
            tifffile.imwrite(path, bands.astype(np.uint16), photometric="minisblack", planarconfig="contig")
            Image.fromarray(label).save(root / part / "labels" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def done(field: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on percentiles of four bands; for reading only."""
    run = tmp_path_factory.mktemp("bands") / "run"
    train_here(field, run, *FOLDER, BANDS, "data.value_range=percentiles", dataset="folder")
    return run


def stored(run: Path) -> Any:
    content = torch.load(run / "checkpoints" / "final.ckpt", weights_only=True)
    return content["hyper_parameters"]["config"]["data"]


def test_percentiles_are_kept_in_the_run_and_used_by_every_command(done: Path, field: Path, tmp_path: Path) -> None:
    measured = stored(done)["measured_range"]
    paths = [field / "target" / "images" / f"{number}.tif" for number in range(3)]
    values = np.stack([tifffile.imread(path) for path in paths]).reshape(-1, 4)
    np.testing.assert_allclose(measured, np.percentile(values, (1, 99), axis=0).T)
    assert OmegaConf.load(done / "config.yaml").data.measured_range == measured
    results = json.loads((done / "results.json").read_text())
    words = (f"checkpoint={done}", f"paths.output_dir={tmp_path / 'e'}", "accelerator=cpu", "num_workers=0")
    assert evaluate(compose(*words, config_name="evaluate"))["mIoU"] == results["mIoU"]
    words = (f"checkpoint={done}", f"input={field}/val/images", f"output={tmp_path / 'p'}", "accelerator=cpu")
    assert predict(compose(*words, config_name="predict"))["done"] == 3
    for number in range(3):
        one = np.asarray(Image.open(tmp_path / "p" / "labelIds" / f"{number}.png"))
        other = np.asarray(Image.open(tmp_path / "e" / "predictions" / "labelIds" / f"{number}.png"))
        np.testing.assert_array_equal(one, other)
        assert Image.open(tmp_path / "p" / "overlay" / f"{number}.jpg").mode == "RGB"


def test_a_resumed_run_keeps_its_percentiles(done: Path, field: Path, tmp_path: Path) -> None:
    words = ("setting=source_only", "trainer.max_steps=2", BANDS, "data.value_range=percentiles")
    root = shutil.copytree(field, tmp_path / "field")
    train_here(root, tmp_path / "run", *FOLDER, *words, dataset="folder")
    measured = stored(tmp_path / "run")["measured_range"]
    bright = np.full((32, 48, 4), 4000, np.uint16)  # would move them
    for path in (root / "target" / "images").iterdir():
        tifffile.imwrite(path, bright, photometric="minisblack", planarconfig="contig")
    train_here(root, tmp_path / "run", *FOLDER, *words, "resume=true", dataset="folder")
    assert stored(tmp_path / "run")["measured_range"] == measured == stored(done)["measured_range"]


def test_what_is_not_read_or_too_dark_is_named_before_the_run(
    field: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = tiny(field, tmp_path / "run", *FOLDER, *ROUNDS, dataset="folder")
    with pytest.raises(SceneError, match=r"highest value is \d+.*data.value_range=\[0,4095\].*\[0,65535\]"):
        make_scenes(spec(*words))
    with caplog.at_level(logging.WARNING):
        make_scenes(spec(*words, "data.value_range=[0,65535]"))
    assert "bands that are not read" in caplog.text
    with pytest.raises(SceneError, match=r"has 4 bands, but data.bands=\[1, 9\] asks for band 9"):
        make_scenes(spec(*words, "data.bands=[1,9]", "data.value_range=[0,4095]"))
    given = [word for word in words if word.startswith(("dataset", "paths.data_root"))]
    report = doctor(compose(*given, "num_workers=0", config_name="doctor"))
    levels = {finding["what"].partition(":")[0]: finding["level"] for finding in report["findings"]}
    assert levels["images with bands that are not read"] == "warning"
    assert report["verdict"] == "unfit"
    good = doctor(compose(*given, "num_workers=0", BANDS, "data.value_range=percentiles", config_name="doctor"))
    assert good["verdict"] != "unfit"


def test_predict_refuses_dark_images_and_takes_another_range(done: Path, field: Path, tmp_path: Path) -> None:
    words = (f"checkpoint={done}", f"input={field}/val/images", f"output={tmp_path / 'p'}", "accelerator=cpu")
    with pytest.raises(SceneError, match=r"value_range=\[0,4095\]"):
        predict(compose(*words, "value_range=bit_depth", config_name="predict"))
    assert predict(compose(*words, "value_range=[0,4095]", config_name="predict"))["done"] == 3


def test_the_network_takes_the_bands_that_are_read(field: Path, tmp_path: Path) -> None:
    words = tiny(field, tmp_path / "run", *FOLDER, *ROUNDS, dataset="folder")
    one = make_network(spec(*words, "data.bands=[3]"))
    assert one.body.weight.shape[1] == 1
    with pytest.raises(ConfigError, match=r"model.in_channels=4, but images are read with 3 bands.*data.bands"):
        make_network(spec(*words, "+model.in_channels=4"))
    with pytest.raises(ConfigError, match=r"tiny.TinyDeepLab has no argument in_channels"):
        make_network(spec(*words, "model._target_=tiny.TinyDeepLab", BANDS))


def test_augmentations_of_colour_are_left_out_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = tiny(tmp_path, tmp_path / "run", *FOLDER, *ROUNDS, dataset="folder")
    with caplog.at_level(logging.WARNING):
        kept = make_transforms(spec(*words, BANDS))
    assert [type(one).__name__ for one in kept] == ["HorizontalFlip"]
    assert "ColorJitter left out" in caplog.text
    assert len(make_transforms(spec(*words))) == len(make_transforms(spec(*words, "data.bands=[2]"))) == 2


@pytest.mark.parametrize(
    "word",
    ["data.bands=[0]", "data.bands=[1,1]", "data.bands=[]", "data.value_range=[5,5]", "data.value_range=dark",
     "data.measured_range=[[0,1]]"],
)  # fmt: skip
def test_other_values_are_refused(word: str, tmp_path: Path) -> None:
    from ripu.config.checks import checked_spec

    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        checked_spec(compose(*tiny(tmp_path, tmp_path / "run", *FOLDER, *ROUNDS, word, dataset="folder")))


def test_ranges_must_be_one_or_one_a_band(tmp_path: Path) -> None:
    words = tiny(tmp_path, tmp_path / "run", *FOLDER, *ROUNDS, dataset="folder")
    with pytest.raises(ConfigError, match="2 ranges for 3 bands"):
        _ = spec_of(compose(*words, "data.value_range=[[0,1],[0,2]]")).data.image_reader
