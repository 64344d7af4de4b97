"""The generated street scenes: same bytes everywhere, real layouts, plausible shares, a reliable cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ripu.datasets.streets import GENERATOR_VERSION, MANIFEST, generate
from ripu.datasets.streets.__main__ import main
from ripu.datasets.streets.canvas import Dice
from ripu.datasets.streets.layout import paint_scene
from ripu.datasets.streets.render import render
from ripu.datasets.streets.styles import SOURCE, SYNTHIA, TARGET
from ripu.datasets.streets.write import SETS
from ripu.datasets.taxonomy import CITYSCAPES19, SYNTHIA16, VOID

TINY: dict[str, Any] = {"num_source": 3, "num_target": 2, "num_val": 2, "height": 64, "width": 128, "progress": False}
GOLDEN = "2cd111f4c7ab6a5d9d7ddb77b897b9adb6f07639e0f6889c81c3c9dcf9d6498b"
GOLDEN_VERSION = 1


def make(root: Path, **changes: Any) -> Path:
    return generate(root, **{**TINY, "num_workers": 1, **changes})


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return content


def file_digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with both sources; tests only read it."""
    return make(tmp_path_factory.mktemp("streets"), layouts=("gtav", "synthia"))


# ---------------------------------------------------------------- the same bytes


def test_golden_pixels(both: Path) -> None:
    assert (GENERATOR_VERSION, record(both)["sha256"]) == (GOLDEN_VERSION, GOLDEN), (
        "pixels changed: raise GENERATOR_VERSION and put the new digest here"
    )


def test_same_bytes_from_other_root_and_worker_count(both: Path, tmp_path: Path) -> None:
    again = make(tmp_path, layouts=("gtav", "synthia"), num_workers=2)
    assert file_digests(again) == file_digests(both)


def test_a_scene_depends_on_its_number_alone(both: Path, tmp_path: Path) -> None:
    fewer = file_digests(make(tmp_path, num_source=1, num_target=1, num_val=1))
    more = file_digests(both)
    del fewer[MANIFEST]
    assert len(fewer) == 6
    assert fewer.items() <= more.items()


def test_seeds_domains_and_numbers_differ() -> None:
    pictures = [render(SOURCE, Dice(*key), 32, 64)[0].tobytes() for key in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))]
    assert len(set(pictures)) == 4


# ---------------------------------------------------------------- files


def test_gtav_layout(both: Path) -> None:
    images = sorted(path.name for path in (both / "gtav/images").iterdir())
    assert images == ["00001.png", "00002.png", "00003.png"]
    assert sorted(path.name for path in (both / "gtav/labels").iterdir()) == images
    with Image.open(both / "gtav/images/00001.png") as image, Image.open(both / "gtav/labels/00001.png") as label:
        assert (image.mode, image.size, label.mode, label.size) == ("RGB", (128, 64), "P", (128, 64))
        palette = label.getpalette()
        ids = set(np.unique(np.asarray(label)).tolist())
    assert palette is not None
    for label_id, train_id in CITYSCAPES19.disk_to_train.items():
        assert tuple(palette[3 * label_id : 3 * label_id + 3]) == CITYSCAPES19.class_colors[train_id]
    assert ids <= {*CITYSCAPES19.disk_to_train, 1, 4}


