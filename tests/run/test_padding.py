"""Portrait and landscape in one part: proportions are kept in training, rounds, evaluation and prediction."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ripu.acquisition import RipuScore
from ripu.config.migrate import upgrade
from ripu.datasets.image_files import resize_image, resize_label
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.doctor.__main__ import doctor
from ripu.labelstore import LabelStore
from ripu.loading.image_cache import ImageCache
from ripu.loading.samples import EvalScenes, PoolScenes, TrainScenes, collate_eval, collate_train, of_one_size
from ripu.predict import predict
from ripu.run.assembly.data import make_scenes
from ripu.selection import Query
from ripu.selection.scoring import Scorer
from running import ROUNDS, compose, spec, tiny, train_here

FOLDER = [
    "dataset.classes=[ground,roof,tree]",
    *(f"dataset.{part}.{kind}={part}/{kind}" for part in ("source", "target", "val") for kind in ("images", "labels")),
]
SIZES = [(64, 96), (96, 64), (64, 96), (96, 64)]  # [32,48] in training, and [32,21]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for part in ("source", "target", "val"):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        for number, (height, width) in enumerate(SIZES):
            label = np.kron(rng.integers(0, 3, (height // 8, width // 8)), np.ones((8, 8), int)).astype(np.uint8)
            image = label[..., None] * 80 + rng.integers(0, 60, (height, width, 3))
            Image.fromarray(image.astype(np.uint8)).save(root / part / "images" / f"{number}.png")
            Image.fromarray(label).save(root / part / "labels" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def done(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two rounds; for reading only."""
    run = tmp_path_factory.mktemp("padded") / "run"
    train_here(mixed, run, *FOLDER, "evaluation.save_predictions=true", "budget=0.2", "mode.radius=2", dataset="folder")
    return run


def scenes_of(root: Path, fit: str = "pad") -> SceneDataset:
    target = make_scenes(spec(*tiny(root, root / "run", *ROUNDS, *FOLDER, dataset="folder"))).target
    return replace(target, fit=fit)  # type: ignore[arg-type]


def test_a_batch_of_mixed_proportions_is_padded_with_void(mixed: Path) -> None:
    scenes = scenes_of(mixed)
    data = TrainScenes(scenes, (32, 48), scenes.require_label, (), 0, 0)
    batch = collate_train([data[0, 0], data[1, 1]])
    assert batch["image"].shape == (2, 3, 32, 48)
    assert batch["shape"].tolist() == [[32, 48], [32, 21]]
    assert (batch["label"][1, :, 21:] == VOID).all()
    image = resize_image(scenes.require_image(1), (32, 21))
    np.testing.assert_array_equal(batch["image"][1, :, :, :21], image.transpose(2, 0, 1))
    assert (batch["image"][1, :, :, 21:] == batch["image"][1, :, :, 20:21]).all()
    np.testing.assert_array_equal(batch["label"][1, :, :21], resize_label(scenes.require_label(1), (32, 21)))
    alike = collate_train([data[0, 1], data[1, 3]])
    assert "shape" not in alike
    assert alike["image"].shape == (2, 3, 32, 21)


def test_evaluation_and_pool_see_images_without_padding(mixed: Path, tmp_path: Path) -> None:
    scenes = scenes_of(mixed)
    cache = ImageCache(tmp_path)
    for kept in (None, cache, cache):
        batch = collate_eval([PoolScenes(scenes, (32, 48), range(4), kept)[item] for item in range(4)])
        assert [tuple(image.shape) for image in batch["image"]] == 2 * [(3, 32, 48), (3, 32, 21)]
        assert [len(images) for images in of_one_size(batch["image"])] == [1, 1, 1, 1]
        data = TrainScenes(scenes, (32, 48), scenes.require_label, (), 0, 0, cache=kept)
        assert torch.equal(data[0, 1]["image"], batch["image"][1])
        assert data[0, 1]["label"].shape == (32, 21)
    stretched = PoolScenes(scenes_of(mixed, "stretch"), (32, 48), range(4), cache)  # another entry of the cache
    assert stretched[1]["image"].shape == (3, 32, 48)
    assert EvalScenes(scenes, (32, 48), [1])[0]["label"].shape == (96, 64)


def test_rounds_ask_about_pixels_of_images_alone(done: Path, mixed: Path) -> None:
    store = LabelStore.open(done / "labels")
    assert [(image.height, image.width) for image in store.images] == SIZES
    counts = []
    for number, image in enumerate(store.images):
        label = np.asarray(Image.open(mixed / "target" / "labels" / f"{number}.png"))
        revealed = store.revealed_label(image.image_id, 2)
        assert revealed.shape == label.shape
        known = revealed != VOID
        np.testing.assert_array_equal(revealed[known], label[known])
        counts.append(sum(len(store.picks(image.image_id, index).picks) for index in range(2)))
    assert len(set(counts)) == 1  # as many pixels, as many picks, in either proportion


def test_predict_sees_what_evaluation_saw(done: Path, mixed: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={done}", f"input={mixed / 'val' / 'images'}", f"output={tmp_path}", "write=[labelIds]"]
    predict(compose(*words, "accelerator=cpu", config_name="predict"))
    for number in range(4):
        ours, theirs = (
            np.asarray(Image.open(folder / "labelIds" / f"{number}.png")) for folder in (tmp_path, done / "predictions")
        )
        assert ours.shape == SIZES[number]
        assert (ours != theirs).mean() < 0.001  # ties of rounding


def test_stretching_mixed_proportions_is_named(mixed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    make_scenes(spec(*tiny(mixed, tmp_path, *ROUNDS, *FOLDER, "data.fit=stretch", dataset="folder")))
    lines = [record.getMessage() for record in caplog.records if "data.fit=pad" in record.getMessage()]
    assert len(lines) == 3
    assert "48 x 32" in lines[0]
    assert "64 x 96" in lines[0]
    caplog.clear()
    make_scenes(spec(*tiny(mixed, tmp_path, *ROUNDS, *FOLDER, dataset="folder")))
    assert "data.fit" not in caplog.text
    words = [*FOLDER, f"paths.data_root={mixed}", "dataset=folder", "data.target_size=[32,48]", "num_workers=1"]
    for fit, is_named in (("stretch", True), ("pad", False)):
        report = doctor(compose(*words, f"data.fit={fit}", config_name="doctor"))
        assert ("keeps their proportions" in json.dumps(report)) == is_named


def test_published_data_sets_and_older_runs_stretch() -> None:
    for dataset in ("gtav", "synthia", "camvid", "streets"):
        assert compose(f"dataset={dataset}").data.fit == "stretch"
    assert compose("dataset=folder", *FOLDER).data.fit == "pad"
    assert upgrade({"data": {}})["data"]["fit"] == "stretch"


def test_budgets_and_training_pixels_are_those_of_the_image() -> None:
    query = Query(pixel=True, radius=1, suppress_radius=1, budget=40, num_rounds=2, grid="training")
    scorer = Scorer(RipuScore(radius=1), query, ("a", "b"), ((64, 96), (96, 64)), (32, 48), 0, fit="pad")
    for size, fed in (((64, 96), (32, 48)), ((96, 64), (32, 21))):
        grid = scorer.grid(size)
        assert grid is not None
        assert (len(grid.rows), len(grid.columns)) == scorer.fed_size(size) == fed
        wanted = -(-20 * size[0] * size[1] // (fed[0] * fed[1]))
        assert replace(query, grid="label").picks_per_round(size, fed) == wanted
