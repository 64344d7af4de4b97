"""Rows of runs: what may share one, what is said of those that cannot, and the paper's own figures."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from ripu.config.stored import read_values
from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.report import curves
from ripu.report.__main__ import main
from ripu.report.collect import find_runs
from ripu.report.curves import add_legend, curve_points, window_sweep
from ripu.report.plots import start
from ripu.report.rows import Row, differing, make_rows, mean_std, row_name
from ripu.report.tables import PAPER_TITLES, classes_table, matches, means_table, paper_rows, paper_tables, to_csv
from running import compose

CLASSES = ("road", "sky")


def write_run(folder: Path, *overrides: str, miou: float | None = 50.0, seed: int = 0, dataset: str = "gtav") -> Path:
    """A run's folder with the real configuration of a command line and results made by hand."""
    from ripu.config.spec import plain

    folder.mkdir(parents=True)
    cfg = compose(f"dataset={dataset}", f"seed={seed}", f"paths.output_dir={folder}", *overrides)
    config = plain(cfg)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if miou is None:
        return folder
    results: dict[str, Any] = {
        "mIoU": miou,
        "per_class_iou": {"road": miou + 10, "sky": None if seed else miou - 10},
        "dataset": cfg.dataset.name,
        "mode": cfg.mode.name,
        "setting": cfg.setting.name,
        "acquisition": str(cfg.acquisition._target_).rsplit(".", 1)[-1],
        "budget": cfg.budget,
        "seed": seed,
        "max_steps": 40,
        "labelled_fraction": 0.022,
        "evaluations": [{"step": 10, "labelled_fraction": 0.0, "mIoU": miou - 20}],
        "rounds": [],
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def rows_of(folder: Path) -> tuple[list[Row], list[str]]:
    return make_rows(find_runs([folder], read_values))


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
def test_any_other_difference_keeps_runs_apart_and_is_named(override: str, named: str, tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "other", *override.split(), seed=1)
    rows, _ = rows_of(tmp_path)
    assert len(rows) == 2
    assert all(named in row.also for row in rows)
    assert named in means_table(rows)
    assert row_name(rows[0]) != row_name(rows[1])


def test_where_and_how_fast_a_run_goes_is_no_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "other", "data.num_workers=7", "paths.data_root=/elsewhere", "evaluation.gallery=3", seed=1)
    assert len(rows_of(tmp_path)[0]) == 1


def test_settings_without_rounds_have_no_mode_score_or_budget(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "setting=source_only", "mode=pa")
    write_run(tmp_path / "other", "setting=source_only", "acquisition=random", seed=1)
    (row,), _ = rows_of(tmp_path)
    assert row_name(row) == "gtav source_only"


def test_what_is_missing_is_said_and_stops_nothing(tmp_path: Path) -> None:
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
def test_results_that_are_none_are_named_and_stop_nothing(content: bytes, tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad", seed=1) / "results.json").write_bytes(content)
    (write_run(tmp_path / "unreadable", seed=2) / "config.yaml").write_bytes(b"\xff\xfe: [")
    rows, notes = rows_of(tmp_path)
    assert [one for one in notes if "bad: results.json" in one]
    assert any("unreadable: config.yaml cannot be read" in note for note in notes)
    assert [dict(row.also) for row in rows] == [{}, {"config.yaml": "unknown"}]
    assert main([str(tmp_path), "--paper", "--out", str(tmp_path / "out")]) == 0


def test_results_by_hand_may_lack_what_a_table_does_not_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, more in enumerate(({}, {"per_class_iou": None}, {"rounds": None, "evaluations": None})):
        path = write_run(tmp_path / str(seed), miou=50.0 + seed, seed=seed) / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "results.json").write_text('{"mIoU": 42.0, "dataset": "../mine", "evaluations": [{}]}')
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "51.00 ± 1.00" in text
    assert "61.0 ± 1.4 (n=2)" in text  # road, of the two seeds that have it
    assert (tmp_path / "out" / "learning_curves_---mine.png").exists()


def test_an_older_run_without_a_configuration_is_kept_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    (write_run(tmp_path / "older", seed=1) / "config.yaml").unlink()
    rows, notes = rows_of(tmp_path)
    assert len(rows) == 2
    assert any("no config.yaml" in note for note in notes)


