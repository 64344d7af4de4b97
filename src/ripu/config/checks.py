"""Refuses a configuration that cannot be run, before any long work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ripu.config.output_folder import check_output
from ripu.config.spec import has_rounds, make_plan, make_taxonomy, uses_source
from ripu.config.validate import check_values
from ripu.io.errors import ConfigError
from ripu.run import initial_labels
from ripu.run.assembly.selection import check_room, make_query, make_region


def check_config(cfg: DictConfig) -> None:
    """Refuse values that cannot be run, before any long work.

    Raises:
        ConfigError: Naming the key, its value, what is allowed and why.
    """
    check_values(cfg, "train")
    check_output(cfg)
    if cfg.trainer.accelerator == "cpu":
        check_processes(cfg.trainer.devices, "trainer.accelerator=cpu")
    if cfg.dataset.static_mask is not None and not Path(cfg.dataset.static_mask).is_file():
        raise ConfigError(
            f"dataset.static_mask={cfg.dataset.static_mask} does not exist; give a grey PNG, non-zero where nothing is asked"
        )
    taxonomy = make_taxonomy(cfg)
    if cfg.dataset.num_classes != taxonomy.num_classes:
        raise ConfigError(
            f"dataset.num_classes={cfg.dataset.num_classes}, but taxonomy {taxonomy.name} has {taxonomy.num_classes} "
            "classes"
        )
    make_plan(cfg)
    if cfg.get("dry_run") and cfg.resume:
        raise ConfigError("dry_run=true looks at a whole run, and resume=true goes on with one; leave one of them out")
    initial_labels.check_combination(cfg)
    if not uses_source(cfg) and not cfg.model.get("checkpoint") and initial_labels.weights(cfg) is None:
        raise ConfigError(
            f"setting={cfg.setting.name} begins with a trained network; give model.checkpoint=RUN/checkpoints/final.ckpt "
            "of a run with setting=source_only, or start.run=RUN"
        )
    if has_rounds(cfg):
        query, region = make_query(cfg), make_region(cfg)
        if region is None or not region.is_fixed:
            check_room(query, tuple(cfg.data.target_size), tuple(cfg.data.target_size))
    elif cfg.budget != cfg.mode.budget:
        is_active = cfg.setting.target_labels == "revealed"
        where = "without rounds (selection_steps=[])" if is_active else f"in setting={cfg.setting.name}"
        raise ConfigError(f"budget={cfg.budget} has no effect {where}; leave it out")


def check_job_of_sweep(cfg: DictConfig) -> None:
    """Refuse several processes in a job of a sweep, where each process that Lightning starts would begin the whole sweep.

    Raises:
        ConfigError: There are several, and it is not SLURM that starts them.
    """
    from ripu.run import frame

    if frame.num_processes(cfg) > 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}, trainer.num_nodes={cfg.trainer.num_nodes}: a job of a sweep (-m) can "
            "start no further processes; use trainer.devices=1, or give a command for each job"
        )


def check_processes(devices: Any, where: str) -> None:
    """Refuse what is no number of processes, which is what ``trainer.devices`` is on a CPU.

    Raises:
        ConfigError: Naming the value and ``where`` it is not allowed.
    """
    if devices != "auto" and not (str(devices).isdigit() and int(devices) > 0):
        raise ConfigError(
            f"trainer.devices={devices} is not allowed with {where}, where it is the number of processes; give 1 or more"
        )
