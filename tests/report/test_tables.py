"""Tables as Markdown and CSV, and our rows beside those of the paper."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
import yaml

from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.report.__main__ import main
from ripu.report.tables import PAPER_TITLES, matches, paper_rows, paper_tables, to_csv
from written_runs import NO_LOSSES, rows_of, write_run


def test_incomplete_results_are_shown_as_far_as_they_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_mean_over_13_classes_stands_beside_the_paper(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dataset="synthia")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "mIoU13": 57.0}))
    assert "50.0, mIoU13 57.0 (n=1)" in paper_tables(rows_of(tmp_path)[0])


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


def test_the_wrong_mean_of_table_11_has_a_note() -> None:
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
        (("first_round=random",), set()),
        (("objective=ripu_teacher",), set()),
        (("objective.class_balance=0.5",), set()),
        (("setting=source_only", "objective.class_balance=0.5"), set()),
        (("setting=source_free", "objective.class_balance=0.5"), set()),
        (("optimizer.schedule=cosine",), set()),
        (("setting=fully_supervised", "optimizer.weight_decay=0"), set()),
        (("optimizer=adamw",), set()),
        (("ema.decay=0.999",), set()),
        (("mode=pa", "dataset=streets", "optimizer=adamw"), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
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
        (("experiment=table5/gtav_source", "dataset=streets", "optimizer=sgd"), set()),
        (("experiment=table5/gtav_source", "dataset=streets"), {("1", "Source Only")}),  # AdamW: any rate
        (("setting=source_only", "trainer.max_steps=9"), {("1", "Source Only")}),
        (("setting=source_only", "dataset=streets", *SHORTER), {("1", "Source Only")}),
        (("setting=source_only", "dataset=camvid"), {("1", "Source Only")}),
        (("setting=source_only", "dataset=streets", "optimizer=sgd", "dataset.recipe.learning_rate=0.005"),
         {("1", "Source Only")}),
        (("setting=source_only", "dataset=streets", "optimizer=sgd", "optimizer.learning_rate=0.005"), set()),
        (("mode=pa", "dataset=streets", "objective.class_balance=0"), {("1", "Ours (PA)"), ("10", "Ours (PA)")}),
        (("mode=pa", "dataset=streets", "objective.class_balance=0.3"), set()),
        (("setting=source_free", "dataset=streets", *SHORTER), {("5", "Ours (RA)"), ("12", "Ours (RA)")}),
        (
            ("mode=pa", "dataset=streets", *SHORTER, "optimizer.learning_rate=0.005"),
            {("1", "Ours (PA)"), ("10", "Ours (PA)")},
        ),
    ],
)  # fmt: skip
def test_a_run_is_matched_with_its_own_row(
    overrides: tuple[str, ...], places: set[tuple[str, str]], tmp_path: Path
) -> None:
    write_run(tmp_path / "run", *overrides)
    (row,), _ = rows_of(tmp_path)
    found = [one for one in paper_rows() if matches(one, row)]
    assert {(one["table"], one["method"]) for one in found} == places
    assert all(one["task"] == "GTAV" for one in found)


def test_an_older_run_names_its_rounds_in_the_recipe(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run") / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["setting"]["selection_fractions"]
    path.write_text(yaml.safe_dump(config))
    (row,), _ = rows_of(tmp_path)
    assert sum(matches(one, row) for one in paper_rows()) == 8


@pytest.mark.parametrize("setting", ["active", "source_only", "source_free", "fully_supervised"])
def test_a_run_without_a_configuration_matches_no_row(setting: str, tmp_path: Path) -> None:
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


def test_a_cell_names_only_what_tells_its_runs_apart(tmp_path: Path) -> None:
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


def test_names_of_rows_by_class_are_short_with_several_data_sets(tmp_path: Path) -> None:
    for dataset in ("gtav", "streets"):
        results = write_run(tmp_path / dataset, dataset=dataset) / "results.json"
        known = json.loads(results.read_text())
        results.write_text(json.dumps({**known, "per_class_iou": dict.fromkeys(CITYSCAPES19.class_names, 50.0)}))
    text = paper_tables(rows_of(tmp_path)[0])
    names = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ours:")}
    assert names == {"ours: gtav ra active RipuScore 0.022 (n=1)", "ours: streets ra active RipuScore 0.022 (n=1)"}
