"""Scripts around many runs: records of finished runs, verdicts and reports."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import compare
import study
from compare import Record, Runs, folder_of, made_with, pair_table, paired, row_table
from ripu.config.checks import checked_spec
from running import ROOT, compose


def result(miou: float, **more: Any) -> dict[str, Any]:
    return {
        "mIoU": miou,
        "per_class_iou": {"road": miou, "train": None},
        "labelled_fraction": 0.022,
        "max_steps": 400,
        "seconds": {"training": 60.0},
        "evaluations": [{"step": 160, "mIoU": 8.0}, {"step": 168, "mIoU": 9.0}],
        "rounds": [{"step": 168, "labelled_fraction": 0.0044, "mIoU": miou / 2, "picks": 9}],
        "provenance": {"commit": "abc", "threads": 1, "command": "python -m ripu.train paths.output_dir=/home/x"},
        **more,
    }


def finish(folder: Path, made: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(made))


def test_a_finished_run_is_recorded_once_and_not_made_again(tmp_path: Path) -> None:
    words = ["dataset=streets", "evaluation.pictures=0", "paths.data_root=/somewhere"]
    record = Record(tmp_path / "record.jsonl")
    here = Runs(tmp_path / "here", ["RA RIPU", "all labels"], [0], words, record)
    for row, miou in (("RA RIPU", 40.0), ("all labels", 50.0)):
        finish(folder_of(here.out, row, 0), result(miou))
    here.make(jobs=2, threads=1)
    here.make(jobs=2, threads=1)
    text = record.path.read_text()
    assert len(text.splitlines()) == 2
    assert "/home" not in text
    assert "paths." not in text
    elsewhere = Runs(tmp_path / "there", ["RA RIPU", "all labels"], [0], ["dataset=streets"], record)
    elsewhere.make(jobs=2, threads=1)  # would train for minutes if it did not find them
    assert not (tmp_path / "there").exists()
    assert {key: one["mIoU"] for key, one in elsewhere.results().items()} == {
        ("RA RIPU", 0): 40.0,
        ("all labels", 0): 50.0,
    }
    assert "| all labels - RA RIPU | 10.0 | 1 | 1 of 1 | 1 of 1 |" in pair_table(
        elsewhere.results(), study_pairs(), [0]
    )


def study_pairs() -> tuple[tuple[str, str], ...]:
    return study.TABLES["ends"].pairs


def test_other_settings_are_other_runs(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.add("RA RIPU", 0, ["dataset=streets"], result(40.0))
    assert not record.find(["dataset=streets", "trainer.max_steps=800"])
    assert not record.find(["dataset=streets", "dataset.generator_seed=1"])
    assert len(record.find(["data.num_workers=1", "dataset=streets", "logger=wandb"])) == 1


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([4.0, 4.5, 3.6], "holds (4.0 ± 0.5, n = 3)"),
        ([-4.0, -4.5, -3.6], "REVERSED (-4.0 ± 0.5, n = 3)"),
        ([2.0, 3.0], "not decided (2.5 ± 0.7, n = 2, all in favour)"),  # t = 5 with one degree of freedom: p = 0.13
        ([-2.0, -3.0], "not decided (-2.5 ± 0.7, n = 2, all against)"),
        ([1.0, 2.0, 3.4], "not decided (2.1 ± 1.2, n = 3, all in favour)"),  # t = 3.06 of 4.30
        ([-1.0, 2.0, 3.4], "not decided (1.5 ± 2.2, n = 3)"),
        ([1.0], "one seed: not decided (1.0)"),
        ([], "no run"),
    ],
)
def test_an_order_is_decided_by_a_paired_t_test(differences: list[float], said: str) -> None:
    found = {("a", seed): result(40.0 + difference) for seed, difference in enumerate(differences)}
    found |= {("b", seed): result(40.0) for seed in range(3)}
    assert study.verdict(paired(found, "a", "b", [0, 1, 2])) == said


def test_a_data_set_without_runs_of_a_table_has_no_part_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.add("table6/rectangles", 0, study.CAMVID, result(36.0))
    record.add("RA RIPU", 0, study.STREETS, result(40.0))
    words = ["--report", tmp_path / "results.md", "--record", record.path, "--out", tmp_path / "runs"]
    words += ["--no-runs", "--tables", "table6", "table10", f"--data-root={tmp_path}/my data/"]
    monkeypatch.setattr(sys, "argv", ["study.py", *map(str, words)])
    study.main()
    text = (tmp_path / "results.md").read_text()
    shapes, edges = text[text.index("## Table 6") :].split("## Table 10: an edge detector\n\n")
    assert "| the paper's order | CamVid, day -> dusk |" in shapes
    assert "streets, generator" not in shapes
    assert edges.startswith("No runs yet.")
    assert "--data-root=FOLDER`" in text
    assert "my data" not in text


def test_the_report_is_written_from_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "record.jsonl")
    for seed, (ours, random) in enumerate([(40.0, 36.0), (41.0, 36.5), (39.0, 35.4)]):
        record.add("table3/gtav_a", seed, study.STREETS, result(ours))
        before = [{"step": 168, "mIoU": 9.0 if seed else 9.1}]
        record.add("table3/gtav_rand", seed, study.STREETS, result(random, evaluations=before))
    record.add("table3/gtav_b", 1, study.STREETS, result(30.0))
    words = ["--out", tmp_path / "runs", "--report", tmp_path / "results.md", "--record", record.path]
    monkeypatch.setattr(
        sys, "argv", ["study.py", *map(str, words), "--no-runs", "--tables", "table3", "--data", "streets"]
    )
    study.main()
    text = (tmp_path / "results.md").read_text()
    assert "7 of 243 runs are finished." in text  # the page covers everything, whatever is run
    assert "- hold (1 of 24): (a) impurity above random regions." in text
    assert "| (a) impurity - random regions | 4.0 ± 0.5 | 3 | 3 of 3 | 2 of 3 |" in text
    assert "| (a) impurity above random regions | holds (4.0 ± 0.5, n = 3) |" in text
    assert "| (b) uncertainty above random regions | one seed: not decided (-6.5) |" in text
    assert "| (c) both above (a) impurity | no run |" in text
    assert "| (a) impurity | 2.20 % | 40.0 ± 1.0 | 40.0 | 41.0 | 39.0 | 68.1 | `table3/gtav_a` |" in text
    assert row_table({}, ["table3/gtav_a"], [0]) == row_table({}, [], [0])  # a row without runs is left out
    record.add("table3/gtav_a", 4, study.STREETS, result(42.0))
    study.main()
    assert "| 40.0 | 41.0 | 39.0 | 42.0 | 68.1 |" in (tmp_path / "results.md").read_text()


def test_the_commands_of_the_docs_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Runs] = []
    monkeypatch.setattr(
        Runs, "make", lambda self, jobs, threads: seen.append(self) or self.out.mkdir(parents=True, exist_ok=True) or []
    )
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "experiments.md").read_text()
    commands = re.findall(r"^    python scripts/compare\.py (.*)$", page, re.MULTILINE)
    assert len(commands) >= 2
    for words in commands:
        monkeypatch.setattr(sys, "argv", ["compare.py", *shlex.split(words)])
        compare.main()
        known = ("dataset=", "paths.", "trainer.", *study.PLAIN)
        assert all(word.startswith(known) for word in seen[-1].overrides)
        assert len(seen[-1].overrides) == words.count("=")
    assert seen[0].seeds == [0, 1]
    assert seen[-1].rows == ["RA random", "RA RIPU"]
    page = (ROOT / "docs" / "training.md").read_text()
    seen.clear()
    for words in re.findall(r"^    python scripts/compare\.py (.*)$", page, re.MULTILINE):
        monkeypatch.setattr(sys, "argv", ["compare.py", *shlex.split(words)])
        compare.main()
    assert [(runs.rows, runs.seeds) for runs in seen] == [
        (["RA RIPU"], [0, 1, 2]),
        (["source only"], [0, 1, 2]),
        (["all labels"], [0, 1, 2]),
        (["target only"], [0, 1, 2]),
        (["RA teacher"], [0]),
    ]
    (words,) = re.findall(
        r"^    python scripts/compare\.py (.*)$", (ROOT / "docs" / "selection.md").read_text(), re.MULTILINE
    )
    monkeypatch.setattr(sys, "argv", ["compare.py", *shlex.split(words)])
    compare.main()
    assert seen[-1].rows == ["RA random", "RA RIPU", "RA RIPU after random"]
    checked_spec(compose(*seen[-1].words(seen[-1].rows[-1], 0)))


def test_differences_of_all_data_sets_decide_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "record.jsonl")
    for _, words in (study.SETS["streets"], study.SETS["streets1"]):
        for seed, difference in enumerate((1.0, 3.0, 4.0)):
            record.add("table6/rectangles", seed, words, result(36.0))
            record.add("RA RIPU", seed, words, result(36.0 + difference))
    words = [
        "--report",
        tmp_path / "results.md",
        "--record",
        record.path,
        "--out",
        tmp_path / "runs",
        "--tables",
        "table6",
    ]
    monkeypatch.setattr(sys, "argv", ["study.py", *map(str, words), "--no-runs"])
    study.main()
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| the paper's order | streets, generator seed 0 | streets, generator seed 1 | all together |" in lines
    one, both = "not decided (2.7 ± 1.5, n = 3, all in favour)", "holds (2.7 ± 1.4, n = 6)"
    assert f"| RA RIPU above fixed rectangles | {one} | {one} | {both} |" in lines
    assert "- hold (1 of 24): RA RIPU above fixed rectangles." in lines


def test_failures_are_reported_and_the_other_runs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Runs, log: Path, words: list[str], threads: int) -> int:
        if "setting=source_only" in words:
            raise OSError(28, "No space left on device")
        if "setting=fully_supervised" in words:
            return 1
        (log.parent / "results.json").write_text(json.dumps(result(40.0)))
        return 0

    monkeypatch.setattr(Runs, "_run", run)
    words = ["--out", tmp_path, "--data", "streets", "--tables", "ends", "--seeds", "0", "--", "trainer.max_steps=20"]
    monkeypatch.setattr(sys, "argv", ["study.py", *map(str, words)])
    with pytest.raises(SystemExit, match="3 runs failed") as caught:
        study.main()
    assert "No space left" in str(caught.value)
    assert "all labels, seed 0: see " in str(caught.value)
    assert "done: RA RIPU, seed 0" in capsys.readouterr().out
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2  # beside the runs: it is another study
    monkeypatch.setattr(sys, "argv", ["study.py", "--data", "camvid"])
    with pytest.raises(SystemExit):
        study.main()
    assert "--data camvid needs --data-root" in capsys.readouterr().err


def test_a_folder_with_runs_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    runs = Runs(tmp_path / "runs", ["RA RIPU"], [0], ["dataset=streets"], record)
    folder = folder_of(runs.out, "RA RIPU", 0)
    finish(folder, result(40.0))
    (folder / "config.yaml").touch()
    made_with(folder).write_text(json.dumps(["RA RIPU", "dataset=streets", "trainer.max_steps=20"]))
    (failure,) = runs.make(jobs=1, threads=1)
    assert "contains a run with other overrides; give another --out" in failure
    assert not record.path.exists()
    assert not runs.results()
    made_with(folder).write_text(json.dumps(["RA RIPU", "dataset=streets"]))
    assert not runs.make(jobs=1, threads=1)
    assert len(record.find(["dataset=streets"])) == 1


TRAINS = """
import pathlib, signal, sys, time
(folder,) = (word.partition("=")[2] for word in sys.argv if word.startswith("paths.output_dir="))

def leave(number, frame):
    pathlib.Path(folder, "stopped").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, leave)
pathlib.Path(folder, "started").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_runs_under_way_and_begins_no_other(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "ripu").mkdir()
    rest = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)'  # everything but train is the real one
    (tmp_path / "ripu" / "__init__.py").write_text(rest)
    (tmp_path / "ripu" / "train.py").write_text(TRAINS)
    words = [
        "--out",
        tmp_path / "runs",
        "--rows",
        "PA RIPU",
        "RA RIPU",
        "all labels",
        "--seeds",
        "0",
        "1",
        "--jobs",
        "2",
    ]
    script = ROOT / "scripts" / "compare.py"
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("runs/*/started"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "stopped; repeat the command to resume\n")
    assert len(list(tmp_path.glob("runs/*/stopped"))) == 2
    assert len(list(tmp_path.glob("runs/*/log.txt"))) == 2
