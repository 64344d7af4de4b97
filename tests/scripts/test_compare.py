"""Rows that start from the network of ``source only``."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

import compare
from compare import Record, Runs, folder_of, run_script
from rows import FROM_SOURCE_ONLY, FROM_STAGE, ROWS

RESULT = {
    "mIoU": 40.0,
    "per_class_iou": {},
    "labelled_fraction": 0.022,
    "max_steps": 400,
    "seconds": {"training": 60.0},
    "evaluations": [],
    "rounds": [],
    "provenance": {"commit": "abc"},
}
FREE = sorted(FROM_SOURCE_ONLY)


def test_the_help_names_every_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "--help"])
    with pytest.raises(SystemExit):
        compare.main()
    said = "".join(capsys.readouterr().out.split())
    assert all("".join(row.split()) in said for row in ROWS)


def test_a_damaged_record_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path / "record.jsonl")
    assert record.find([]) == {}
    record.add("RA RIPU", 0, [], RESULT)
    with record.path.open("a") as file:
        file.write('{"row": "RA')
    with pytest.raises(SystemExit, match="1"):
        run_script(lambda: print(record.find([])))
    assert f'error: {record.path}, line 2: \'{{"row": "RA\' is not JSON' in capsys.readouterr().err


@pytest.mark.parametrize("rows", [FREE, ["source only", *FREE]])
def test_rows_that_begin_together_share_one_network(
    rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    together = threading.Barrier(len(FREE), timeout=60)

    def run(self: Runs, log: Path, words: list[str], threads: int) -> int:
        order.append(log.parent.name)
        if "setting=source_only" not in words:
            together.wait()  # all of them run at the same time
        (log.parent / "results.json").write_text(json.dumps(RESULT))
        return 0

    monkeypatch.setattr(Runs, "_run", run)
    runs = Runs(tmp_path, rows, [0], ["dataset=streets"])
    assert runs.make(jobs=len(FREE), threads=1) == []
    assert order[0] == "source-only-seed0"
    assert sorted(order[1:]) == sorted(folder_of(tmp_path, row, 0).name for row in FREE)
    assert set(runs.results()) == {(row, 0) for row in rows}


def test_stages_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []

    def run(self: Runs, log: Path, words: list[str], threads: int) -> int:
        previous = next((word for word in words if word.startswith("method.previous=")), "")
        done.append((log.parent.name, previous))
        (log.parent / "results.json").write_text(json.dumps(RESULT))
        return 0

    monkeypatch.setattr(Runs, "_run", run)
    rows = [*reversed(FROM_STAGE)]
    assert Runs(tmp_path, rows, [0], ["dataset=streets"]).make(jobs=2, threads=1) == []
    before = [f"method.previous={tmp_path}/{name}-seed0/checkpoints/final.ckpt" for name in ("proda", "proda-stage-2")]
    assert done == [
        ("proda-seed0", ""),
        ("proda-stage-2-seed0", before[0]),
        ("proda-stage-3-seed0", before[1]),
    ]


def test_translated_images_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, list[str]]] = []

    def run(self: Runs, log: Path, words: list[str], threads: int, module: str = "ripu.train") -> int:
        done.append((module, words))
        if module == "ripu.translate":
            self.translated.mkdir()
        else:
            (log.parent / "results.json").write_text(json.dumps(RESULT))
        return 0

    monkeypatch.setattr(Runs, "_run", run)
    runs = Runs(tmp_path, ["DPL-Dual"], [0, 1], ["dataset=streets", "dataset.generator_seed=1", "trainer.max_steps=9"])
    assert runs.make(jobs=2, threads=1) == []
    assert [module for module, _ in done] == ["ripu.translate", "ripu.train", "ripu.train"]
    folder = tmp_path / "translated"
    assert done[0][1] == ["dataset=streets", "dataset.generator_seed=1", f"output={folder}"]
    assert all(f"method.translated={folder}" in words for _, words in done[1:])


def test_without_its_network_a_row_fails_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def run(self: Runs, log: Path, words: list[str], threads: int) -> int:
        tried.append(log.parent.name)
        if "seed=0" in words:
            return 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Runs, "_run", run)
    failures = Runs(tmp_path, FREE, [0, 1], ["dataset=streets"]).make(jobs=2, threads=1)
    assert sorted(tried) == ["source-only-seed0", "source-only-seed1"]
    said = f"the run that it starts from failed (source only, seed 0: see {tmp_path}/source-only-seed0/log.txt)"
    assert failures[: len(FREE)] == [f"{row}, seed 0: {said}" for row in FREE]
    assert all(
        "seed 1: the run" in failure and "No space left on device" in failure for failure in failures[len(FREE) :]
    )
