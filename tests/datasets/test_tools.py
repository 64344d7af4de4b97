"""Labels from other tools: colours with a labelmap.txt, a mask for each class, and COCO files."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import running
import tool_trees
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import CAMVID11, VOID
from ripu.doctor.__main__ import doctor
from ripu.run.assembly.data import make_scenes
from trees import draw_label

DOCS = Path(__file__).parents[2] / "docs" / "your-own-data.md"
LINES = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| `(labels: [^`]+)` \|", DOCS.read_text(), re.MULTILINE))
TREES: dict[str, Any] = {
    "CVAT, Segmentation mask 1.1": lambda root: tool_trees.write_voc(root),
    "COCO instances": lambda root: tool_trees.write_coco(root),
    "COCO panoptic": lambda root: tool_trees.write_coco(root, "panoptic"),
    "a folder for each class": lambda root: tool_trees.write_masks(root, "masks/{name}/{number}.png"),
    "a file for each class": lambda root: tool_trees.write_masks(root, "masks/{number}_{name}.png"),
    "Label Studio, Brush labels to PNG": lambda root: tool_trees.write_masks(
        root, "export/task-{number}-annotation-7-by-1-tag-{name}-0.png", "images/task-{number}.jpg"
    ),
}


def folder(root: Path, **changed: Any) -> SceneDataset:
    given: dict[str, Any] = {"images": "images/*.jpg", "classes": list(CAMVID11.class_names)}
    return load_folder("val", root, **{**given, **changed})


def test_every_line_of_the_table_is_tried() -> None:
    assert set(LINES) == set(TREES)


@pytest.mark.parametrize("tool", TREES)
def test_the_lines_of_the_table_read_the_exports(tool: str, tmp_path: Path) -> None:
    root = TREES[tool](tmp_path / "data")
    keys = yaml.safe_load("{" + LINES[tool] + "}")
    images = "JPEGImages/*.jpg" if "color_map" in keys else "images/*.jpg"
    part = {"images": keys.pop("images", images), "labels": keys.pop("labels")}
    config = tmp_path / "my-config" / "dataset"
    config.mkdir(parents=True)
    names = list(CAMVID11.class_names)
    content = {"defaults": ["folder", "_self_"], "name": "mine", "root": str(root), "classes": names, **keys}
    content |= dict.fromkeys(("source", "target", "val"), part)
    (config / "mine.yaml").write_text(yaml.safe_dump(content))
    words = (f"hydra.searchpath=[file://{config.parent}]", "dataset=mine")
    scenes = make_scenes(running.spec(*words))
    assert len(scenes.target) == 3
    for seed in range(3):
        np.testing.assert_array_equal(scenes.target.read_label(seed), draw_label(seed, CAMVID11))
        assert scenes.target.label_size(seed) == draw_label(seed, CAMVID11).shape
    report = doctor(running.compose(*words, "num_workers=1", config_name="doctor"))
    assert all(
        "void" in one["what"] or "validation" in str(one) or one["level"] != "error" for one in report["findings"]
    )


def test_image_sets_of_voc_are_list_files(tmp_path: Path) -> None:
    root = tool_trees.write_voc(tmp_path)
    words = {"images": "JPEGImages/*.jpg", "labels": "SegmentationClass/*.png", "color_map": "labelmap.txt"}
    val = folder(root, **words, list_file="ImageSets/Segmentation/val.txt")
    assert [scene.image_id for scene in val.scenes] == ["JPEGImages/frame_2"]
    with pytest.raises(SceneError, match=r"dataset.color_map names the class 'building', which is not in"):
        folder(root, **words | {"classes": ["sky"]})
    (root / "labelmap.txt").write_text("sky:blue::\n")
    with pytest.raises(SceneError, match=r"labelmap.txt, line 1: 'sky:blue::' is not label:red,green,blue"):
        folder(root, **words)
    with pytest.raises(SceneError, match=r"color_map=labels.txt is not understood: .* a labelmap.txt below"):
        folder(root, **words | {"color_map": "labels.txt"})


def test_the_background_is_void_unless_it_is_a_class(tmp_path: Path) -> None:
    root = tool_trees.write_voc(tmp_path)
    text = (root / "labelmap.txt").read_text().replace("background:0,0,0", "background:1,2,3")
    (root / "labelmap.txt").write_text(text)
    path = root / "SegmentationClass" / "frame_0.png"
    with Image.open(path) as file:
        pixels = np.array(file)
    pixels[:4] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    words = {"images": "JPEGImages/*.jpg", "labels": "SegmentationClass/*.png", "color_map": "labelmap.txt"}
    assert (folder(root, **words).read_label(0)[:4] == VOID).all()
    assert (folder(root, **words, classes=[*CAMVID11.class_names, "background"]).read_label(0)[:4] == 11).all()


def test_faulty_masks_are_named(tmp_path: Path) -> None:
    root = tool_trees.write_masks(tmp_path, "masks/{name}/{number}.png")
    labels = "masks/{class}/*.png"
    again = pickle.loads(pickle.dumps(folder(root, labels=labels)))
    np.testing.assert_array_equal(again.read_label(1), draw_label(1, CAMVID11))
    before = again.reading
    with pytest.raises(SceneError, match=r"are of no class in dataset.classes \['sky'\]: \['masks/building/0.png'"):
        folder(root, labels=labels, classes=["sky"])
    with pytest.raises(SceneError, match=r"need no dataset.ids"):
        folder(root, labels=labels, ids={0: "sky"})
    with pytest.raises(SceneError, match=r"either all of them or none can have \{class\}"):
        folder(root, images=["images/*.jpg", "images/*.jpg"], labels=[labels, "masks/sky/*.png"])
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(root / "masks" / "car" / "0.png")
    with pytest.raises(SceneError, match=r"\d+ of its pixels are also in the mask of \w+; a pixel has one class"):
        folder(root, labels=labels)
    assert folder(root, labels=labels, verify=False).reading != before
    Image.fromarray(np.arange(64 * 96, dtype=np.uint8).reshape(64, 96)).save(root / "masks" / "car" / "0.png")
    with pytest.raises(SceneError, match=r"car/0\.png is not a mask: besides zero, it has 255 values"):
        folder(root, labels=labels)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "masks" / "car" / "0.png")
    with pytest.raises(SceneError, match=r"differs in size from"):
        folder(root, labels=labels)
