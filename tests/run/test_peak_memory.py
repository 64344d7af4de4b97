"""The peak memory of a process belongs to one run, whatever ran before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ripu.io import peak_memory
from ripu.io.peak_memory import begin_process_peak, process_peak_gib
from ripu.run.memory import begin_peak, keep_freed_memory
from running import environment

LARGE = 256 * 2**20

needs_linux = pytest.mark.skipif(not peak_memory.CLEAR_REFS.exists(), reason="only Linux begins a peak anew")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory._Peak, "has_begun", False)
    monkeypatch.setattr(peak_memory._Peak, "is_of_another", False)


def peak() -> float:
    value = process_peak_gib()
    assert value is not None
    return value


@needs_linux
def test_a_run_does_not_have_the_peak_of_the_run_before_it() -> None:
    keep_freed_memory()  # as a run on a CPU does
    begin_peak()
    before = peak()
    block = bytearray(LARGE)
    del block
    assert peak() >= before + 0.2
    begin_peak()
    assert peak() < before + 0.1


@needs_linux
def test_a_process_does_not_have_the_peak_of_the_one_that_started_it() -> None:
    block = bytearray(LARGE)
    code = "from ripu.io.peak_memory import process_peak_gib; print(process_peak_gib())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < len(block) / 2**30


def test_without_a_way_to_begin_anew_only_the_first_run_has_a_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLEAR_REFS", "STATUS"):
        monkeypatch.setattr(peak_memory, name, tmp_path / "missing" / name)
    assert peak() > 0  # that of ru_maxrss
    begin_process_peak()
    assert peak() > 0
    begin_process_peak()
    assert process_peak_gib() is None


def test_windows_has_no_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "STATUS", tmp_path / "missing")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert process_peak_gib() is None
