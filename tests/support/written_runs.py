"""Folders of runs with real configurations and results written by hand, for tests of tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ripu.config.migrate import read_values
from ripu.config.nodes import plain
from ripu.report.collect import find_runs
from ripu.report.rows import Row, make_rows
from running import compose

NO_LOSSES = ("objective.consistency_weight=0", "objective.negative_weight=0")


def write_run(folder: Path, *overrides: str, miou: float | None = 50.0, seed: int = 0, dataset: str = "gtav") -> Path:
    """Write a run's folder with the configuration of a command line and results by hand; without mIoU, none."""
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
    """Return the rows of the runs below a folder, and the notes."""
    return make_rows(find_runs([folder], read_values))
