"""Differences between systems: shell quoting, replacing a file in use, terminals, and modules found only on POSIX."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ripu
from ripu.io import console, writing
from ripu.io.errors import line_of

POSIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_no_module_needs_posix_to_be_imported() -> None:
    for path in Path(ripu.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:  # those at the top; others have to be guarded
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert POSIX_ONLY.isdisjoint(names), path


def test_text_files_are_read_as_utf_8_on_every_system() -> None:
    for path in Path(ripu.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if isinstance(node, ast.Call) and name in ("read_text", "write_text"):
                assert node.args or any(word.arg == "encoding" for word in node.keywords), f"{path}:{node.lineno}"


def test_printed_commands_are_quoted_for_the_shell_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [console.override("paths.output_dir", r"C:\runs\José (2)")]
    posix = console.command_line("train", words)
    monkeypatch.setattr(os, "name", "nt")
    windows = console.command_line("train", words)
    assert posix == "python -m ripu.train " + "'paths.output_dir='\"'\"'" + r"C:\runs\José (2)" + "'\"'\"''"
    assert windows == r'''python -m ripu.train "paths.output_dir='C:\runs\José (2)'"'''


def test_renaming_waits_for_a_reader_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for Windows, which refuses to replace a file while anybody has it open."""
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    replace, refusals = os.replace, [PermissionError(), PermissionError()]

    def busy(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(writing, "_IS_WINDOWS", True)
    monkeypatch.setattr(os, "replace", busy)
    writing.publish(new, old)
    assert old.read_bytes() == b"new"
    assert not new.exists()


def test_a_terminal_without_a_character_gets_its_code() -> None:
    code = "from ripu.io.signals import guard_start; guard_start('__main__'); print('José ± 1')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.split() == [b"Jos\\xe9", b"\\xb1", b"1"]


def test_a_full_shared_memory_is_named() -> None:
    error = RuntimeError(
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit."
    )
    line = line_of(error)
    assert line is not None
    assert "--shm-size=8g" in line
    assert "data.num_workers=0" in line
