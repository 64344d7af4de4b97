"""Arrays and JSON of somebody else: small files that claim much, and files that are something else."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripu.io.reading import UntrustedError, parse_xml, read_array, read_arrays, read_json, read_yaml

FORM = {"ids": ("integer", 2), "largest": ("number", 0)}
IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def head(text: str) -> bytes:
    """The head of an ``.npy`` file, with whatever it claims, and nothing behind it."""
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def pack(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_what_numpy_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for write in (np.savez, np.savez_compressed):
        for ids in (IDS, np.asfortranarray(IDS), np.zeros((0, 4), np.int64)):
            write(path, ids=ids, largest=0.5, more=np.ones(3))
            found = read_arrays(path, FORM)
            assert found.keys() == FORM.keys()
            np.testing.assert_array_equal(found["ids"], ids)
            assert found["largest"] == 0.5
            found["ids"][...] = 1
    np.save(tmp_path / "b.npy", np.array([[True, False]]))
    assert read_array(tmp_path / "b.npy", "bool", 2).tolist() == [[True, False]]
    np.savez(path, ids=IDS)
    assert read_arrays(path, FORM, optional=True).keys() == {"ids"}


CLAIMS = {
    "object": npy(np.array([[{}]], dtype=object)),
    "text": npy(np.array([["a"]])),
    "record": npy(np.zeros((1, 1), dtype=[("a", "u1")])),
    "floats": npy(np.zeros((1, 1))),
    "another number of axes": npy(np.zeros(3, np.uint8)),
    "more than is there": head("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000)}"),
    "less than is there": head("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 5)}") + b"abc",
    "negative": head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -3)}") + b"abc",
    "beyond any number": head("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 1)}"),
    "a call": head("{'descr': __import__('os').mkdir('made'), 'fortran_order': False, 'shape': (1, 1)}"),
    "deep": head("(" * 9000),
    "no head": b"",
    "half a head": npy(IDS)[:20],
    "another format": b"\x93NUMPY\x09\x00" + npy(IDS)[8:],
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_array_that_is_none_is_named(claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = CLAIMS[claim]
    path = pack(tmp_path / "a.npz", ids=data, largest=npy(0.5))
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UntrustedError, match=r"a\.npz"):
        read_arrays(path, FORM)
    with pytest.raises(UntrustedError, match=r"a\.npy"):
        read_array(tmp_path / "a.npy", "integer", 2)
    assert not (tmp_path / "made").exists()


def test_a_bomb_is_refused_by_what_it_claims(tmp_path: Path) -> None:
    zeros = head("{'descr': '|u1', 'fortran_order': False, 'shape': (20000, 20000)}") + bytes(20000 * 20000)
    path = pack(tmp_path / "bomb.npz", ids=zeros, largest=npy(0.5))
    del zeros
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(UntrustedError, match=r"bomb\.npz claims 4\d{8} bytes unpacked"):
        read_arrays(path, FORM)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_parts_that_lie_about_their_size(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npz", ids=npy(np.zeros((300, 300), np.uint8)), largest=npy(0.5))
    data = path.read_bytes()
    size = (90_128).to_bytes(4, "little")
    assert data.count(size) == 2  # in the head of the part and in the directory
    for other in (100, 2**31):
        path.write_bytes(data.replace(size, other.to_bytes(4, "little")))
        with pytest.raises(UntrustedError, match=r"a\.npz"):
            read_arrays(path, FORM)


def test_many_parts_and_parts_of_one_name(tmp_path: Path) -> None:
    path = pack(tmp_path / "many.npz", **{f"a{number}": b"" for number in range(70)})
    with pytest.raises(UntrustedError, match="contains 70 parts"):
        read_arrays(path, FORM)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", npy(IDS))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("ids.npy", npy(IDS + 1))
    with pytest.raises(UntrustedError, match="twice"):
        read_arrays(path, FORM)


@pytest.mark.parametrize("cut", [0, 1, 50, -1, -30])
def test_what_is_cut_off_is_named(cut: int, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npz", ids=npy(IDS), largest=npy(0.5))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UntrustedError, match=r"a\.npz"):
        read_arrays(path, FORM)


READERS: tuple[Callable[[Path], Any], ...] = (
    read_json,
    read_yaml,
    lambda path: read_array(path, "integer", 2),
    lambda path: read_arrays(path, FORM),
)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_does_not_hold_the_reader_up(read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name, says in (("pipe", "not a regular file"), ("endless", "not a regular file"), ("huge", "more than")):
        with pytest.raises(UntrustedError, match=says):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00", b"9" * 5000, b"nope", b"\x00" * 10]
)
def test_json_that_is_none_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UntrustedError, match=r"a\.json is not JSON"):
        read_json(path)


@pytest.mark.parametrize(
    "text",
    [b"a: [1", b"[" * 20_000, b"a: \xff", b"a: &x [1]\nb: *x\n", b"a: !!python/object/apply:os.getcwd []", b"\x00"],
)
def test_yaml_that_is_none_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text)
    with pytest.raises(UntrustedError, match=r"a\.yaml (is not YAML|refers to parts of itself)") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", None])
@pytest.mark.parametrize("use", ["<x>&a9;</x>", "<x a='&a9;'/>", "<x/>"])
@pytest.mark.parametrize("before", ["", "<!-- a --><?b c?>"])
def test_xml_with_a_document_type_is_refused_before_any_entity(encoding: str | None, use: str, before: str) -> None:
    """``a9`` has two gigabytes."""
    laughs = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    head = "" if encoding is None else f"<?xml version='1.0' encoding='{encoding}'?>"
    bomb = f"{head}{before}<!DOCTYPE x [<!ENTITY a0 'ha'>{laughs}<!ATTLIST x b CDATA '&a9;'>]>{use}"
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(ValueError, match="declares a document type or an entity"):
        parse_xml(bomb if encoding is None else bomb.encode(encoding))
    assert time.monotonic() - began < 1.0
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_what_looks_like_a_declaration_behind_the_first_element_is_not_xml() -> None:
    with pytest.raises(ValueError, match="it is not XML"):
        parse_xml("<a><!DOCTYPE x [<!ENTITY b 'c'>]>&b;</a>")


@pytest.mark.parametrize(
    "text", [b"", b"<a>", b"<a></b>", b"\xff", b"<a>&b;</a>", b"<?xml version='1.0' encoding='none'?><a/>", "\ud800"]
)
def test_xml_that_is_none_is_named(text: bytes | str) -> None:
    with pytest.raises(ValueError, match="it is not XML"):
        parse_xml(text)


def test_xml_is_read() -> None:
    root = parse_xml(b"<a b='1'><!-- <!DOCTYPE> --><![CDATA[<!DOCTYPE>]]></a>")
    assert (root.tag, root.attrib, root.text) == ("a", {"b": "1"}, "<!DOCTYPE>")