def test_cityscapes_layout(both: Path) -> None:
    cities: dict[str, set[str]] = {}
    for split in ("train", "val"):
        images = sorted((both / "cityscapes/leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == 2
        cities[split] = {path.parent.name for path in images}
        for path in images:
            stem = path.name.removesuffix("_leftImg8bit.png")
            assert stem == f"{path.parent.name}_000000_000019"
            label = both / "cityscapes/gtFine" / split / path.parent.name / f"{stem}_gtFine_labelIds.png"
            with Image.open(path) as image, Image.open(label) as ids:
                assert (image.mode, ids.mode, image.size, ids.size) == ("RGB", "L", (128, 64), (128, 64))
    assert not cities["train"] & cities["val"]


def test_city_files_are_unique() -> None:
    for scenes in SETS.values():
        paths = [path for index in range(300) for path in scenes.files(index)]
        assert len(set(paths)) == 600


def test_synthia_layout(both: Path) -> None:
    base = both / "synthia/RAND_CITYSCAPES"
    names = sorted(path.name for path in (base / "RGB").iterdir())
    assert names == ["0000000.png", "0000001.png", "0000002.png"]
    for index, name in enumerate(names):
        stored = cv2.imread(str(base / "GT/LABELS" / name), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        assert (stored.dtype, stored.shape) == (np.dtype(np.uint16), (64, 128, 3))
        _, label, instance = render(SYNTHIA, Dice(0, SETS["synthia"].domain, index), 64, 128)
        expected = np.array(SYNTHIA16.class_names)
        ours, theirs = CITYSCAPES19.to_train_ids(label), SYNTHIA16.to_train_ids(stored[..., 2])
        assert np.array_equal(ours == VOID, theirs == VOID)
        scored = ours != VOID
        assert np.array_equal(np.array(CITYSCAPES19.class_names)[ours[scored]], expected[theirs[scored]])
        assert np.array_equal(stored[..., 1], instance)
        assert not stored[..., 0].any()


# ---------------------------------------------------------------- content of the scenes


@pytest.fixture(scope="module")
def shares() -> dict[str, dict[str, float]]:
    """Return each class's share of the pixels over 60 scenes, per domain."""
    result = {}
    for style, domain in ((SOURCE, 1), (TARGET, 2), (SYNTHIA, 4)):
        counts = np.zeros(256)
        for index in range(60):
            canvas = paint_scene(style, Dice(0, domain, index), 128, 256).canvas
            label = np.asarray(canvas.classes, dtype=np.uint8)[canvas.owner[1::2, 1::2]]
            counts += np.bincount(CITYSCAPES19.to_train_ids(label).ravel(), minlength=256)
        total = counts.sum()
        result[style.name] = dict(zip(CITYSCAPES19.class_names, counts / total, strict=False)) | {
            "void": counts[VOID] / total
        }
    return result


@pytest.mark.parametrize("domain", ["source", "target"])
def test_all_classes_with_a_long_tail(shares: dict[str, dict[str, float]], domain: str) -> None:
    share = shares[domain]
    assert all(share[name] > 0.0002 for name in CITYSCAPES19.class_names), share
    rare = ("rider", "train", "motorcycle", "traffic light")
    assert all(share[name] < 0.01 for name in rare), share
    assert min(share[name] for name in ("road", "building", "sky")) > 0.04
    assert min(share["road"], share["building"]) > max(v for k, v in share.items() if k not in ("road", "building"))


def test_domains_differ_in_frequencies(shares: dict[str, dict[str, float]]) -> None:
    source, target = shares["source"], shares["target"]
    assert target["person"] > 1.5 * source["person"]
    assert target["bicycle"] > 2 * source["bicycle"]
    assert source["sky"] > 1.5 * target["sky"]
    assert source["truck"] > 1.5 * target["truck"]


def test_some_pixels_are_void(shares: dict[str, dict[str, float]]) -> None:
    assert 0.01 < shares["target"]["void"] < 0.06
    assert 0 < shares["source"]["void"] < 0.01


def test_synthia_lacks_three_classes(shares: dict[str, dict[str, float]]) -> None:
    share = shares["synthia"]
    absent = {name for name in CITYSCAPES19.class_names if share[name] == 0}
    assert absent == {"terrain", "truck", "train"}


def test_instances_are_things() -> None:
    _, label, instance = render(TARGET, Dice(0, 2, 1), 128, 256)
    things = {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
    train_ids = CITYSCAPES19.to_train_ids(label)
    named = np.array([*CITYSCAPES19.class_names, "void"])[np.minimum(train_ids, 19)]
    assert np.array_equal(instance > 0, np.isin(named, sorted(things)))
    for number in np.unique(instance[instance > 0]):
        assert len(np.unique(label[instance == number])) == 1


def test_target_is_greyer_and_noisier_than_source() -> None:
    def colourfulness(picture: np.ndarray) -> float:
        wide = picture.astype(int)
        return float((wide.max(-1) - wide.min(-1)).mean())

    source = np.mean([colourfulness(render(SOURCE, Dice(0, 1, k), 64, 128)[0]) for k in range(8)])
    target = np.mean([colourfulness(render(TARGET, Dice(0, 2, k), 64, 128)[0]) for k in range(8)])
    assert source > 1.8 * target


# ---------------------------------------------------------------- the cache


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return make(tmp_path)


def test_second_call_changes_nothing_and_is_quick(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    start = time.perf_counter()
    assert make(folder.parent) == folder
    assert time.perf_counter() - start < 5
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_missing_and_truncated_files_are_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = file_digests(folder)
    (folder / "gtav/labels/00002.png").unlink()
    cut = next((folder / "cityscapes/leftImg8bit/val").rglob("*.png"))
    cut.write_bytes(cut.read_bytes()[:100])
    whole = folder / "gtav/images/00001.png"
    untouched = whole.stat().st_mtime_ns
    make(folder.parent, progress=True)
    assert "incomplete, making 2 scenes again" in capsys.readouterr().err
    assert file_digests(folder) == before
    assert whole.stat().st_mtime_ns == untouched


def test_interrupted_generation_is_incomplete_and_can_be_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ripu.datasets.streets import write

    before = file_digests(folder)
    other = folder.parent / "other"
    write_bytes = write.write_bytes
    left = 6

    def failing_write(path: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write_bytes(path, content)

    monkeypatch.setattr(write, "write_bytes", failing_write)
    with pytest.raises(KeyboardInterrupt):
        make(other)
    monkeypatch.undo()
    assert not (other / "seed0" / MANIFEST).exists()
    kept = {path: path.stat().st_mtime_ns for path in (other / "seed0").rglob("*.png")}
    assert kept
    make(other, progress=True)
    assert "interrupted" in capsys.readouterr().err
    assert file_digests(other / "seed0") == before
    images = [path for path in kept if "leftImg8bit" in path.parts]
    assert any(path.stat().st_mtime_ns == kept[path] for path in images)


def test_unreadable_record_is_made_again(folder: Path) -> None:
    before = file_digests(folder)
    (folder / MANIFEST).write_text('{"generator_version": 1, ')
    make(folder.parent)
    assert file_digests(folder) == before


def test_larger_counts_extend(folder: Path, tmp_path: Path) -> None:
    first = folder / "gtav/images/00001.png"
    untouched = first.stat().st_mtime_ns
    make(folder.parent, num_source=5)
    assert first.stat().st_mtime_ns == untouched
    assert record(folder)["sets"]["gtav"]["num_scenes"] == 5
    assert file_digests(folder) == file_digests(make(tmp_path / "fresh", num_source=5))


def test_second_source_leaves_the_first_alone(folder: Path, both: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    make(folder.parent, layouts=("synthia",))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert file_digests(folder) == file_digests(both)


def test_concurrent_processes_make_each_scene_once(
    tmp_path: Path, both: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(3) as pool:
        layouts = [("gtav",), ("synthia",), ("gtav", "synthia")]
        made = [pool.submit(make, tmp_path, layouts=layout) for layout in layouts]
        folders = {one.result() for one in made}
    assert "waiting for the process that makes the scenes" in caplog.text
    assert record(folders.pop())["sha256"] == record(both)["sha256"]


def test_other_size_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"width=128 but width=160 was asked for.*delete .*seed0 or give another root"):
        make(folder.parent, width=160)


def test_other_generator_version_is_an_error(folder: Path) -> None:
    content = record(folder)
    content["generator_version"] = 0
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"generator_version=0 but this is generator version 1"):
        make(folder.parent)


def test_smaller_counts_are_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"contains 3 scenes of gtav but 2 were asked for"):
        make(folder.parent, num_source=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_val": 0}, "num_val=0 is too small; give at least 1"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"layouts": ("kitti",)}, "layouts=\\('kitti',\\) is not understood"),
        ({"layouts": ()}, "layouts=\\(\\) is not understood"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **change)
    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------- command line


def test_command_line_writes_scenes_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [
        "--num-source",
        "1",
        "--num-target",
        "1",
        "--num-val",
        "1",
        "--height",
        "32",
        "--width",
        "64",
        "--num-workers",
        "1",
        "--quiet",
    ]
    sheet = tmp_path / "sheet.png"
    assert main(["--root", str(tmp_path), "--seed", "3", "--preview", str(sheet), *sizes]) == 0
    assert str(tmp_path / "seed3") in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.size == (4 * 64, 6 * 32)
    assert main(["--root", str(tmp_path), "--seed", "3", *sizes, "--width", "96"]) == 2
    assert "width=64 but width=96 was asked for" in capsys.readouterr().err


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    folder = make(tmp_path)
    picture = next(folder.rglob("gtav/images/*.png"))
    before = picture.read_bytes()
    half = picture.with_name(f".tmp-{picture.name}-4711")
    half.write_bytes(before[:100])
    picture.unlink()
    make(tmp_path)
    assert picture.read_bytes() == before
    assert not half.exists()
