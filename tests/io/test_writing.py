from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import numpy as np
import pytest

import ripu
from ripu.io.writing import AtomicFile, WriteError, write_bytes, write_json


def test_a_file_appears_whole_and_nothing_is_left(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"b": [1]})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "b": [\n  1\n ]\n}\n'
    with AtomicFile(tmp_path / "new" / "a.json") as file:
        file.write(b"never published")
    assert (tmp_path / "new" / "a.json").read_bytes().startswith(b"{")
    with AtomicFile(tmp_path / "array.npy") as file:
        np.save(file, np.arange(5))
        file.publish()
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), np.arange(5))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "array.npy", "new"]


def test_a_durable_file_is_synced_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        calls.append("folder" if Path(os.readlink(f"/proc/self/fd/{handle}")) == tmp_path else "file")
        fsync(handle)

    def spy_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_bytes(tmp_path / "a", b"1")
    write_bytes(tmp_path / "a", b"2", durable=True)
    assert calls == ["rename", "file", "rename", "folder"]


def test_a_refused_write_names_the_file_the_cause_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a cannot be written: a file is in the way of a folder"):
        write_bytes(tmp_path / "file" / "a", b"")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match=r"a cannot be written: the disk .* is full; free some space$"):
        write_bytes(tmp_path / "a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_module_renames_and_one_locks() -> None:
    root = Path(ripu.__file__).parent
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not calls & {"os.replace", "os.rename"} or path == root / "io" / "writing.py"
        assert not modules & {"fcntl", "msvcrt", "filelock"} or path == root / "io" / "lock.py"
