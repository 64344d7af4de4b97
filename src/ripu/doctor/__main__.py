"""The command ``python -m ripu.doctor dataset=NAME paths.data_root=FOLDER``: is a data set fit for training?

Every file is read once. The exit status is 0 if training would be right, 1 if it would be wrong or impossible.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the slow imports

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.nodes import plain
from ripu.config.parts import make_dataset, make_reader
from ripu.config.validate import check_values
from ripu.datasets.value_ranges import measure_ranges, with_ranges
from ripu.doctor.examine import examine
from ripu.doctor.reading import read_all
from ripu.doctor.report import as_mapping, text
from ripu.io.console import Progress
from ripu.io.errors import exit_on_error
from ripu.io.writing import write_json
from ripu.run.assembly.data import load_parts


def _frames(data: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the (height, width) that the images of each part are fed at in training."""
    (rows, columns), (height, width) = data["source_size"], data["target_size"]
    return {"source": (rows, columns), "target": (height, width), "val": (height, width)}


def doctor(cfg: DictConfig) -> dict[str, Any]:
    """Check the data set of a composed ``conf/doctor.yaml``, and return what the file ``report`` contains.

    Raises:
        ValueError: The data set does not exist, or its description is wrong.
    """
    check_values(cfg, "doctor")
    config = plain(cfg)
    reader = make_reader(config["data"]["bands"], config["data"]["value_range"])
    dataset = make_dataset(config["dataset"])
    named = ("source", "target", "val") if dataset.has_source else ("target", "val")
    parts = load_parts(dataset, reader, is_lenient=True, parts=named)
    if config["data"]["value_range"] == "percentiles":
        measured = measure_ranges([scene.image for scene in parts["target"].scenes], reader, skips=True)
        parts = {name: replace(part, image_reader=with_ranges(reader, measured)) for name, part in parts.items()}
    parts = {name: replace(part, fit=config["data"]["fit"]) for name, part in parts.items()}
    with Progress("reading", sum(len(scenes) for scenes in parts.values()), "scenes") as progress:
        facts = read_all(parts, cfg.num_workers, progress)
    report = {
        "dataset": str(cfg.dataset.name),
        **as_mapping(parts, facts, examine(parts, facts, _frames(config["data"]))),
    }
    if cfg.report is not None:
        write_json(Path(cfg.report), report)
    return report


@command("doctor")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    logging.getLogger("ripu.datasets").setLevel(logging.ERROR)  # the findings say it, with the remedy
    with exit_on_error():
        report = doctor(cfg)
    print(text(report))
    if report["verdict"] == "unfit":
        sys.exit(1)


if __name__ == "__main__":
    main()
