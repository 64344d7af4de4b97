"""The benchmark of methods: its runs, and the page that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import GROUPS, OURS, SYSTEMS
from compare import Record, Runs
from ripu.config.checks import checked_spec
from ripu.config.validate import config_dir
from ripu.report.benchmark import make_rows, paper_figures, read_runs
from rows import FROM_SOURCE_ONLY, FROM_STAGE, FROM_TRANSLATED, ROWS
from running import compose
from study_frame import SMALL_SETS


def result(miou: float) -> dict[str, Any]:
    return {
        "mIoU": miou,
        "per_class_iou": {},
        "labelled_fraction": 0.022,
        "max_steps": 750,
        "seconds": {"training": 60.0, "evaluation": 3.0},
        "peak_memory_gib": {"process": 1.5, "device": None},
        "evaluations": [],
        "rounds": [
            {
                "step": 300 + step,
                "labelled_fraction": 0.0044 * (1 + step),
                "mIoU": miou - 4 + step,
                "clicks": 9 * (1 + step),
                "labelled_pixels": 90 * (1 + step),
            }
            for step in range(5)
        ],
        "provenance": {"commit": "abc", "device": "cpu", "command": ""},
    }


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.row)
def test_every_run_is_a_valid_one(system: benchmark.System, tmp_path: Path) -> None:
    for name, (_, overrides) in SMALL_SETS.items():
        words = Runs(tmp_path / name, [system.row], [0], overrides).words(system.row, 0)
        made = checked_spec(compose(*words))
        assert (made.model_checkpoint is not None) == (system.row in FROM_SOURCE_ONLY)
        for key, rows in (("previous", FROM_STAGE), ("translated", FROM_TRANSLATED)):
            assert ((made.method.node or {}).get(key) is not None) == (system.row in rows)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.row)
def test_the_page_of_the_record_has_the_figures_of_the_paper(system: benchmark.System) -> None:
    assert paper_figures(system.row) == (system.gtav, system.synthia)


def test_a_record_keeps_what_its_page_shows(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.jsonl"
    rounds = [{**one, "clicks": 20 * n, "labelled_pixels": 90 * n} for n, one in enumerate(result(40.0)["rounds"], 1)]
    facts = {"dataset": "streets", "setting": "active", "mode": "ra", "method": "ripu"}
    Record(path).add(OURS, 0, ["dataset=streets"], {**result(40.0), **facts, "rounds": rounds})
    (row,) = make_rows(read_runs(path))
    assert (row.setting, row.mode, row.clicks, row.pixels, row.peak_gib) == ("active", "ra", 100, 450, 1.5)
    assert row.curve == ((20, 36.0), (40, 37.0), (60, 38.0), (80, 39.0), (100, 40.0))
    older = result(41.0)
    del older["peak_memory_gib"]
    Record(path).add("AADA", 0, ["dataset=streets"], older)
    assert [row.peak_gib for row in make_rows(read_runs(path))] == [1.5, None]


def test_every_method_has_a_row() -> None:
    methods = {path.stem for path in (Path(config_dir()) / "method").glob("*.yaml")} - {"ripu"}
    assert {word for system in SYSTEMS for word in ROWS[system.row] if word.startswith("method=")} == {
        f"method={name}" for name in methods
    }


def test_groups_are_in_the_order_of_the_paper() -> None:
    published = {system.row: system.gtav for system in SYSTEMS}
    for group in GROUPS.values():
        figures = [published[row] for row in group]
        assert None not in figures
        assert figures == sorted(figures)  # type: ignore[type-var]


def test_the_page_has_what_is_finished(tmp_path: Path) -> None:
    record = Record(tmp_path / "benchmark.jsonl")
    overrides = SMALL_SETS["streets"][1]
    for seed in range(3):
        for row, miou in ((OURS, 46.0), ("RA random", 45.0), ("LabOR mask", 43.0), ("MADA", 40.0), ("AADA", 42.0)):
            record.add(row, seed, overrides, result(miou + seed))
    record.add("RA entropy", 0, overrides, result(50.0))  # a row of other studies
    record.add(OURS, 3, overrides, result(50.0))  # another seed
    data = {title: record.find(words) for title, words in SMALL_SETS.values()}
    page = benchmark.report(data, [0, 1, 2], "python scripts/benchmark.py", None)
    assert f"15 of {len(SYSTEMS) * 9} runs" in page
    assert (
        "| AADA (variant) | 5 % of the images | 2.20 | 45 | 43.0 ± 1.0 | 3 | -4.0 ± 0.0 | 63 | 1.50 | 59.3, 61.9 |"
        in page
    )
    assert "| RA RIPU above LabOR mask | holds (3.0 ± 0.0, n = 3) |" in page
    rounds = ", ".join(["1.0/1.0/1.0"] * 5)
    assert f"| streets, generator seed 0 | RA RIPU - RA random | {rounds} | holds (1.0 ± 0.0, n = 3) |" in page
    assert "| MADA above AADA | REVERSED (-2.0 ± 0.0, n = 3) |" in page
    assert "CamVid, day -> dusk`" not in page
    assert "## CamVid" not in page
    assert benchmark.curves(data, [0, 1, 2], tmp_path / "images" / "curves.png")
    assert (tmp_path / "images" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_runs_there_is_no_picture(tmp_path: Path) -> None:
    data: dict[str, Any] = {title: {} for title, _ in SMALL_SETS.values()}
    assert not benchmark.curves(data, [], tmp_path / "curves.png")
    page = benchmark.report(data, [], "python scripts/benchmark.py", None)
    assert "No pair has run yet." in page
    said = " ".join(page.splitlines()[-4:])
    assert "URMA, LD, SFDA, source free with that of `source only`" in said
    assert "ProDA stage 3 with that of `ProDA stage 2`" in said
    assert all(f"| {row} | `{' '.join(ROWS[row])}` |" in page for row in (system.row for system in SYSTEMS))
