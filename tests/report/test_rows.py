"""Rows of runs: runs that may share one, the keys that tell rows apart, and notes on the rest."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest
import yaml

from ripu.config.migrate import read_values
from ripu.report.__main__ import main
from ripu.report.collect import find_runs
from ripu.report.rows import differing, make_rows, mean_std, row_name
from ripu.report.tables import classes_table, means_table
from written_runs import NO_LOSSES, rows_of, write_run


def test_a_row_is_the_mean_over_seeds(tmp_path: Path) -> None:
    for seed, miou in enumerate((50.0, 52.0, 57.0)):
        write_run(tmp_path / f"s{seed}", miou=miou, seed=seed)
    (row,), notes = rows_of(tmp_path)
    assert notes == []
    assert row.seeds == [0, 1, 2]
    assert f"{statistics.mean([50, 52, 57]):.2f} ± {statistics.stdev([50, 52, 57]):.2f}" in means_table([row])
    assert "| 63.0 ± 3.6 | 40.0 (n=1) | 53.0 ± 3.6 |" in classes_table([row])  # sky has no IoU under two of the seeds


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("objective.negative_threshold=0.1", "objective.negative_threshold"),
        ("mode.radius=2 mode.suppress_radius=4", "mode.radius"),
        ("trainer.max_steps=500", "trainer.max_steps"),
        ("evaluation.flip=false", "evaluation.flip"),
        ("trainer.precision=bf16-mixed", "trainer.precision"),
        ("data.target_size=[64,128]", "data.target_size"),
        ("model=deeplabv3plus_r101", "model._target_"),
        ("selection_steps=[10000,20000]", "selection_steps"),
    ],
)
def test_any_other_difference_makes_two_rows_and_is_named(override: str, named: str, tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "other", *override.split(), seed=1)
    rows, _ = rows_of(tmp_path)
    assert len(rows) == 2
    assert all(named in row.also for row in rows)
    assert named in means_table(rows)
    assert row_name(rows[0]) != row_name(rows[1])


def test_place_and_speed_of_a_run_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "other", "data.num_workers=7", "paths.data_root=/elsewhere", "evaluation.gallery=3", seed=1)
    assert len(rows_of(tmp_path)[0]) == 1


def test_settings_without_rounds_have_no_mode_score_or_budget(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "setting=source_only", "mode=pa")
    write_run(tmp_path / "other", "setting=source_only", "acquisition=random", seed=1)
    (row,), _ = rows_of(tmp_path)
    assert row_name(row) == "gtav source_only"


def test_missing_runs_are_noted_and_the_others_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "a0", miou=50.0)
    write_run(tmp_path / "a1", miou=51.0, seed=1)
    write_run(tmp_path / "again", miou=99.0, seed=1)
    write_run(tmp_path / "b0", "acquisition=random", miou=45.0)
    write_run(tmp_path / "b1", "acquisition=random", miou=None, seed=1)
    failed = write_run(tmp_path / "failed", miou=None, seed=2)
    (failed / "log.txt").write_text("step 1\nerror: the loss is nan at step 3\n")
    damaged = write_run(tmp_path / "damaged", seed=3)
    (damaged / "results.json").write_text('{"mIoU": ')
    rows, notes = rows_of(tmp_path)
    text = "\n".join(notes)
    assert len(rows) == 2
    assert "again: seed 1 again" in text
    assert "b1: unfinished" in text
    assert "failed: failed: error: the loss is nan" in text
    assert "damaged: results.json cannot be read" in text
    assert "RandomScore 0.022: no finished run of seed 1" in text
    assert 99.0 not in rows[0].values("mIoU") + rows[1].values("mIoU")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe", b"[1, 2]", b"null", b"{}", b'{"mIoU": NaN}', b'{"mIoU": true}', b'{"mIoU": 1, "rounds": "abc"}',
        b'{"mIoU": 1, "per_class_iou": [1]}', b'{"mIoU": 1, "evaluations": [3]}',
    ],
)  # fmt: skip
def test_damaged_results_are_noted_and_the_others_are_shown(content: bytes, tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad", seed=1) / "results.json").write_bytes(content)
    (write_run(tmp_path / "unreadable", seed=2) / "config.yaml").write_bytes(b"\xff\xfe: [")
    rows, notes = rows_of(tmp_path)
    assert [one for one in notes if "bad: results.json" in one]
    assert any("unreadable: config.yaml cannot be read" in note for note in notes)
    assert [dict(row.also) for row in rows] == [{}, {"config.yaml": "unknown"}]
    assert main([str(tmp_path), "--paper", "--out", str(tmp_path / "out")]) == 0


def test_an_older_run_without_a_configuration_is_kept_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    (write_run(tmp_path / "older", seed=1) / "config.yaml").unlink()
    rows, notes = rows_of(tmp_path)
    assert len(rows) == 2
    assert any("no config.yaml" in note for note in notes)


def test_sizes_of_regions_in_the_recipe_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "one", seed=1)
    older = write_run(tmp_path / "older", seed=0) / "config.yaml"
    config = yaml.safe_load(older.read_text())
    for key in ("region_side", "region_pixels"):
        del config["dataset"]["recipe"][key]
    older.write_text(yaml.safe_dump(config))
    (row,), _ = rows_of(tmp_path)
    assert row.seeds == [0, 1]


def test_every_weight_that_differs_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "ours", "objective.consistency_weight=1.0", "objective.negative_weight=1.0")
    write_run(tmp_path / "plain", *NO_LOSSES)
    assert all(
        {"objective.consistency_weight", "objective.negative_weight"} == set(row.also) for row in rows_of(tmp_path)[0]
    )


def test_mean_and_deviation() -> None:
    assert mean_std([]) == "–"
    assert mean_std([1.26]) == "1.3"
    assert mean_std([1.0, 2.0, 4.0], 2) == "2.33 ± 1.53"


STARTS_FROM = {"model.checkpoint": "/checkpoints/final.ckpt", "start.run": ""}


def write_pairs(folder: Path, key: str, *parent: str) -> None:
    """Runs that begin each with a run of their own seed."""
    setting = ("setting=source_free",) if key == "model.checkpoint" else ()
    for seed in range(2):
        write_run(folder / "parents" / f"{seed}", *parent, seed=seed)
        given = f"{key}={folder}/parents/{seed}{STARTS_FROM[key]}"
        write_run(folder / "runs" / f"{seed}", *setting, given, miou=50.0 + seed, seed=seed)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("key", STARTS_FROM)
def test_seeds_that_start_from_runs_of_their_own_share_a_row(key: str, is_kept: bool, tmp_path: Path) -> None:
    write_pairs(tmp_path, key)
    if not is_kept:
        shutil.rmtree(tmp_path / "parents")
    (row,), notes = rows_of(tmp_path / "runs")
    assert (row.seeds, dict(row.also), notes) == ([0, 1], {}, [])


@pytest.mark.parametrize("key", STARTS_FROM)
def test_runs_with_and_without_a_warm_start_are_two_rows(key: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, key)
    for seed in range(2):
        write_run(
            tmp_path / "runs" / f"without{seed}", *(("setting=source_free",) if "model" in key else ()), seed=seed
        )
    rows, notes = rows_of(tmp_path / "runs")
    assert [row.seeds for row in rows] == [[0, 1], [0, 1]]
    assert notes == []
    words = "final.ckpt of gtav ra active RipuScore 0.022" if "model" in key else "gtav ra active RipuScore 0.022"
    assert sorted([dict(row.also) for row in rows], key=str) == [{key: words}, {key: "not set"}]


def test_starts_from_different_runs_are_named_by_the_settings_of_these(tmp_path: Path) -> None:
    key = "model.checkpoint"
    write_pairs(tmp_path / "a", key)
    write_pairs(tmp_path / "b", key, "optimizer.learning_rate=5e-4", "region=rectangles")
    rows, notes = make_rows(find_runs([tmp_path / "a" / "runs", tmp_path / "b" / "runs"], read_values))
    assert notes == []
    assert [row.seeds for row in rows] == [[0, 1], [0, 1]]
    names = {f"{key}.optimizer.learning_rate", f"{key}.region._target_"}
    assert [set(row.also) for row in rows] == [names, names]
    assert {row.also[f"{key}.optimizer.learning_rate"] for row in rows} == {2.5e-4, 5e-4}


def test_starts_are_followed_through_several_runs(tmp_path: Path) -> None:
    for name, threshold in (("a", 0.05), ("b", 0.1)):
        write_run(tmp_path / name / "first", f"objective.negative_threshold={threshold}")
        write_run(tmp_path / name / "second", f"start.run={tmp_path / name / 'first'}")
        write_run(tmp_path / name / "third", f"start.run={tmp_path / name / 'second'}")
    rows, _ = make_rows(find_runs([tmp_path / "a" / "third", tmp_path / "b" / "third"], read_values))
    assert [set(row.also) for row in rows] == [{"start.run.start.run.objective.negative_threshold"}] * 2


def test_runs_that_start_from_each_other_are_read_once(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        write_run(tmp_path / name, f"start.run={tmp_path / other}", seed=int(name == "b"))
    (row,), _ = rows_of(tmp_path)
    assert row.seeds == [0, 1]


@pytest.mark.parametrize("name", ["/dev/zero", "0", "x" * 5000, "a\0b"])
def test_a_start_that_is_not_a_run_is_accepted(name: str, tmp_path: Path) -> None:
    for seed in range(2):
        path = write_run(tmp_path / f"{seed}", "start.run=PARENT", seed=seed) / "config.yaml"
        path.write_text(path.read_text().replace("PARENT", json.dumps(name)))
    (row,), notes = rows_of(tmp_path)
    assert (row.seeds, notes) == ([0, 1], [])


@pytest.mark.parametrize("names", [("masks", "masks"), ("masks0", "masks1")])
def test_seeds_that_start_from_masks_share_a_row(names: tuple[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(names):
        write_run(tmp_path / f"{seed}", f"start.labels={name}", seed=seed)
        write_run(tmp_path / f"without{seed}", seed=seed)
    rows, notes = rows_of(tmp_path)
    assert notes == []
    assert [row.seeds for row in rows] == [[0, 1], [0, 1]]
    assert {row.also["start.labels"] for row in rows} == {"given", "not set"}


def test_masks_of_two_annotators_are_two_rows(tmp_path: Path) -> None:
    """Under one seed they cannot be seeds of one experiment."""
    for seed in range(2):
        for name in ("ann", "bob"):
            write_run(tmp_path / f"{name}{seed}", f"start.labels={name}", seed=seed)
    rows, notes = rows_of(tmp_path)
    assert notes == []
    assert [(row.seeds, dict(row.also)) for row in rows] == [
        ([0, 1], {"start.labels": name}) for name in ("ann", "bob")
    ]


def test_arguments_of_different_regions_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "square")
    write_run(tmp_path / "k4", "mode.radius=4")
    write_run(tmp_path / "rectangles", "region=rectangles")
    rows, _ = rows_of(tmp_path)
    assert all("not set" not in map(str, row.also.values()) for row in rows)
    assert {key for row in rows for key in row.also} == {"mode.radius", "mode.suppress_radius", "region._target_"}


def test_an_argument_that_is_not_always_set_is_named() -> None:
    configs = [
        {"m._target_": "A", "steps": 1},
        {"m._target_": "A", "steps": 1, "m.depth": 1},
        {"m._target_": "B", "steps": 2},
    ]
    assert differing(configs) == ["m._target_", "m.depth", "steps"]