def test_the_csv_has_a_line_for_every_run(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"s{seed}", miou=50.0 + seed, seed=seed)
    lines = list(csv.DictReader(to_csv(rows_of(tmp_path)[0]).splitlines()))
    assert [(line["seed"], line["mIoU"], line["road"], line["sky"]) for line in lines] == [
        ("0", "50.0", "60.0", "40.0"),
        ("1", "51.0", "61.0", ""),
    ]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "a", "mode.radius=1", miou=50.0)
    write_run(tmp_path / "runs" / "b", "mode.radius=2", "mode.suppress_radius=4", miou=48.0)
    assert main([str(tmp_path / "runs"), "--paper", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "out" / "tables.md").read_text()
    assert written in printed
    for name in ("runs.csv", "learning_curves_gtav.png", "labelled_share_gtav.pdf", "fig6_window_gtav.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    assert main([str(tmp_path / "nothing")]) == 2
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    assert "no run in" in capsys.readouterr().err


def test_the_sweep_over_k_needs_a_second_k(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    rows, _ = rows_of(tmp_path / "runs")
    assert window_sweep(rows, tmp_path / "out") == []
    assert curve_points(rows[0]) == [(10, 0.0, [30.0]), (40, pytest.approx(2.2), [50.0])]


def test_the_sweep_over_k_joins_what_differs_in_k_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = ("objective.negative_weight=0", "mode.radius=4")
    write_run(tmp_path / "k1", miou=60.0)
    write_run(tmp_path / "k2", "mode.radius=2", miou=61.0)
    write_run(tmp_path / "apart", "mode.radius=2", "mode.suppress_radius=1", miou=10.0)
    write_run(tmp_path / "free", "setting=source_free", "mode.radius=9", f"model.checkpoint={tmp_path}", miou=20.0)
    write_run(tmp_path / "shared", "mode.budget_per=dataset", "mode.radius=4", miou=30.0)
    write_run(tmp_path / "plain", *fewer, miou=40.0)
    drawn: list[Any] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure.axes[0]) or [path])
    assert len(window_sweep(rows_of(tmp_path)[0], tmp_path / "out")) == 1
    (line,) = drawn[0].get_legend_handles_labels()[0]
    assert line.lines[0].get_xdata().tolist() == [1, 2]
    assert line.lines[0].get_ydata().tolist() == [60.0, 61.0]


@pytest.mark.parametrize("num_lines", [1, 3, 40])
def test_long_names_leave_the_curves_their_room(num_lines: int) -> None:
    figure, axis = start(figsize=(7.2, 4.4))
    for number in range(num_lines):
        weights = " ".join(f"objective.weight_{letter}={number}" for letter in "abcdef")
        axis.plot([0, 1], [0, 1], label=f"camvid ra active RipuScore 0.022 {weights} region._target_=a.B{number} (n=3)")
    add_legend(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    box, legend = axis.get_window_extent(), figure.legends[0].get_window_extent()
    assert box.width > 0.8 * figure.bbox.width
    assert box.height > 300
    assert not box.overlaps(legend)
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width


def test_sizes_of_regions_in_the_recipe_are_no_difference(tmp_path: Path) -> None:
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


def test_the_mean_over_13_classes_stands_beside_the_paper(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dataset="synthia")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "mIoU13": 57.0}))
    assert "50.0, mIoU13 57.0 (n=1)" in paper_tables(rows_of(tmp_path)[0])


def test_mean_and_deviation() -> None:
    assert mean_std([]) == "–"
    assert mean_std([1.26]) == "1.3"
    assert mean_std([1.0, 2.0, 4.0], 2) == "2.33 ± 1.53"


# ---- what runs begin with

BEGINNINGS = {"model.checkpoint": "/checkpoints/final.ckpt", "start.run": ""}


def write_pairs(folder: Path, key: str, *parent: str) -> None:
    """Runs that begin each with a run of their own seed."""
    setting = ("setting=source_free",) if key == "model.checkpoint" else ()
    for seed in range(2):
        write_run(folder / "parents" / f"{seed}", *parent, seed=seed)
        given = f"{key}={folder}/parents/{seed}{BEGINNINGS[key]}"
        write_run(folder / "runs" / f"{seed}", *setting, given, miou=50.0 + seed, seed=seed)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("key", BEGINNINGS)
def test_seeds_that_begin_with_runs_of_their_own_share_a_row(key: str, is_kept: bool, tmp_path: Path) -> None:
    write_pairs(tmp_path, key)
    if not is_kept:
        shutil.rmtree(tmp_path / "parents")
    (row,), notes = rows_of(tmp_path / "runs")
    assert (row.seeds, dict(row.also), notes) == ([0, 1], {}, [])


@pytest.mark.parametrize("key", BEGINNINGS)
def test_runs_with_and_without_a_beginning_stay_apart(key: str, tmp_path: Path) -> None:
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


