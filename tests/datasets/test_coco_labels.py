"""Labels in COCO files: categories, crowds, overlaps, polygons as pycocotools draws them, and faults by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tool_trees
from ripu.datasets.coco_masks import mask_of_polygon
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import CAMVID11, VOID
from ripu.run.assembly.data import make_scenes
from running import spec, train_here
from trees import draw_label

CROWD = {"size": [6, 8], "counts": [0, 48]}


def write(root: Path, annotations: list[dict[str, Any]], categories: dict[int, str], **more: Any) -> Path:
    """Write a COCO file of one image of 6 x 8 pixels."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(root / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [{"image_id": 1, "iscrowd": 0, **one} for one in annotations],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        **more,
    }
    (root / "labels.json").write_text(json.dumps(content))
    return root


def load(root: Path, classes: list[str], **more: Any) -> SceneDataset:
    given = {"images": "images/*", "labels": "labels.json", "classes": classes}
    return load_folder("val", root, **{**given, **more})


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_the_smaller_instance_is_in_front_whatever_the_order(tmp_path: Path) -> None:
    small = {"category_id": 5, "segmentation": [box(2, 1, 4, 3)]}
    large = {"category_id": 3, "segmentation": [box(0, 0, 5, 4), box(6, 4, 8, 6)], "area": 0.1}  # areas are not trusted
    expected = np.full((6, 8), VOID)
    expected[:4, :5] = expected[4:, 6:] = 0
    expected[1:3, 2:4] = 1
    for order in ([small, large], [large, small]):
        root = write(tmp_path, order, {3: "road", 5: "car"})
        np.testing.assert_array_equal(load(root, ["road", "car"]).read_label(0), expected)
    with_rest = load(root, ["road", "car", "background"]).read_label(0)
    np.testing.assert_array_equal(with_rest, np.where(expected == VOID, 2, expected))


def test_crowds_count_and_void_stays_void(tmp_path: Path) -> None:
    hole = {"category_id": 9, "segmentation": [box(0, 0, 2, 2)]}
    root = write(tmp_path, [{"category_id": 3, "segmentation": CROWD, "iscrowd": 1}, hole], {3: "road", 9: "void"})
    label = load(root, ["road", "background"]).read_label(0)
    assert (label[:2, :2] == VOID).all()
    assert (label == 0).sum() == 44


def test_categories_by_id_may_be_merged(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        [{"category_id": 3, "segmentation": CROWD}, {"category_id": 8, "segmentation": [box(0, 0, 2, 2)]}],
        {3: "car", 8: "truck", 44: "bottle"},
    )
    with pytest.raises(SceneError, match=r"1 categories are not in dataset.ids: \['bottle \(44\)'\].*ignore_ids=null"):
        load(root, ["vehicle"], ids={3: "vehicle", 8: "vehicle"})
    merged = load(root, ["vehicle"], ids={3: "vehicle", 8: "vehicle"}, ignore_ids=None)
    assert (merged.read_label(0) == 0).all()
    with pytest.raises(SceneError, match=r"2 categories are not in dataset.classes \['car'\]"):
        load(root, ["car"])
    only = load(root, ["car"], ignore_ids=None).read_label(0)
    assert ((only == 0).sum(), (only == VOID).sum()) == (44, 4)
    with pytest.raises(SceneError, match=r"no category has a class; the categories are \['car \(3\)'"):
        load(root, ["bus"], ignore_ids=None)


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_it_can_be_passed_to_workers_and_noticed_by_caches(tmp_path: Path, kind: str) -> None:
    root = tool_trees.write_coco(tmp_path, kind)
    given = {"images": "images/*.jpg", "classes": list(CAMVID11.class_names), "labels": "labels.json"}
    first = load_folder("val", root, **given)
    again = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(again.read_label(1), draw_label(1, CAMVID11))
    assert again.reading == first.reading
    (root / "labels.json").write_text((root / "labels.json").read_text() + "\n")
    assert load_folder("val", root, **given).reading != first.reading


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_a_run_trains_on_it(tmp_path: Path, kind: str) -> None:
    root = tool_trees.write_coco(tmp_path / "data", kind)
    part = "{images: images, labels: labels.json}"
    words = [f"dataset.root={root}", f"dataset.classes=[{','.join(CAMVID11.class_names)}]"]
    words += [f"dataset.{name}={part}" for name in ("source", "target", "val")]
    assert len(make_scenes(spec("dataset=folder", *words)).target) == 3
    results = train_here(tmp_path, tmp_path / "run", *words, dataset="folder")
    assert results["rounds"][-1]["labelled_fraction"] > 0


