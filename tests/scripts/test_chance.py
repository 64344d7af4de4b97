"""The study of when a score beats random regions: its runs, and the page that it writes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmark
import chance
import study
from chance import PARTS, SCORES, Condition, Study
from compare import Record
from running import ROOT, environment, spec
from study_frame import DATA, SMALL_SETS

COMMON = ("evaluation.pictures=0", "evaluation.gallery=0", "data.num_workers=1")
CONDITIONS = list(dict.fromkeys(one for part in PARTS.values() for one in part.conditions))


def result(miou: float, before: float) -> dict[str, Any]:
    return {
        "mIoU": miou,
        "per_class_iou": {},
        "labelled_fraction": 0.022,
        "max_steps": 700,
        "seconds": {"training": 60.0},
        "evaluations": [{"step": 410, "mIoU": before}],
        "rounds": [{"step": 410, "labelled_fraction": 0.0044, "mIoU": miou / 2, "picks": 9}],
        "provenance": {"commit": "abc", "device": "cpu", "command": ""},
    }


@pytest.mark.parametrize("name", SMALL_SETS)
@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_every_run_is_a_valid_one(name: str, condition: Condition, tmp_path: Path) -> None:
    for row in (*SCORES, *(f"RA {one}" for one in chance.PLUG_INS)):
        words = Study(tmp_path, SMALL_SETS[name][1], [0], [], Record(tmp_path / "r")).runs(condition, [0]).words(row, 0)
        made = spec(*words)
        assert made.plan.pretrain_steps == condition.pretrain_steps
        assert made.plan.max_steps == condition.pretrain_steps + chance.STEPS
        assert [step - condition.pretrain_steps for step in made.plan.selection_steps] == list(chance.ROUNDS)
        assert made.query is not None
        assert made.query.budget == condition.budget
        assert made.query.radius == condition.radius


def test_the_page_has_what_is_finished(tmp_path: Path) -> None:
    record = Record(tmp_path / "chance.jsonl")
    study = Study(tmp_path, SMALL_SETS["streets"][1], [0, 1, 2], ["evaluation.pictures=0"], record)
    for pretrain, gain in ((0, -2.0), (1000, 3.0)):
        runs = study.runs(Condition(pretrain_steps=pretrain), [0, 1, 2])
        for seed in runs.seeds:
            for row, more in zip(SCORES, (0.0, 1.0, gain, 0.5), strict=True):
                record.add(row, seed, runs.overrides, result(30.0 + seed + more, before=10.0 + pretrain / 100))
    screened = Study(tmp_path, chance.SCREEN, [0, 1, 2], ["evaluation.pictures=0"], record)
    runs = screened.runs(Condition(), [0, 1, 2])
    for seed in runs.seeds:
        for row, more in zip(chance.SCREENED, (0.0, 1.0, 4.0), strict=False):
            record.add(row, seed, runs.overrides, result(20.0 + seed + more, before=10.0))
    page = chance.report({SMALL_SETS["streets"][0]: study}, screened, "python scripts/chance.py")
    assert "| random | 21.0 ± 1.0 |  |" in page
    assert "| pixelpick | 25.0 ± 1.0 | holds (4.0 ± 0.0, n = 3) |" in page
    assert "density |" not in page
    assert "24 of 84 runs" in page
    line = next(line for line in page.splitlines() if line.startswith("| 1000 | 20.0 ± 0.0 |"))
    assert "| 31.0 ± 1.0 | 32.0 ± 1.0 | 34.0 ± 1.0 | 31.5 ± 1.0 |" in line
    assert "holds (3.0 ± 0.0, n = 3)" in line
    assert "| 0 | 10.0 ± 0.0 |" in page
    assert "REVERSED (-2.0 ± 0.0, n = 3)" in page
    assert "| 160 |" not in page


def test_a_pooled_line_names_its_data_sets(tmp_path: Path) -> None:
    record = Record(tmp_path / "chance.jsonl")
    studies = {}
    for name, rows in (("streets", SCORES), ("camvid", ("RA random", "RA RIPU"))):
        title, overrides = SMALL_SETS[name]
        studies[title] = Study(tmp_path, overrides, [0, 1, 2], ["evaluation.pictures=0"], record)
        runs = studies[title].runs(Condition(), [0, 1, 2])
        for seed in runs.seeds:
            for row in rows:
                record.add(row, seed, runs.overrides, result(30.0 + seed + (row == "RA RIPU"), before=10.0))
    lines = chance.together(PARTS["network"], studies)
    (line,) = [line for line in lines if line.startswith("| 400 |")]
    assert line.split(" | ")[1:] == [
        "streets, generator seed 0; CamVid, day -> dusk",
        "streets, generator seed 0: not decided (0.0 ± 0.0, n = 3)",
        "holds (1.0 ± 0.0, n = 6)",
        "streets, generator seed 0: not decided (0.0 ± 0.0, n = 3) |",
    ]


def test_conditions_differ_in_one_thing() -> None:
    for part in PARTS.values():
        first = dataclasses.asdict(part.conditions[0])
        for other in part.conditions[1:]:
            assert {key for key, value in dataclasses.asdict(other).items() if value != first[key]} == {part.label}


def test_the_studies_have_the_same_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--data", "streets", "seed=1", "--jobs", "3", "--seeds", "0", "2"])
    parser = study.study_parser("words", "chance", "page")
    frame = study.Frame.parse(parser, "page")
    assert frame.page == Path("runs/chance/page.md")  # with overrides it is another study
    assert frame.common() == frame.common("camvid") == [*COMMON, "seed=1"]
    assert vars(frame.arguments) == {
        "out": Path("runs/chance"),
        "report": None,
        "record": None,
        "data_root": None,
        "data": ["streets"],
        "seeds": [0, 2],
        "jobs": 3,
        "threads": 1,
        "no_runs": False,
        "overrides": ["seed=1"],
    }
    assert "docs/studies/page.md" in parser.format_help()
    assert list(SMALL_SETS) == list(study.SETS) == list(DATA)
    for module, own in ((study, "--tables"), (chance, "--parts"), (benchmark, "--systems")):
        monkeypatch.setattr(sys, "argv", ["x.py", "--data", "camvid"])
        with pytest.raises(SystemExit):
            module.main()
        assert "--data camvid needs --data-root" in capsys.readouterr().err
        monkeypatch.setattr(sys, "argv", ["x.py", "--help"])
        with pytest.raises(SystemExit):
            module.main()
        options = capsys.readouterr().out
        assert own in options
        assert f"docs/studies/{'results' if module is study else module.__name__}.jsonl" in options


def test_without_runs_the_page_is_written_from_the_record(tmp_path: Path) -> None:
    words = ["scripts/chance.py", "--no-runs", "--report", str(tmp_path / "page.md"), "--record", str(tmp_path / "r")]
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), check=True)
    assert (tmp_path / "page.md").read_text().startswith("# When a score beats chance")