def test_other_runs_to_begin_with_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    key = "model.checkpoint"
    write_pairs(tmp_path / "a", key)
    write_pairs(tmp_path / "b", key, "optimizer.learning_rate=5e-4", "region=rectangles")
    rows, notes = make_rows(find_runs([tmp_path / "a" / "runs", tmp_path / "b" / "runs"], read_values))
    assert notes == []
    assert [row.seeds for row in rows] == [[0, 1], [0, 1]]
    names = {f"{key}.optimizer.learning_rate", f"{key}.region._target_"}
    assert [set(row.also) for row in rows] == [names, names]
    assert {row.also[f"{key}.optimizer.learning_rate"] for row in rows} == {2.5e-4, 5e-4}


def test_what_a_run_began_with_began_somewhere_too(tmp_path: Path) -> None:
    for name, threshold in (("a", 0.05), ("b", 0.1)):
        write_run(tmp_path / name / "first", f"objective.negative_threshold={threshold}")
        write_run(tmp_path / name / "second", f"start.run={tmp_path / name / 'first'}")
        write_run(tmp_path / name / "third", f"start.run={tmp_path / name / 'second'}")
    rows, _ = make_rows(find_runs([tmp_path / "a" / "third", tmp_path / "b" / "third"], read_values))
    assert [set(row.also) for row in rows] == [{"start.run.start.run.objective.negative_threshold"}] * 2


