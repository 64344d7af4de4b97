"""Masks and label images of whole images: COCO, PNG folders and folders of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bombs import bomb
from exchange import Run
from ripu.annotate.codecs.masks import from_text, to_runs, to_text
from ripu.annotate.errors import AnnotationError
from ripu.annotate.import_report import ImportReport


@given(st.integers(1, 40), st.integers(1, 3000), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_masks_are_those_of_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert to_text(to_runs(mask.T)) == theirs["counts"].decode()
    assert from_text(theirs["counts"].decode(), "") == to_runs(mask.T)


def test_pycocotools_reads_an_export(run: Run, tmp_path: Path) -> None:
    reader = pytest.importorskip("pycocotools.coco")
    run.export("coco", tmp_path / "out")
    coco = reader.COCO(tmp_path / "out" / "annotations.json")
    assert coco.getAnnIds()
    for entry in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(entry)
        name = coco.loadCats(entry["category_id"])[0]["name"]
        label = 255 if name == "void" else [one.name for one in run.classes].index(name)
        assert int(mask.sum()) == entry["area"]
        for question in run.questions_of(1).of_image(entry["image_id"] - 1):
            rows, columns = question.pixels.T
            answer = run.answers.get(question.qid, np.full(len(rows), 254))
            assert np.array_equal(mask[rows, columns] == 1, answer == label)


def coco_of(run: Run, tmp_path: Path, **changes: object) -> Path:
    """A file with uncompressed masks: all of the first image is sky."""
    content = {
        "images": [{"id": 5, "file_name": "images/000000_Z_rich_stra_e_01.png", "height": 140, "width": 203}],
        "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "never used"}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "segmentation": {"size": [140, 203], "counts": [0, 140 * 203]}}
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps({**content, **changes}))
    return tmp_path


def test_a_full_mask_answers_what_was_asked_alone(run: Run, tmp_path: Path) -> None:
    found, report = run.read("coco", coco_of(run, tmp_path))
    asked = [question for index in range(2) for question in run.questions_of(index).of_image(0)]
    assert found == {question.qid: [3] * len(question.pixels) for question in asked}
    assert report.dropped_pixels == 140 * 203 - sum(len(question.pixels) for question in asked)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"categories": [{"id": 1, "name": "skies"}]}, "'skies' .did you mean 'sky'"),
        ({"categories": [{"id": 1, "name": "sky"}] * 2}, "has the same id as an earlier entry"),
        ({"categories": []}, "does not list"),
        ({"categories": None}, "no categories of type list"),
        ({"images": [{"id": [5], "file_name": "a"}]}, "no id of type int or str"),
        ({"images": [{"id": True, "file_name": "a"}]}, "no id of type int or str"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "segmentation": [[0, 0, 5, 5, 9, 0]]}]}, "not polygons"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5]}]}, "not polygons"),
        ({"annotations": [{"image_id": {}, "category_id": 1}]}, "no image_id of type int or str"),
        *(
            (
                {"annotations": [{"image_id": 5, "category_id": 1, "segmentation": {"size": size, "counts": counts}}]},
                text,
            )
            for size, counts, text in (
                ([140, 204], [0, 140 * 203], "not have the size of the label, 140 x 203"),
                ([10**9, 10**9], [0, 10**18], "not have the size of the label, 140 x 203"),
                ([140, 203], [0, 140 * 203 + 1], "do not add up"),
                ([140, 203], [-1, 140 * 203 + 1], "do not add up"),
                ([140, 203], [0.0, 140.0 * 203], "do not add up"),
                ([140, 203], [0, float("nan")], "do not add up"),
                ([140, 203], [0, 10**4000], "do not add up"),
                ([140, 203], [False, 140 * 203], "do not add up"),
                ([140, 203], None, "no counts of type str or list"),
                ([140, 203], "0" * 50, "do not add up"),
                ([140, 203], "o" * 50, "not in the text form"),
                ([140, 203], "oo", "is cut off"),
                ([140, 203], "Straße", "not in the text form"),
            )
        ),
    ],
)
def test_a_mask_that_cannot_be_read_says_why(run: Run, tmp_path: Path, changes: dict, cause: str) -> None:
    with pytest.raises(AnnotationError, match=cause):
        run.read("coco", coco_of(run, tmp_path, **changes))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[]", "null", "9" * 10_000, '{"images": NaN}', "", "\x00", '{"a": "\\ud800"}']
)
@pytest.mark.parametrize("name", ["coco", "label-studio"])
def test_json_that_is_something_else_is_refused(run: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    if (name, text) == ("label-studio", "[]"):
        assert run.read(name, tmp_path / "a.json") == ({}, ImportReport())
        return
    with pytest.raises(AnnotationError, match=r"a\.json"):
        run.read(name, tmp_path / "a.json")


def test_label_images_need_their_table(run: Run, tmp_path: Path) -> None:
    run.export("png", tmp_path / "out")
    table = tmp_path / "out" / "classes.json"
    assert json.loads(table.read_text()) == {
        **{str(number): one.name for number, one in enumerate(run.classes)},
        "254": "(no answer)",
        "255": "void",
    }
    table.write_text(table.read_text().replace("road", "lane"))
    with pytest.raises(AnnotationError, match="has other classes or ids than the run"):
        run.read("png", tmp_path / "out")
    table.unlink()
    with pytest.raises(AnnotationError, match=r"classes\.json does not exist"):
        run.read("png", tmp_path / "out")


def test_label_images_of_other_ids_sizes_and_names(run: Run, tmp_path: Path) -> None:
    run.export("png", tmp_path / "out", final=lambda question: None)
    labels = tmp_path / "out" / "labels"
    first = sorted(labels.iterdir())[0]
    before = first.read_bytes()
    assert set(np.unique(np.asarray(Image.open(first)))) == {254}
    full = np.full((140, 203), 1, np.uint8)
    Image.fromarray(full).save(labels / "holiday.png")
    (labels / first.with_suffix(".jpg").name).write_bytes(before)  # lossy: no labels
    unknown = [first.with_suffix(".jpg").name, "holiday.png"]
    assert run.read("png", tmp_path / "out") == ({}, ImportReport(unknown_images=unknown))
    for pixels, cause in (
        (full * 4, r"contains the unknown ids \[4\]"),
        (full[:-1], "not 8-bit of 140 x 203"),
        (np.stack([full] * 3, axis=-1), "not 8-bit of 140 x 203"),
        (full.astype(np.uint16), "not 8-bit"),
    ):
        Image.fromarray(pixels).save(first)
        with pytest.raises(AnnotationError, match=cause):
            run.read("png", tmp_path / "out")
    first.write_bytes(before[:-30])
    with pytest.raises(AnnotationError, match="cannot be read as an image"):
        run.read("png", tmp_path / "out")
    bomb(first, 1 << 20, 1 << 20)
    with pytest.raises(AnnotationError, match="is not decoded"):
        run.read("png", tmp_path / "out")


def test_folders_of_classes(run: Run, tmp_path: Path) -> None:
    run.export("class-folders", tmp_path / "out", final=lambda question: None)
    masks = tmp_path / "out" / "masks"
    assert {path.name for path in masks.iterdir()} == {"road", "traffic_light", "car", "sky", "void"}
    (masks / "car").rename(masks / "Car")
    name = "000000_Z_rich_stra_e_01.png"
    mask = np.zeros((140, 203), np.uint8)
    mask[0, 0] = 1
    Image.fromarray(mask).save(masks / "Car" / name)
    mask[1, 1], mask[2, 2] = 255, 254
    mask[0, 0] = 127
    Image.fromarray(mask).save(masks / "void" / name)
    Image.fromarray(np.zeros((140, 203), bool)).save(masks / "sky" / name)
    found, report = run.read("class-folders", tmp_path / "out")
    assert found == {"0-0-0": [2, 254, 254, 255]}
    assert report.dropped_pixels == 1
    assert run.read("class-folders", masks) == (found, report)
    Image.fromarray(np.eye(140, 203) > 0).save(masks / "sky" / name)
    assert run.read("class-folders", masks)[1].conflicts == ["0-0-0"]
    (masks / "raod").mkdir()
    with pytest.raises(AnnotationError, match=r"unknown classes: 'raod' .did you mean 'road'"):
        run.read("class-folders", masks)
