"""Damaged files of answers: one sentence that names the file, or answers to asked pixels; never another error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange import PLAIN, Run
from ripu.annotate.codecs import FORMATS
from ripu.annotate.errors import AnnotationError

FILES = {
    "bundle": "answers.csv",
    "cvat-tags": "annotations.xml",
    "cvat-masks": "annotations.xml",
    "label-studio": "tasks.json",
    "coco": "annotations.json",
    "png": "classes.json",
}
WORDS = b"\" < &lol; <!DOCTYPE> ] { -1 1e999 NaN , ; ' 0-0-0 void 254 true null".split()
INSERTED = st.sampled_from([*WORDS, b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"9" * 5000, b"[" * 3000])
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), INSERTED | st.binary(max_size=8)), max_size=4)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run") / "labels", "k=1", PLAIN)


@pytest.fixture(scope="module")
def exports(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        run.export(name, folder / name)
    return folder


def read(run: Run, name: str, path: Path) -> dict[str, list[int]]:
    """Read a file; every error but one sentence that names a file fails the test."""
    try:
        return run.read(name, path)[0]
    except AnnotationError as error:
        text = str(error)
        assert str(path) in text
        assert len(text) < 2000
        assert "\n" not in text
        text.encode()
        return {}


@pytest.mark.parametrize("name", sorted(FILES))
def test_edited_files_are_read_or_refused(run: Run, exports: Path, tmp_path: Path, name: str) -> None:
    content = (exports / name / FILES[name]).read_bytes()
    shutil.copytree(exports / name, tmp_path / "out")
    path = tmp_path / "out" / FILES[name]

    @given(EDITS, st.none() | st.floats(0, 1))
    @SETTINGS
    def check(edits: list[tuple[float, int, bytes]], end: float | None) -> None:
        data = content
        for place, length, new in edits:
            at = int(place * len(data))
            data = data[:at] + new + data[at + length :]
        path.write_bytes(data if end is None else data[: int(end * len(data))])
        read(run, name, tmp_path / "out")

    check()


@pytest.mark.parametrize("name", ["png", "class-folders"])
def test_edited_images_are_read_or_refused(run: Run, exports: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(exports / name, tmp_path / "out")
    images = sorted(path for part in ("labels", "masks") for path in (tmp_path / "out" / part).rglob("*.png"))
    contents = [path.read_bytes() for path in images]

    @given(st.integers(0, len(images) - 1), EDITS)
    @SETTINGS
    def check(number: int, edits: list[tuple[float, int, bytes]]) -> None:
        data = contents[number]
        for place, length, new in edits:
            at = int(place * len(data))
            data = data[:at] + new + data[at + length :]
        images[number].write_bytes(data)
        read(run, name, tmp_path / "out")
        images[number].write_bytes(contents[number])

    check()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([10**4000, "0-0-0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON document; of a long list only the first entries."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


@pytest.mark.parametrize("name", ["label-studio", "coco", "png"])
def test_any_value_may_be_anything(run: Run, exports: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(exports / name, tmp_path / "out")
    text = (exports / name / FILES[name]).read_text()
    every = places(json.loads(text))

    @given(st.sampled_from(every), VALUES)
    @SETTINGS
    def check(place: tuple, value: Any) -> None:
        document = {"root": json.loads(text)}
        node, *keys = document, "root", *place
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        (tmp_path / "out" / FILES[name]).write_text(json.dumps(document["root"]))
        read(run, name, tmp_path / "out")

    check()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_other_files_and_folders_are_refused(run: Run, exports: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "zip").write_bytes(b"PK\x03\x04")
    for path in (tmp_path / "empty", tmp_path / "nothing", tmp_path / "zip", Path("/dev/null"), tmp_path / ("x" * 300)):
        assert read(run, name, path) == {}
    for other in FORMATS:  # the export of another tool brings nothing that is not there
        found = read(run, name, exports / other)
        assert all(found[qid] == run.expected()[qid] for qid in found)