def test_runs_that_begin_with_each_other_end(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        write_run(tmp_path / name, f"start.run={tmp_path / other}", seed=int(name == "b"))
    (row,), _ = rows_of(tmp_path)
    assert row.seeds == [0, 1]


@pytest.mark.parametrize("name", ["/dev/zero", "0", "x" * 5000, "a\0b"])
def test_what_is_no_run_to_begin_with_stops_nothing(name: str, tmp_path: Path) -> None:
    for seed in range(2):
        path = write_run(tmp_path / f"{seed}", "start.run=PARENT", seed=seed) / "config.yaml"
        path.write_text(path.read_text().replace("PARENT", json.dumps(name)))
    (row,), notes = rows_of(tmp_path)
    assert (row.seeds, notes) == ([0, 1], [])


@pytest.mark.parametrize("names", [("masks", "masks"), ("masks0", "masks1")])
def test_seeds_that_begin_with_masks_share_a_row(names: tuple[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(names):
        write_run(tmp_path / f"{seed}", f"start.labels={name}", seed=seed)
        write_run(tmp_path / f"without{seed}", seed=seed)
    rows, notes = rows_of(tmp_path)
    assert notes == []
    assert [row.seeds for row in rows] == [[0, 1], [0, 1]]
    assert {row.also["start.labels"] for row in rows} == {"given", "not set"}


def test_masks_of_two_people_are_two_rows(tmp_path: Path) -> None:
    """Under one seed they cannot be seeds of one experiment."""
    for seed in range(2):
        for name in ("ann", "bob"):
            write_run(tmp_path / f"{name}{seed}", f"start.labels={name}", seed=seed)
    rows, notes = rows_of(tmp_path)
    assert notes == []
    assert [(row.seeds, dict(row.also)) for row in rows] == [
        ([0, 1], {"start.labels": name}) for name in ("ann", "bob")
    ]


# ---- the paper


def test_every_row_of_the_paper_averages_to_its_printed_mean_or_has_a_note() -> None:
    rows = paper_rows()
    assert {int(row["table"]) for row in rows} == set(PAPER_TITLES)
    names = list(rows[0])
    classes = names[names.index("mIoU13") + 1 :]
    assert len(classes) == 19
    wide = [row for row in rows if row["road"]]
    assert len(wide) == 50
    for row in wide:
        values = [float(row[name]) for name in classes if row[name]]
        assert len(values) == (19 if row["task"] == "GTAV" else 16)
        assert abs(statistics.mean(values) - float(row["mIoU"])) <= 0.1 or "average" in row["note"], row
        if row["mIoU13"]:
            of_13 = [float(row[name]) for name in classes if row[name] and name not in ("wall", "fence", "pole")]
            assert abs(statistics.mean(of_13) - float(row["mIoU13"])) <= 0.1 or "13 classes average" in row["note"], row


def test_the_slip_of_table_11_is_told() -> None:
    (row,) = [one for one in paper_rows() if (one["table"], one["method"], one["budget"]) == ("11", "RAND", "2.2 %")]
    assert row["mIoU"] == "63.8"
    assert "average 62.2" in row["note"]


def test_the_same_experiment_has_the_same_figure_in_every_table() -> None:
    rows = paper_rows()
    ours = [row for row in rows if row["match"] == "default" and row["task"] == "GTAV"]
    assert {row["mIoU"] for row in ours} == {"69.6"}
    assert len(ours) == 5
    for row in rows:
        if row["table"] == "11":
            (short,) = [
                one
                for one in rows
                if one["table"] == "4" and (one["method"], one["budget"]) == (row["method"], row["budget"])
            ]
            assert (short["mIoU"], short["match"]) == (row["mIoU"], row["match"])


SHORTER = ("dataset.recipe.max_steps=240", "dataset.recipe.source_free.max_steps=144")  # as scripts/study.py
NO_LOSSES = ("objective.consistency_weight=0", "objective.negative_weight=0")


@pytest.mark.parametrize(
    ("overrides", "places"),
    [
        ((), {("1", "Ours (RA)"), ("3", "(f) RIPU"), ("6", "k-square-neighbors (Ours)"), ("10", "Ours (RA)")}
         | {("12", "Ours (RA)"), ("7", "tau = 0.05"), ("8", "alpha1 = 0.1"), ("9", "alpha2 = 1")}),
        (("mode=pa",), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
        (("setting=source_only",), {("1", "Source Only")}),
        (("setting=fully_supervised",), {("1", "Fully Supervised"), ("3", "Fully Supervised")}),
        (("objective.negative_threshold=0.08",), {("7", "tau = 0.08")}),
        (NO_LOSSES, {("3", "(c) both"), ("4", "Ours (RA)"), ("11", "Ours (RA)")}),
        (("acquisition=random", *NO_LOSSES), {("3", "RAND"), ("4", "RAND"), ("11", "RAND")}),
        (("acquisition=entropy", "mode=pa", *NO_LOSSES), {("4", "ENT"), ("11", "ENT")}),
        (("acquisition=entropy", *NO_LOSSES), {("3", "(b) uncertainty"), ("4", "ENT"), ("11", "ENT")}),
        (("region=rectangles",), {("6", "Fixed rectangle")}),
        (("acquisition=canny_entropy",), {("10", "Canny + ENT")}),
        (("acquisition=random",), set()),
        (("budget=0.05", "model=deeplabv3plus_r101"), {("1", "Ours (RA)")}),
        (("budget=0.05",), set()),
        (("mode.budget_per=dataset",), set()),
        (("mode.radius=2",), set()),
        (("mode=pa", "mode.radius=4"), set()),
        (("setting=source_free",), {("5", "Ours (RA)"), ("12", "Ours (RA)")}),
        (("setting=source_free", "mode.radius=9"), {("5", "Ours (RA)"), ("12", "Ours (RA)")}),
        (("setting=source_free", "mode.radius=4"), set()),
        (("setting=source_free", "mode=pa"), set()),
        (("setting=source_free", "budget=0.05"), set()),
        (("mode=pa", "dataset=streets"), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
        (("start.run=/first",), set()),
        (("start.labels=/masks",), set()),
        (("model.checkpoint=/source.ckpt",), set()),
        (("setting=source_only", "model.checkpoint=/source.ckpt"), set()),
        (("setting=source_free", "model.checkpoint=/source.ckpt"), {("5", "Ours (RA)"), ("12", "Ours (RA)")}),
        (("setting=source_free", "start.run=/first"), set()),
        (("selection_steps=[10000]",), set()),
        (("selection_steps=[10,20,30,40]",), set()),
        (("selection_steps=[10,20,30,40,50,60]", "dataset=streets"), set()),
        (("selection_steps=[10,20,30,40,50]", "mode=pa"), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
        (("setting.selection_fractions=[0.1,0.2]", "mode=pa"), set()),
        (("setting=source_free", "selection_steps=[0]"), set()),
        (("experiment=table5/gtav_source",), set()),
        (("experiment=table5/gtav_source", "dataset=streets"), set()),
        (("setting=source_only", "trainer.max_steps=9"), {("1", "Source Only")}),
        (("setting=source_only", "dataset=streets", *SHORTER), {("1", "Source Only")}),
        (("setting=source_only", "dataset=camvid"), {("1", "Source Only")}),
        (("setting=source_only", "dataset=streets", "dataset.recipe.learning_rate=0.005"), {("1", "Source Only")}),
        (("setting=source_free", "dataset=streets", *SHORTER), {("5", "Ours (RA)"), ("12", "Ours (RA)")}),
        (("mode=pa", "dataset=streets", *SHORTER, "optimizer.learning_rate=0.005"), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
    ],
)  # fmt: skip
def test_a_run_stands_beside_its_own_row(
    overrides: tuple[str, ...], places: set[tuple[str, str]], tmp_path: Path
) -> None:
    write_run(tmp_path / "run", *overrides)
    (row,), _ = rows_of(tmp_path)
    found = [one for one in paper_rows() if matches(one, row)]
    assert {(one["table"], one["method"]) for one in found} == places
    assert all(one["task"] == "GTAV" for one in found)


def test_an_older_run_has_its_rounds_in_the_recipe(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run") / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["setting"]["selection_fractions"]
    path.write_text(yaml.safe_dump(config))
    (row,), _ = rows_of(tmp_path)
    assert sum(matches(one, row) for one in paper_rows()) == 8


@pytest.mark.parametrize("setting", ["active", "source_only", "source_free", "fully_supervised"])
def test_a_run_without_a_configuration_stands_beside_no_row(setting: str, tmp_path: Path) -> None:
    (write_run(tmp_path / "run", f"setting={setting}") / "config.yaml").unlink()
    (row,), _ = rows_of(tmp_path)
    assert not [one for one in paper_rows() if matches(one, row)]


def test_paper_tables_keep_its_order(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"s{seed}", miou=60.0 + 2 * seed, seed=seed)
        write_run(tmp_path / f"t{seed}", "objective.negative_threshold=0.1", miou=58.0, seed=seed)
    rows, _ = rows_of(tmp_path)
    text = paper_tables(rows)
    assert text.index("Table 1:") < text.index("Table 7:") < text.index("Table 12:")
    table = text[text.index("Table 7:") : text.index("Table 8:")]
    lines = [line for line in table.splitlines() if line.startswith("| tau")]
    assert [line.split("|")[3].strip() for line in lines] == ["68.81", "69.54", "69.62", "69.17", "68.94", "68.13"]
    assert "61.0 ± 1.4 (n=2)" in lines[2]
    assert "58.0 ± 0.0 (n=2)" in lines[4]
    assert lines[0].rstrip("| ").endswith("–")
    assert paper_tables([]) == "No run belongs to a table of the paper.\n"


def test_a_cell_tells_its_runs_apart_and_nothing_more(tmp_path: Path) -> None:
    """Whatever else the study has runs of: other windows, shapes and losses are not in the cell of RIPU."""
    write_run(tmp_path / "ours", miou=60.0)
    write_run(tmp_path / "long", "trainer.max_steps=9", miou=62.0)
    write_run(tmp_path / "k4", "mode.radius=4", miou=50.0)
    write_run(tmp_path / "rectangles", "region=rectangles", miou=40.0)
    write_run(tmp_path / "plain", *NO_LOSSES, miou=55.0)
    rows, _ = rows_of(tmp_path)
    text = paper_tables(rows)
    lines = text[text.index("Table 3:") : text.index("Table 4:")].splitlines()
    (cell,) = [line.split("|")[-2].strip() for line in lines if "(f) RIPU" in line]
    steps = rows[0].runs[0].config["trainer.max_steps"]
    assert sorted(cell.split("; ")) == [f"60.0 (n=1) trainer.max_steps={steps}", "62.0 (n=1) trainer.max_steps=9"]
    (cell,) = [line.split("|")[-2].strip() for line in lines if "(c) both" in line]
    assert cell == "55.0 (n=1)"


def test_arguments_of_different_regions_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "square")
    write_run(tmp_path / "k4", "mode.radius=4")
    write_run(tmp_path / "rectangles", "region=rectangles")
    rows, _ = rows_of(tmp_path)
    assert all("not set" not in map(str, row.also.values()) for row in rows)
    assert {key for row in rows for key in row.also} == {"mode.radius", "mode.suppress_radius", "region._target_"}


def test_names_of_rows_by_class_are_short_with_several_data_sets(tmp_path: Path) -> None:
    for dataset in ("gtav", "streets"):
        results = write_run(tmp_path / dataset, dataset=dataset) / "results.json"
        known = json.loads(results.read_text())
        results.write_text(json.dumps({**known, "per_class_iou": dict.fromkeys(CITYSCAPES19.class_names, 50.0)}))
    text = paper_tables(rows_of(tmp_path)[0])
    names = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ours:")}
    assert names == {"ours: gtav ra active RipuScore 0.022 (n=1)", "ours: streets ra active RipuScore 0.022 (n=1)"}


def test_a_class_whose_argument_is_not_always_set_is_told_apart() -> None:
    configs = [
        {"m._target_": "A", "steps": 1},
        {"m._target_": "A", "steps": 1, "m.depth": 1},
        {"m._target_": "B", "steps": 2},
    ]
    assert differing(configs) == ["m._target_", "m.depth", "steps"]
