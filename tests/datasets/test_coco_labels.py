"""Labels in COCO files: categories, crowds, overlaps, polygons as pycocotools draws them, and faults by name."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tool_trees
from ripu.datasets import coco_labels
from ripu.datasets.coco_labels import CocoLabels
from ripu.datasets.coco_masks import part_of_polygons, part_of_runs
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
    with pytest.raises(
        SceneError, match=r"has categories without a class in dataset.ids: \['bottle \(44\)'\].*ignore_ids=null"
    ):
        load(root, ["vehicle"], ids={3: "vehicle", 8: "vehicle"})
    merged = load(root, ["vehicle"], ids={3: "vehicle", 8: "vehicle"}, ignore_ids=None)
    assert (merged.read_label(0) == 0).all()
    with pytest.raises(
        SceneError, match=r"has categories without a class in dataset.classes \['car'\]: \['truck \(8\)', 'b"
    ):
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
    with pytest.raises(SceneError, match=r"labels/2\.png does not exist: the PNG files of .* belong in the folder"):
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
        ([[0, 0, 10**400, 0, 1, 1]], "not a list of numbers"),
        ([[0, 0, float("inf"), 0, 1, 1]], "far outside the image"),
        ([5], "three or more points"),
        ([[[0, 0], [1, 0], [1, 1]]], "three or more points"),
        ([None], "three or more points"),
        ({"size": 5, "counts": [0, 48]}, "not iterable"),
        ({"size": [6, 8], "counts": [0, 48.0]}, "do not add up"),
        ({"size": [6, 8], "counts": [0, "48"]}, "do not add up"),
        ({"size": [6, 8], "counts": [0, 10**400]}, "do not add up"),
        ({"size": [6, 8], "counts": "61X"}, "cut off|do not add up|not in the text form"),
        (None, "neither polygons nor run lengths"),
        (7, "neither polygons nor run lengths"),
    ],
)
def test_damaged_masks_are_named(tmp_path: Path, shape: Any, message: str) -> None:
    root = write(tmp_path, [{"category_id": 3, "segmentation": shape}], {3: "road"})
    with pytest.raises(SceneError, match=rf"labels\.json: annotation 0 of a\.png is damaged: .*{message}"):
        load(root, ["road"])


def one_image(annotation: str = "", height: str = "6") -> str:
    image = f'{{"id": 1, "file_name": "a.png", "height": {height}, "width": 8}}'
    return f'{{"images": [{image}], "annotations": [{annotation}], "categories": [{{"id": 3, "name": "road"}}]}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "lacks images, annotations or categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"is not a COCO file .*KeyError: 'file_name'"),
        ('{"images": 5, "annotations": [], "categories": []}', "is not a COCO file"),
        ('{"images": [], "annotations": 5, "categories": [{"id": 3, "name": "road"}]}', "is not a COCO file"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1e999, "name": "road"}]}', "is not a COCO file"),
        ('{"images": [], "annotations": [], "categories": [{"id": [], "name": "road"}]}', "is not a COCO file"),
        (one_image(height="1e999"), "is not a COCO file"),
        (one_image(height="null"), "is not a COCO file"),
        (one_image(height="0"), "a.png is 0 x 8 pixels large, which is impossible"),
        (one_image(height="10000000000"), "which is impossible"),
        (one_image('{"image_id": [], "category_id": 3, "segmentation": []}'), "is not a COCO file"),
        (one_image('{"image_id": 1, "category_id": 4, "segmentation": []}'), "is not a COCO file .*KeyError: 4"),
        (one_image('{"image_id": 1, "category_id": {}, "segmentation": []}'), "is not a COCO file"),
        (one_image('{"image_id": 1, "segments_info": 5, "file_name": "b.png"}'), "b.png does not exist"),
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
    with pytest.raises(SceneError, match=r"labels\.json lists .*a\.png twice; keep one entry"):
        load(write(tmp_path, [], {3: "road"}, images=twice), ["road"])


def test_each_image_has_segments_of_its_own(tmp_path: Path) -> None:
    root = tool_trees.write_coco(tmp_path, "panoptic")
    given = {"images": "images/*.jpg", "classes": list(CAMVID11.class_names), "labels": "labels.json"}
    content = json.loads((root / "labels.json").read_text())
    names = [entry["file_name"] for entry in content["annotations"]]
    content["annotations"][1]["file_name"] = names[0]
    (root / "labels.json").write_text(json.dumps(content))
    with pytest.raises(
        SceneError, match=rf"0\.jpg and .*1\.jpg have the same segments, .*{names[0]}; give each its own"
    ):
        load_folder("val", root, **given)
    content["annotations"][1] = content["annotations"][0]
    (root / "labels.json").write_text(json.dumps(content))
    with pytest.raises(SceneError, match=r"lists the segments of .*0\.jpg twice; keep one entry"):
        load_folder("val", root, **given)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_what_is_in_front_is_what_painting_from_large_to_small_leaves(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, masks = (9, 12), []
    segments = []
    for number in range(count):
        top, left = rng.integers(0, 7, 2)
        bottom, right = top + rng.integers(1, 4), left + rng.integers(1, 4)
        mask = np.zeros(size, dtype=bool)
        mask[top:bottom, left:right] = True
        masks.append(mask)
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0])), prepend=0).tolist()
        runs = [*runs, mask.size - sum(runs)]
        shape: Any = {"size": list(size), "counts": runs}
        segments.append((number, [box(left, top, right, bottom)] if number % 2 else shape))
    expected = np.full(size, VOID)
    for number in sorted(range(count), key=lambda number: -masks[number].sum()):  # stable
        expected[masks[number]] = number
    reader = CocoLabels(tuple(f"c{number}" for number in range(count)))
    reader.images[Path("a")] = coco_labels._Image(size, Path("labels.json"), tuple(segments), is_panoptic=False)
    np.testing.assert_array_equal(reader(Path("a")), expected)


def test_many_instances_take_no_more_memory_than_one() -> None:
    height, width = 4000, 6000
    segments = [(0, [box(0, 0, width, height)])]
    segments += [(1, [box(150 * step, 0, 150 * step + 300, height - step)]) for step in range(39)]
    reader = CocoLabels(("road", "car"))
    reader.images[Path("a")] = coco_labels._Image((height, width), Path("labels.json"), tuple(segments), False)
    tracemalloc.start()
    label = reader(Path("a"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (np.count_nonzero(label == 1), np.count_nonzero(label == 0)) == (23_888_850, 111_150)
    assert peak < 12 * height * width


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(3, 8), st.booleans(), st.integers(0, 2**32 - 1))
def test_polygons_are_those_of_pycocotools(height: int, width: int, corners: int, whole: bool, seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    points = (rng.random((corners, 2)) * 1.4 - 0.2) * (width, height)
    polygon = (np.round(points) if whole else points).ravel().tolist()
    expected = coco.decode(coco.merge(coco.frPyObjects([polygon], height, width))).astype(bool)
    part = part_of_polygons([polygon], (height, width))
    found = np.zeros((height, width), dtype=bool)
    if part is not None:
        found[part.rows, part.columns] = part.mask
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_runs_are_a_mask_in_the_box_around_it(height: int, width: int, share: float, seed: int) -> None:
    expected = np.random.default_rng(seed).random((height, width)) < share**3
    edges = np.flatnonzero(np.diff(np.r_[0, expected.T.ravel(), 0]))
    runs = np.diff(np.r_[0, edges, expected.size]).tolist()
    part = part_of_runs(runs, (height, width))
    assert (part is None) == (not expected.any())
    if part is not None:
        found = np.zeros((height, width), dtype=bool)
        found[part.rows, part.columns] = part.mask
        np.testing.assert_array_equal(found, expected)
        rows, columns = np.nonzero(expected)
        assert (part.columns.start, part.columns.stop) == (columns.min(), columns.max() + 1)
        assert part.rows.start <= rows.min()
        assert part.rows.stop > rows.max()


def test_many_small_instances_are_painted_inside_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The literal painting of whole frames, by size; and no array as large as the frame for an instance."""
    rng = np.random.default_rng(0)
    size, shapes, masks = (256, 512), [], []
    for number in range(200):
        top, left = rng.integers(0, 240), rng.integers(0, 490)
        bottom, right = top + rng.integers(3, 16), left + rng.integers(3, 20)
        mask = np.zeros(size, dtype=bool)
        mask[top:bottom, left:right] = True
        edges = np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0]))
        runs = np.diff(np.r_[0, edges, mask.size]).tolist()
        shapes.append([box(left, top, right, bottom)] if number % 2 else {"size": list(size), "counts": runs})
        masks.append(mask)
    expected = np.full(size, VOID)
    for number in sorted(range(200), key=lambda number: -masks[number].sum()):  # stable
        expected[masks[number]] = number
    largest: list[int] = []
    paint = coco_labels._part

    def painted(shape: Any, size: tuple[int, int]) -> Any:
        part = paint(shape, size)
        assert part is not None
        largest.append(part.mask.size)
        return part

    monkeypatch.setattr(coco_labels, "_part", painted)
    reader = CocoLabels(tuple(f"c{number}" for number in range(200)))
    segments = tuple(enumerate(shapes))
    reader.images[Path("a")] = coco_labels._Image(size, Path("labels.json"), segments, is_panoptic=False)
    np.testing.assert_array_equal(reader(Path("a")), expected)
    assert len(largest) == 200
    assert max(largest) <= 16 * 20
