"""Tables of answers as spreadsheets write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from exchange import NASTY, Run
from ripu.annotate.errors import AnnotationError


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
