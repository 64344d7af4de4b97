from __future__ import annotations

import csv
from pathlib import Path

from ripu.training.training_log import MetricsFile


def read(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_step_and_columns_at_any_time(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path / "run")
    log.log_metrics({"train/loss": 2.0, "epoch": 0}, step=1)
    log.log_metrics({"train/loss": 1.0}, step=2)
    log.log_metrics({"val/mIoU": 40.0}, step=2)
    log.log_metrics({"al/picks": 3.0}, step=1)
    log.save()
    assert read(tmp_path / "run") == [
        {"step": "1", "train/loss": "2.0", "val/mIoU": "", "al/picks": "3.0"},
        {"step": "2", "train/loss": "1.0", "val/mIoU": "40.0", "al/picks": ""},
    ]


def test_rows_from_the_step_on_are_told_anew_when_a_run_goes_on(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path)
    for step in range(1, 6):
        first.log_metrics({"loss": float(step)}, step=step)
    first.finalize("success")
    again = MetricsFile(tmp_path)
    again.log_metrics({"loss": 30.0}, step=3)
    again.log_metrics({"loss": 40.0}, step=4)
    again.save()
    assert [(row["step"], row["loss"]) for row in read(tmp_path)] == [
        ("1", "1.0"), ("2", "2.0"), ("3", "30.0"), ("4", "40.0"),
    ]  # fmt: skip


def test_a_logger_that_is_told_nothing_keeps_the_file(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path)
    first.log_metrics({"loss": 0.5}, step=7)
    first.finalize("success")
    before = (tmp_path / "metrics.csv").read_bytes()
    MetricsFile(tmp_path).finalize("success")
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"loss": 0.1 + 0.2, "rate": 1e-300}, step=0)
    log.save()
    (row,) = read(tmp_path)
    assert float(row["loss"]) == 0.1 + 0.2
    assert float(row["rate"]) == 1e-300
    assert (log.name, log.version) == ("metrics", "0")
