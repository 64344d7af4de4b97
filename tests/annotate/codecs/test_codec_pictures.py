"""Pictures of questions in CVAT and Label Studio: tags, choices, masks and strokes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import Run
from ripu.annotate.codecs import reading
from ripu.annotate.codecs.brush import decode_brush, encode_brush
from ripu.annotate.codecs.masks import from_runs, from_text, to_runs, to_text
from ripu.annotate.errors import AnnotationError
from ripu.annotate.import_report import ImportReport


def xml(*images: str) -> str:
    return f'<?xml version="1.0"?><annotations><version>1.1</version>{"".join(images)}</annotations>'


def read_xml(run: Run, tmp_path: Path, text: str | bytes) -> tuple[dict, ImportReport]:
    (tmp_path / "a.xml").write_bytes(text.encode() if isinstance(text, str) else text)
    return run.read("cvat-tags", tmp_path / "a.xml")


def mask(left: int, top: int, width: int, height: int, label: str = "car") -> str:
    """A mask of a box on the crop of question 0-0-0, a 2 x 2 window at the top left corner, 16 times enlarged."""
    return (
        f'<mask label="{label}" rle="0, {width * height}" left="{left}" top="{top}" width="{width}" height="{height}"/>'
    )


CROP = '<image id="0" name="0-0-0.png" width="544" height="544">'


def test_tags_and_masks_of_cvat(run: Run, tmp_path: Path) -> None:
    tag = '<tag label="sky" source="manual"><attribute name="a">b</attribute></tag>'
    assert read_xml(run, tmp_path, xml(f"{CROP}{tag}</image>"))[0] == {"0-0-0": [3] * 4}
    found, _ = read_xml(run, tmp_path, xml(f"{CROP}{mask(0, 0, 16, 16)}</image>"))
    assert found == {"0-0-0": [2, 254, 254, 254]}
    found, report = read_xml(run, tmp_path, xml(f"{CROP}{mask(8, 0, 41, 25)}</image>"))  # halves do not count
    assert found == {"0-0-0": [254, 2, 254, 2]}
    assert report.dropped_pixels == 2
    two = f"{mask(0, 0, 6, 32)}{mask(6, 0, 6, 32)}"  # two strokes of one class cover more than half
    assert read_xml(run, tmp_path, xml(f"{CROP}{two}</image>"))[0] == {"0-0-0": [2, 254, 2, 254]}
    overlap = f"{mask(0, 0, 32, 16)}{mask(16, 0, 16, 32, 'sky')}"
    found, report = read_xml(run, tmp_path, xml(f"{CROP}{overlap}</image>"))
    assert found == {}
    assert report.conflicts == ["0-0-0"]
    found, report = read_xml(run, tmp_path, xml(f"{CROP}{tag}{mask(0, 0, 16, 16)}</image>"))
    assert report.conflicts == ["0-0-0"]
    assert read_xml(run, tmp_path, xml(f"{CROP}</image>")) == ({}, ImportReport())


def test_strange_images_and_questions_are_named_and_skipped(run: Run, tmp_path: Path) -> None:
    tag = '<tag label="sky"/></image>'
    names = ("holiday.jpg", "0-9-0.png", "7-0-0.png", "00-0-0.png", "", "sub/0-0-0.png")
    found, report = read_xml(run, tmp_path, xml(*(f'<image name="{name}">{tag}' for name in names)))
    assert found == {"0-0-0": [3] * 4}
    assert report.unknown_questions == ["0-9-0", "7-0-0"]
    assert report.unknown_images == ["holiday.jpg", "00-0-0.png", ""]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "document type or an entity"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "document type or an entity"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><annotations/>'.encode("utf-16"), "not in UTF-8"),
        ('<?xml version="1.0" encoding="cp037"?><!DOCTYPE a><annotations/>'.encode("cp037"), "not in UTF-8"),
        ('<?xml version="1.0" encoding="utf-7"?><annotations>+ADw-!DOCTYPE a+AD4-', "not XML"),
        ("<annotations>&x;</annotations>", "not XML"),
        ("<annotations>", "not XML"),
        ("<html/>", 'its root is <html>, not <annotations>; export "CVAT for images 1.1"'),
        (xml("<track/>"), "contains a <track>"),
        (xml(f"{CROP}<polygon/></image>"), "contains a <polygon>; answer with tags or masks"),
        (xml(f'{CROP}<tag label="rode"/></image>'), r"'rode' \(image 0-0-0, did you mean 'road'\?\)"),
        (xml(f"{CROP}<tag/></image>"), "unknown classes: ''"),
        (xml(f"{CROP}{mask(0, 0, 545, 1)}</image>"), "beyond the picture"),
        (xml(f"{CROP}{mask(-1, 0, 4, 1)}</image>"), "damaged"),
        (xml(f"{CROP}{mask(0, 0, 4, 1).replace('0, 4', '0, 3')}</image>"), "do not add up"),
        (xml(f"{CROP}{mask(0, 0, 4, 1).replace('0, 4', '9' * 10_000)}</image>"), "damaged"),
        (xml(f"{CROP}{mask(0, 0, 4, 1).replace('0, 4', '٤')}</image>"), "damaged"),
        (xml(f'<image name="0-0-0.png" width="34" height="34">{mask(0, 0, 1, 1)}</image>'), "pixels of its crop"),
    ],
)
def test_an_xml_file_that_cannot_be_read_says_why(run: Run, tmp_path: Path, text: str | bytes, cause: str) -> None:
    with pytest.raises(AnnotationError, match=cause):
        read_xml(run, tmp_path, text)


def test_the_archive_of_a_tool_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations.xml", xml(f'{CROP}<tag label="sky"/></image>'))
        archive.writestr("images/0-0-0.png", b"")
    assert run.read("cvat-tags", path)[0] == {"0-0-0": [3] * 4}
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AnnotationError, match="the archive is damaged"):
        run.read("cvat-tags", path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", b"<" * 100_001)
    monkeypatch.setattr(reading, "MOST_BYTES", 100_000)
    with pytest.raises(AnnotationError, match="or a huge one"):
        run.read("cvat-tags", path)


def tasks(run: Run, tmp_path: Path, *results: object, **more: object) -> tuple[dict, ImportReport]:
    task = {"data": {"image": "/data/upload/1/0badf00d-0-0-0.png"}, "annotations": [{"result": [*results]}], **more}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    return run.read("label-studio", tmp_path)


def choice(*names: str) -> dict:
    return {"type": "choices", "value": {"choices": [*names]}}


def brush(array: np.ndarray, name: str = "car") -> dict:
    value = {"format": "rle", "rle": encode_brush(array), "brushlabels": [name]}
    return {"type": "brushlabels", "value": value, "original_width": 544, "original_height": 544, "image_rotation": 0}


def test_choices_and_strokes_of_label_studio(run: Run, tmp_path: Path) -> None:
    assert tasks(run, tmp_path, choice("sky"))[0] == {"0-0-0": [3] * 4}
    assert tasks(run, tmp_path, choice("sky"), {"type": "textarea", "value": {}})[0] == {"0-0-0": [3] * 4}
    painted = np.zeros((544, 544), np.uint8)
    painted[:20, :40] = 1
    found, report = tasks(run, tmp_path, brush(painted))
    assert found == {"0-0-0": [2, 2, 254, 254]}
    assert report.dropped_pixels == 0
    painted[100:120, 100:120] = 1
    assert tasks(run, tmp_path, brush(painted))[1].dropped_pixels == 1
    assert tasks(run, tmp_path, brush(painted), brush(painted, "sky"))[1].conflicts == ["0-0-0"]
    assert tasks(run, tmp_path, choice("sky", "road"))[1].conflicts == ["0-0-0"]
    two = [{"result": [choice("sky")]}, {"result": [choice("road")]}]
    assert tasks(run, tmp_path, annotations=two)[1].conflicts == ["0-0-0"]
    cancelled = [{"result": [choice("sky")], "was_cancelled": True}]
    assert tasks(run, tmp_path, annotations=cancelled) == ({}, ImportReport())
    drafts = {"drafts": [{"result": [choice("sky")]}], "predictions": [{"result": [choice("sky")]}]}
    assert tasks(run, tmp_path, annotations=[], **drafts) == ({}, ImportReport())


@pytest.mark.parametrize(
    ("results", "cause"),
    [
        ([choice("raod")], r"'raod' \(task 0, did you mean 'road'\?\)"),
        ([{"type": "choices", "value": {"choices": [1]}}], "no class of type str"),
        ([{"type": "choices", "value": {"choices": "road"}}], "no choices of type list"),
        ([{"type": "rectanglelabels", "value": {}}], "rectanglelabels.*answer with choices or brush strokes"),
        ([{**choice("road"), "type": None}], "no type of type str"),
        ([7], "no type of type str"),
        ([{**brush(np.zeros((544, 544))), "original_width": 545}], "pixels of its crop"),
        ([{**brush(np.zeros((544, 544))), "image_rotation": 90}], "or is turned"),
        ([brush(np.zeros((544, 543)))], "brush mask is damaged, or does not have 544 x 544"),
        ([{**brush(np.zeros((544, 544))), "value": {"rle": [0] * 9, "brushlabels": ["car"]}}], "damaged"),
        ([{**brush(np.zeros((544, 544))), "value": {"rle": [], "brushlabels": ["car"]}}], "damaged"),
        ([{**brush(np.zeros((544, 544))), "value": {"rle": [1.5, 10**4000], "brushlabels": ["car"]}}], "damaged"),
    ],
)
def test_a_task_that_cannot_be_read_says_why(run: Run, tmp_path: Path, results: list, cause: str) -> None:
    with pytest.raises(AnnotationError, match=cause):
        tasks(run, tmp_path, *results)


def test_the_brush_is_that_of_label_studio() -> None:
    """The example of rle-pack, and what Label Studio's converter writes for a mask."""
    mask = np.zeros((2, 9), np.uint8)
    mask[0, 3:] = 1
    mask[1, 8] = 1
    # 72 values; value bits 8; length bits 3, 4, 8, 16; runs of 12 x 0, 24 x 255, 32 x 0, 4 x 255
    head = f"{72:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    runs = f"101{11:04b}{0:08b}110{23:08b}{255:08b}110{31:08b}{0:08b}100{3:03b}{255:08b}"
    bits = (head + runs).ljust(-(-len(head + runs) // 8) * 8, "0")
    assert encode_brush(mask) == [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    single = (
        f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
        + f"000{7:03b}"
        + "".join(f"{value:08b}" for value in (9, 9, 9, 0, 0, 0, 0, 1))
    )  # values one by one; the last of four is the opacity
    values = [int(single[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(single), 8)]
    assert decode_brush(values, 1, 2, "").tolist() == [[False, True]]


@given(st.integers(1, 40), st.integers(1, 3000), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_brush_and_runs_come_back(height: int, width: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.random(height) < 0.5] = rng.random() < 0.5
    assert np.array_equal(decode_brush(encode_brush(mask.astype(np.uint8)), height, width, ""), mask)
    runs = to_runs(mask)
    assert np.array_equal(from_runs(runs, mask.size, "").reshape(mask.shape), mask)
    assert from_text(to_text(runs), "") == runs
