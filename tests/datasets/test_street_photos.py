"""ACDC, BDD100K, IDD, and Cityscapes with train ids alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photo_trees
import running
from ripu.datasets.cityscapes import load_cityscapes
from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.mapillary import CLASSES
from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.doctor.__main__ import doctor
from ripu.io.errors import RipuError
from ripu.run.assembly.data import make_scenes
from trees import draw_label

SETS = {"acdc": photo_trees.ACDC, "bdd100k": photo_trees.BDD100K, "idd": photo_trees.IDD}


@pytest.mark.parametrize("name", SETS)
def test_photographs_are_read_with_the_classes_of_cityscapes(name: str, own_data: Path) -> None:
    files = SETS[name]
    photo_trees.write_photos(own_data / name, files)
    scenes = make_scenes(running.spec(f"dataset={name}", f"paths.data_root={own_data}"))
    assert scenes.taxonomy == CITYSCAPES19
    assert scenes.source is not None
    assert scenes.source.name == "cityscapes train"
    images = [f"{scene.image_id}{scene.image.suffix}" for part in (scenes.target, scenes.val) for scene in part.scenes]
    assert sorted(images) == sorted(files)
    for part, split in ((scenes.target, "train"), (scenes.val, "val")):
        assert part.is_labelled
        for index, scene in enumerate(part.scenes):
            path = scene.image.relative_to(own_data / name).as_posix()
            assert f"/{split}/" in path
            np.testing.assert_array_equal(part.read_label(index), draw_label(list(files).index(path), CITYSCAPES19))
    words = (f"dataset={name}", f"paths.data_root={own_data}", "num_workers=1")
    assert doctor(running.compose(*words, config_name="doctor"))["verdict"] != "unfit"


def test_one_condition_of_acdc_can_be_chosen(own_data: Path) -> None:
    photo_trees.write_photos(own_data / "acdc", photo_trees.ACDC)
    scenes = make_scenes(running.spec("dataset=acdc", "dataset.condition=night", f"paths.data_root={own_data}"))
    assert [scene.image_id for scene in scenes.val.scenes] == [
        "rgb_anon/night/val/GOPR0351/GOPR0351_frame_000512_rgb_anon"
    ]


@pytest.mark.parametrize("name", SETS)
def test_missing_photographs_say_where_to_get_them(name: str, own_data: Path) -> None:
    spec = running.spec(f"dataset={name}", f"paths.data_root={own_data}")
    with pytest.raises(DatasetNotFoundError, match=rf"{name} .*was not found[\s\S]*where to get it: *https://"):
        make_scenes(spec)
    (own_data / name / "images").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"found instead: .*matches no image .*which contains \['images'\]"):
        make_scenes(spec)


def write_vistas(root: Path) -> Path:
    """Write Vistas 1.2 with its labels in another order than the real one: names count."""
    known = [label for labels in CLASSES.values() for label in labels]
    names = ["animal--bird", *known[::-1], "void--unlabeled"]
    for seed, split in enumerate(("training", "validation")):
        train_ids = draw_label(seed, CITYSCAPES19)
        ids = np.full(train_ids.shape, len(names) - 1, dtype=np.uint8)
        for number, name in enumerate(CITYSCAPES19.class_names):
            ids[train_ids == number] = names.index(CLASSES[name][-1])
        for folder, suffix, pixels in (("images", "jpg", np.dstack([ids] * 3)), ("v1.2/labels", "png", ids)):
            path = root / split / folder / f"k3b_{seed}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "config_v1.2.json").write_text(json.dumps({"labels": [{"name": name} for name in names]}))
    return root


def test_the_labels_of_vistas_are_matched_by_name(own_data: Path) -> None:
    root = write_vistas(own_data / "mapillary")
    words = ("dataset=mapillary", f"paths.data_root={own_data}")
    scenes = make_scenes(running.spec(*words))
    for seed, part in enumerate((scenes.target, scenes.val)):
        np.testing.assert_array_equal(part.read_label(0), draw_label(seed, CITYSCAPES19))
    assert running.spec(*words).data.fit == "pad"
    (root / "config_v1.2.json").write_text('{"labels": [{"name": "construction--flat--road"}]}')
    with pytest.raises(RipuError, match=r"has no label construction--flat--bike-lane, so it is not"):
        make_scenes(running.spec(*words))
    (root / "config_v1.2.json").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"mapillary .*was not found"):
        make_scenes(running.spec(*words))


def test_an_image_without_label_stays_in_the_pool(own_data: Path) -> None:
    photo_trees.write_photos(own_data / "idd", photo_trees.IDD)
    (own_data / "idd" / photo_trees.IDD["leftImg8bit/train/3/005506_leftImg8bit.png"]).unlink()
    scenes = make_scenes(running.spec("dataset=idd", f"paths.data_root={own_data}"))
    assert [scene.label is not None for scene in scenes.target.scenes] == [True, False]


def test_cityscapes_may_have_train_ids_alone(own_data: Path) -> None:
    root = own_data / "cityscapes"
    before = {taxonomy: load_cityscapes(root, "val", taxonomy) for taxonomy in ("cityscapes19", "cityscapes16")}
    labels = {taxonomy: scenes.read_label(1) for taxonomy, scenes in before.items()}
    for path in list((root / "gtFine").rglob("*_labelIds.png")):
        with Image.open(path) as file:
            train_ids = CITYSCAPES19.to_train_ids(np.asarray(file))
        Image.fromarray(train_ids).save(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
        path.unlink()
    for taxonomy, label in labels.items():
        scenes = load_cityscapes(root, "val", taxonomy)
        assert scenes.taxonomy.class_names == before[taxonomy].taxonomy.class_names
        np.testing.assert_array_equal(scenes.read_label(1), label)
    for dataset in ("gtav", "synthia"):
        spec = running.spec(f"dataset={dataset}", "setting=source_free", f"paths.data_root={own_data}")
        assert make_scenes(spec).target.is_labelled

    strange = next((root / "gtFine").rglob("lindau*_labelTrainIds.png"))
    Image.fromarray(np.full((64, 96), 33, np.uint8)).save(strange)
    with pytest.raises(RipuError, match="33"):
        make_scenes(running.spec("dataset=gtav", "setting=source_free", f"paths.data_root={own_data}"))
