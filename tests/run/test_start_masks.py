"""Runs that begin with masks that somebody drew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ripu import labels as labels_command
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11
from ripu.io.errors import ConfigError
from ripu.labelstore import BEFORE, LabelStore
from ripu.run import warm_start
from ripu.run.assembly.data import load_parts
from ripu.run.mask_folder import MaskFolder
from running import same_weights, spec, train_here, weights
from trees import CAMVID_VOID, DUSK_TRAIN
from warm_starts import IDS, SIZE, draw_masks, go_on, truth


@pytest.mark.parametrize("kind", ["train", "label", "flat", "exported"])
def test_masks_are_trained_on_from_the_first_step(kind: str, plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks", void=CAMVID_VOID if kind == "label" else 255)
    words = ["start.ids=label"] if kind == "label" else []
    if kind == "flat":
        for path in (masks / "train").iterdir():
            path.rename(masks / path.name)
        (masks / "train").rmdir()
    if kind == "exported":
        masks = tmp_path / "export"
        assert labels_command.main(["export", str(plain_run), str(masks), "--colour"]) == 0
    results = train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
    store = LabelStore.open(tmp_path / "run" / "labels")
    assert [spec.info["from"]["kind"] for spec in store.carried] == ["masks"]
    for image_id, name in zip(IDS, DUSK_TRAIN, strict=True):
        given, right = store.revealed_round(image_id) == BEFORE, truth(data_root, name)
        np.testing.assert_array_equal(given, store.asked_mask(image_id, 0))
        np.testing.assert_array_equal(store.revealed_label(image_id, 0)[given], right[given])
        assert not (given & store.asked_mask(image_id, with_carried=False)).any()
        if kind == "exported":
            old = LabelStore.open(plain_run / "labels").revealed_label(image_id)
            np.testing.assert_array_equal(store.revealed_label(image_id, 0), old)
        else:
            here = np.zeros(SIZE, dtype=bool)
            if name != DUSK_TRAIN[-1]:
                here[20:50, 10:40] = True
            np.testing.assert_array_equal(given, here if kind == "label" else here & (right != 255))
    assert store.verify() == []
    assert results["start"]["labelled_fraction"] > 0
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/target_ce")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert len(losses) == 5  # ROUNDS pre-trains for two steps
    assert any(loss > 0 for loss in losses[:1])


def test_masks_need_no_pretraining(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    words = (
        "setting=active",
        "selection_steps=[3,5]",
        "protocol.pretraining=until_first_round",
        "evaluation.pictures=0",
    )
    train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/target_ce")
    assert len([line for line in lines[1:] if line.split(",")[column]]) == 7


def test_masks_on_top_of_a_finished_run(plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    go_on(data_root, tmp_path / "run", plain_run, f"start.labels={masks}")
    store, old = LabelStore.open(tmp_path / "run" / "labels"), LabelStore.open(plain_run / "labels")
    assert [spec.info["from"]["kind"] for spec in store.carried] == ["run", "run", "masks"]
    for image_id, name in zip(IDS[:2], DUSK_TRAIN[:2], strict=True):
        known = old.asked_mask(image_id)
        known[20:50, 10:40] |= truth(data_root, name)[20:50, 10:40] != 255
        np.testing.assert_array_equal(store.asked_mask(image_id, 0), known)
    assert store.verify() == []
    wrong = np.array(Image.open(masks / "train" / f"{DUSK_TRAIN[0]}.png"))
    wrong[wrong != 255] = (wrong[wrong != 255] + 1) % 11
    wrong[old.revealed_label(IDS[0]) != 255] = 0
    Image.fromarray(wrong).save(masks / "train" / f"{DUSK_TRAIN[0]}.png")
    with pytest.raises(ConfigError, match=r"contradict each other on \d+ pixels of 1 images .*make these pixels 255"):
        go_on(data_root, tmp_path / "clash", plain_run, f"start.labels={masks}")
    assert not (tmp_path / "clash").exists()


@pytest.mark.parametrize(
    ("dataset", "ids", "said"),
    [
        ("camvid", [3, 12], "contains the ids"),
        ("gtav", [7, 50], "contains the ids"),
        ("gtav", [0, 1, 2, 13], "start.ids=train"),
    ],
)
def test_masks_in_other_ids_than_those_of_the_data_set_are_refused(
    dataset: str, ids: list[int], said: str, data_root: Path, tmp_path: Path
) -> None:
    scenes = load_parts(spec(f"dataset={dataset}", f"paths.data_root={data_root}").dataset)["target"]
    for scene in scenes.scenes:
        mask = np.resize(np.array(ids, dtype=np.uint8), SIZE)
        (tmp_path / f"{scene.image_id}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"{scene.image_id}.png")
    with pytest.raises(ConfigError, match=said):
        MaskFolder(tmp_path, scenes, scenes.taxonomy, "label").check()


def test_masks_that_differ_train_another_network(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    train_here(data_root, tmp_path / "run", f"start.labels={masks}", "evaluation.pictures=0")
    path = masks / "train" / f"{DUSK_TRAIN[0]}.png"
    mask = np.array(Image.open(path))
    mask[mask == 3] = 4
    Image.fromarray(mask).save(path)
    train_here(data_root, tmp_path / "other", f"start.labels={masks}", "evaluation.pictures=0")
    assert not same_weights(tmp_path / "run", tmp_path / "other")
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "other").keys()


def test_a_mask_is_named_by_as_much_of_the_id_as_tells_images_apart(tmp_path: Path) -> None:
    ids = ["tgt/straße 1/a.b", "tgt/straße 2/a.b", "tgt/c"]
    scenes = SceneDataset("target", tuple(Scene(one, tmp_path / f"{one}.jpg", None) for one in ids), CAMVID11)
    for name in ("straße 1/a.b.png", "tgt/straße 2/a.b.png", "c.PNG"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).touch()
    masks = MaskFolder(tmp_path / "masks", scenes, CAMVID11)
    assert {one: path.name for one, path in masks._paths.items()} == {
        ids[0]: "a.b.png",
        ids[1]: "a.b.png",
        ids[2]: "c.PNG",
    }
    (tmp_path / "masks" / "a.b.png").touch()
    with pytest.raises(ConfigError, match=r"1 files are not masks of target images: \['a\.b\.png'\]"):
        MaskFolder(tmp_path / "masks", scenes, CAMVID11)


def test_masks_of_one_class_each(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    for path in sorted(masks.rglob("*.png")):
        with Image.open(path) as file:
            ids = np.asarray(file)
        for train_id in set(np.unique(ids).tolist()) - {255}:
            place = tmp_path / "apart" / CAMVID11.class_names[train_id] / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(ids == train_id, 255, 0).astype(np.uint8)).save(place)
    given = f"start.labels='{tmp_path}/apart/{{class}}/*.png'"
    words = ("start.missing_masks=allow", "selection_steps=[]")
    one = train_here(data_root, tmp_path / "one", given, *words)
    other = train_here(data_root, tmp_path / "other", f"start.labels={masks}", *words)
    assert one["mIoU"] == other["mIoU"]
    first, second = (LabelStore.open(tmp_path / name / "labels") for name in ("one", "other"))
    for image_id in IDS:
        np.testing.assert_array_equal(first.revealed_label(image_id, 0), second.revealed_label(image_id, 0))
    with pytest.raises(ConfigError, match=r"start\.ids=label: masks of one class each .* have no ids"):
        train_here(data_root, tmp_path / "third", given, "start.ids=label")
    with pytest.raises(ConfigError, match=r"nowhere/\{class\}/\*\.png: nowhere is not a folder"):
        train_here(data_root, tmp_path / "third", "start.labels='nowhere/{class}/*.png'")
    (tmp_path / "apart" / "tram").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "apart" / "tram" / "x.png")
    with pytest.raises(SceneError, match=r"start\.labels=\{class\}/\*\.png: 1 masks are of no class"):
        train_here(data_root, tmp_path / "third", given)


def test_the_files_of_a_pattern_are_those_that_it_matches(tmp_path: Path) -> None:
    for name in ("a/road/1.png", "a/car/1.png", "a/car/1.txt", "a/2.png", "b/car/1.png", "images.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(labels: Path) -> list[str]:
        start = SimpleNamespace(run=None, weights=None, labels=str(labels))
        return [path.relative_to(tmp_path).as_posix() for path in warm_start.files(start)]  # type: ignore[arg-type]

    assert found(tmp_path / "a" / "{class}" / "*.png") == ["a/car/1.png", "a/road/1.png"]
    assert found(tmp_path / "{any}" / "{class}" / "*.png") == ["a/car/1.png", "a/road/1.png", "b/car/1.png"]
    assert found(tmp_path / "a") == ["a/2.png", "a/car/1.png", "a/car/1.txt", "a/road/1.png"]
    assert found(tmp_path / "a" / "{class}" / "*.jpg") == []
    with pytest.raises(SceneError, match=r"start\.labels=.* must lie below"):
        found(tmp_path / "a" / "{class}" / ".." / "*.png")


def test_files_in_linked_folders_count_too(tmp_path: Path) -> None:
    for name in ("masks/road/1.png", "elsewhere/2.png", "elsewhere/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "masks" / "car").symlink_to(tmp_path / "elsewhere")

    def found(labels: Path) -> list[str]:
        start = SimpleNamespace(run=None, weights=None, labels=str(labels))
        return [path.relative_to(tmp_path).as_posix() for path in warm_start.files(start)]  # type: ignore[arg-type]

    everything = ["masks/car/2.png", "masks/car/deep/3.png", "masks/road/1.png"]
    assert found(tmp_path / "masks") == everything
    assert found(tmp_path / "masks" / "{class}" / "**" / "*.png") == everything
    assert found(tmp_path / "masks" / "{class}" / "*.png") == ["masks/car/2.png", "masks/road/1.png"]


def test_the_accents_of_a_mask_may_be_written_otherwise(tmp_path: Path) -> None:
    composed, apart = "rgb/caf\u00e9", "rgb/cafe\u0301"
    for image_id, name in ((composed, apart), (apart, composed), (composed, "cafe\u0301")):
        masks = tmp_path / name.replace("/", "-")
        (masks / name).parent.mkdir(parents=True)
        (masks / f"{name}.png").touch()
        scenes = SceneDataset("target", (Scene(image_id, tmp_path / f"{image_id}.jpg", None),), CAMVID11)
        assert MaskFolder(masks, scenes, CAMVID11)._paths == {image_id: masks / f"{name}.png"}


def test_255_has_one_meaning_in_masks(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("images", "masks"):
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(tmp_path / name / "a.png")
    given = {"classes": ["background", "crack"], "ids": {0: "background", 255: "crack"}, "ignore_ids": []}
    target = load_folder("target", tmp_path, "images", None, **given)
    with pytest.raises(ConfigError, match=r"255 is the class crack.*start.ids=train"):
        MaskFolder(tmp_path / "masks", target, target.taxonomy, "label")
    masks = MaskFolder(tmp_path / "masks", target, target.taxonomy, "train", allows_missing=True)
    assert not masks[target.scenes[0].image_id].known.any()


def test_masks_are_looked_at_before_training(data_root: Path, tmp_path: Path) -> None:
    def refused(match: str, *words: str) -> None:
        with pytest.raises(ConfigError, match=match):
            train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
        assert not (tmp_path / "run").exists()

    masks = draw_masks(data_root, tmp_path / "masks")
    first = masks / "train" / f"{DUSK_TRAIN[0]}.png"
    good = first.read_bytes()
    Image.fromarray(np.full(SIZE, 26, dtype=np.uint8)).save(first)
    refused(r"0001TP_006690\.png contains the ids \[26\], but train ids are 0\.\.10.*start\.ids=label")
    Image.fromarray(np.zeros((32, 48), dtype=np.uint8)).save(first)
    refused(r"has 48 x 32 pixels and the label of train/0001TP_006690 96 x 64")
    Image.new("RGB", (96, 64), (1, 2, 3)).save(first)
    refused(r"is an image of mode RGB")
    first.write_bytes(b"nothing")
    refused(r"0001TP_006690\.png")
    first.unlink()
    refused(r"1 of 3 target images have no mask.*train/0001TP_006690\.png.*start\.missing_masks=allow")
    train_here(
        data_root, tmp_path / "allowed", f"start.labels={masks}", "start.missing_masks=allow", "evaluation.pictures=0"
    )
    first.write_bytes(good)
    (masks / "notes.txt").write_text("mine")
    refused(r"1 files are not masks of target images.*notes\.txt")
    (masks / "notes.txt").unlink()
    (masks / first.name).write_bytes(good)
    refused(r"are both masks of train/0001TP_006690")
    (masks / first.name).unlink()
    for path in (masks / "train").iterdir():
        Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(path)
    refused(r"all 3 masks are 255 \(unknown\) throughout")