def test_what_is_missing_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tool_trees.write_coco(tmp_path, "panoptic")
    given = {"images": "images/*.jpg", "classes": list(CAMVID11.class_names), "labels": "labels.json"}
    (root / "images" / "1.jpg").rename(root / "images" / "x.jpg")
    with pytest.raises(SceneError, match=r"1 of 3 images have no label in \['labels.json'\]: \['images/x'\]"):
        load_folder("val", root, **given)
    assert "1 of its images are not there: ['elsewhere/1.jpg']" in caplog.text
    (root / "images" / "x.jpg").rename(root / "images" / "1.jpg")
    with Image.open(root / "labels" / "2.png") as file:
        pixels = np.array(file)
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(root / "labels" / "2.png")
    with pytest.raises(SceneError, match=r"2\.png has segments that .*labels\.json does not list: \[197121\]"):
        load_folder("val", root, **given)
    (root / "labels" / "2.png").unlink()
    with pytest.raises(SceneError, match=r"labels/2\.png does not exist: the PNG files of .* belong into the folder"):
        load_folder("val", root, **given)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"size": [6, 8], "counts": [0, 47]}, "the runs of its mask do not add up to its 48 pixels"),
        ({"size": [8, 6], "counts": [0, 48]}, r"its mask is of size \[8, 6\], and the image \[6, 8\]"),
        ({"size": [6, 8], "counts": "\x7f"}, "not in the text form"),
        ({"size": [6, 8], "counts": 5}, "neither a list nor a text"),
        ([[0, 0, 1, 1]], "three or more points"),
        ([["a", 0, 1, 1, 2, 2]], "not a list of numbers"),
        ([[0, 0, 1e9, 0, 1, 1]], "far outside the image"),
        (None, "neither polygons nor run lengths"),
    ],
)
def test_damaged_masks_are_named(tmp_path: Path, shape: Any, message: str) -> None:
    root = write(tmp_path, [{"category_id": 3, "segmentation": shape}], {3: "road"})
    with pytest.raises(SceneError, match=rf"labels\.json: annotation 0 of a\.png is damaged: .*{message}"):
        load(root, ["road"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "lacks images, annotations or categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"is not a COCO file .*KeyError: 'file_name'"),
        ('{"images": 5, "annotations": [], "categories": []}', "is not a COCO file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path, [], {})
    (root / "labels.json").write_text(text)
    with pytest.raises(SceneError, match=message):
        load(root, ["road"])


def test_contradictions_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, [{"category_id": 3, "segmentation": CROWD}], {3: "road"})
    with pytest.raises(SceneError, match=r"in a COCO file need no dataset\.color_map"):
        load(root, ["road"], color_map={"road": [[1, 2, 3]]})
    with pytest.raises(SceneError, match=r"either all of them or none can have \.json"):
        load(root, ["road"], images=["images/*", "images/*"], labels=["labels.json", "images/*"])
    with pytest.raises(SceneError, match="must lie below"):
        load(root, ["road"], labels="../labels.json")
    twice = [{"id": number, "file_name": "a.png", "height": 6, "width": 8} for number in (1, 2)]
    with pytest.raises(SceneError, match=r"two of its images are .*a\.png"):
        load(write(tmp_path, [], {3: "road"}, images=twice), ["road"])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(3, 8), st.booleans(), st.integers(0, 2**32 - 1))
def test_polygons_are_those_of_pycocotools(height: int, width: int, corners: int, whole: bool, seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    points = (rng.random((corners, 2)) * 1.4 - 0.2) * (width, height)
    polygon = (np.round(points) if whole else points).ravel().tolist()
    expected = coco.decode(coco.merge(coco.frPyObjects([polygon], height, width))).astype(bool)
    np.testing.assert_array_equal(mask_of_polygon(polygon, (height, width)), expected)
