"""A round trip through each format keeps every answer; an import takes answers to queried pixels only."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bombs import bomb
from exchange import NASTY, REGIONS, Run
from ripu.annotate.codecs import FORMATS, reading
from ripu.annotate.codecs.brush import decode_brush, encode_brush
from ripu.annotate.codecs.crops import window_of
from ripu.annotate.codecs.masks import from_runs, from_text, to_runs, to_text
from ripu.annotate.errors import AnnotationError
from ripu.annotate.import_report import ImportReport

ALL = sorted(FORMATS)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "labels")


@pytest.mark.parametrize("regions", REGIONS)
@pytest.mark.parametrize("name", ALL)
def test_a_round_trip_brings_back_every_answer(tmp_path: Path, name: str, regions: str) -> None:
    run = Run(tmp_path / "labels", regions, NASTY)
    for index in range(2):
        out = tmp_path / f"round {index}"
        assert run.export(name, out, index) == len(run.questions_of(index))
        for _ in range(2):
            found, report = run.read(name, out)
            assert found == run.expected(index)
            assert report == ImportReport()


@pytest.mark.parametrize("name", ALL)
def test_an_export_without_answers_brings_none(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out", final=lambda question: None)
    found, report = run.read(name, tmp_path / "out")
    assert found == {}
    assert report == ImportReport()


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_written_over_the_work_of_people(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out")
    with pytest.raises(AnnotationError, match="not an empty folder; name another"):
        run.export(name, tmp_path / "out")


@pytest.mark.parametrize("name", ALL)
def test_every_file_lies_in_the_folder(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out" / "deep")
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "labels" not in path.parts[:-1]]
    assert all((tmp_path / "out" / "deep") in path.parents for path in outside if "deep" in path.parts)
    assert {path.name for path in tmp_path.iterdir()} == {"labels", "out"}
    assert all(path.name.isascii() for path in (tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_is_named(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match=r"nowhere.*does not exist; check the path"):
        run.read(name, tmp_path / "nowhere")


def test_the_picture_keeps_the_asked_pixels(run: Run, tmp_path: Path) -> None:
    run.export("bundle", tmp_path / "out")
    for number, image in enumerate(run.images[:-1]):
        for question in run.questions_of(1).of_image(number):
            window = window_of(question, image)
            picture = np.asarray(Image.open(tmp_path / "out" / "crops" / f"{question.qid}.png"))
            assert picture.shape == (*window.picture_size, 3)
            for row, column in question.pixels.tolist():
                top, left = (row - window.top) * window.scale, (column - window.left) * window.scale
                block = picture[top : top + window.scale, left : left + window.scale]
                assert (block == run.read_image(number)[row, column]).all()
            assert (picture == 255).all(axis=-1).any()  # the line around them


# ---- tables


def table(run: Run, tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "answers.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("qid,labels\n0-0-0,road\n", [0, 0, 0, 0]),
        ("qid;labels\r\n0-0-0;road\r\n", [0, 0, 0, 0]),
        ('\ufeffqid\tlabels\r\n\'0-0-0\t"road"\r\n', [0, 0, 0, 0]),
        ("labels,qid\nvoid,0-0-0\n", [255] * 4),
        ("qid,labels\n0-0-0,road ? car VOID\n", [0, 254, 2, 255]),
        ("qid,labels\n0-0-0,traffic light\n", [1] * 4),
        ("qid,labels\n0-0-0,traffic_light\n\n\n", [1] * 4),
        ("qid,labels\n0-0-0,traffic_light road road road\n", [1, 0, 0, 0]),
        ("qid,labels,crop\n2000-01-02,sky,crops/0-0-0.png\n", [3] * 4),  # a date to a spreadsheet
        ("qid,labels\n0-0-0,\n", None),
        ("qid,labels\n0-0-0,  \n", None),
        ("qid,labels\n0-0-0\n", None),
        ("qid,labels\n0-0-0,unsure\n", None),
        ("qid,labels\n0-0-0,? ? ? ?\n", None),
        ("qid,labels\n0-0-0,road\n0-0-0,road\n", [0] * 4),
        ("qid,labels\n0-0-0,road\n0-0-0,car\n", None),
    ],
)
def test_cells_as_spreadsheets_write_them(run: Run, tmp_path: Path, text: str, labels: list[int] | None) -> None:
    found, report = run.read("bundle", table(run, tmp_path, text))
    is_answer = labels is not None or "unsure" in text
    assert found == ({"0-0-0": labels} if is_answer else {})
    assert report.conflicts == (["0-0-0"] if text.endswith("car\n") else [])


def test_a_table_in_utf_16_is_read(run: Run, tmp_path: Path) -> None:
    assert run.read("bundle", table(run, tmp_path, "qid\tlabels\n0-0-0\troad\n".encode("utf-16")))[0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("qid,labels\n0-0-1,road\n2000-01-02,road\n", r"row 3: '2000-01-02'.*import the columns as text"),
        ("qid,labels\n01.02.2003,road\n", "row 2: '01.02.2003'"),
        ("qid,labels\n36526,road\n", "row 2: '36526'"),
        ("qid,labels,crop\n0-0-0,road,crops/0-1-0.png\n", "row 2: '0-0-0' and the crop '0-1-0' do not name one"),
        ("qid,labels\n,road\n", "row 2: ''"),
        ("qid,labels\n0-0-0,road car\n", "row 2: 2 labels for 4 pixels"),
        ("qid,labels\n0-0-0,raod\n", r"'raod' \(row 2, did you mean 'road'\?\); use the names of the run: road,"),
        ("qid,labels\n0-0-0,Traffic_light\n", "did you mean 'traffic light'"),
        ("qid,labels\n0-0-0,unknown\n", "unknown classes: 'unknown'"),
        ("qid,labels\n0-0-0,n/a\n", "unknown classes: 'n/a'"),
        ("qid,labels\n0-0-0,255\n", "unknown classes: '255'"),
        ("qid,labels\n0-0-0,road road road lorry\n", "unknown classes: 'lorry'"),
        ("qid,answer\n0-0-0,road\n", "does not name the columns labels and qid"),
        ("", "does not name the columns"),
        (b"qid,labels\n0-0-0,stra\xdfe\n", 'not a table in UTF-8.*save it as "CSV UTF-8"'),
        ("qid,labels\n0-0-0," + "x" * (1 << 24) + "x\n", "not a table"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(run: Run, tmp_path: Path, text: str | bytes, cause: str) -> None:
    with pytest.raises(AnnotationError, match=cause) as error:
        run.read("bundle", table(run, tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'answers.csv'}: ")
    assert "\n" not in str(error.value)


def test_class_names_that_are_numbers_survive_a_spreadsheet(tmp_path: Path) -> None:
    run = Run(tmp_path / "labels", "pixel", ("1", "2"))
    for cell in ("2", "2.0", "2,0", "2.00", "'2"):
        assert run.read("bundle", table(run, tmp_path, f"qid;labels\n0-0-0;{cell}\n"))[0] == {"0-0-0": [1]}


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    run = Run(tmp_path / "labels", "pixel", NASTY)
    for index in (NASTY.index(name) for name in ("=1+1", "@sum", "'tis", "-")):
        out = tmp_path / f"out {index}"
        run.export("bundle", out, final=lambda question, index=index: np.array([index], np.uint8))
        for name in ("questions.csv", "answers.csv"):
            content = (out / name).read_bytes()
            assert content.startswith(b"\xef\xbb\xbf")
            rows = [*csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))]
            assert not [cell for row in rows for cell in row if cell[:1] in "=+-@\t\r\n" and cell]
        found, _ = run.read("bundle", out)
        assert set(map(tuple, found.values())) == {(index,)}


# ---- pictures of questions


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


# ---- whole images


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
