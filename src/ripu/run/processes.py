"""The processes of a run: their number, their launcher and how they wait for each other."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ripu.config.spec import RunSpec, TrainerSpec
from ripu.io.errors import ConfigError


def early_rank() -> int:
    """Return the rank of this process, which is known before there is a trainer."""
    return int(getattr(rank_zero_only, "rank", 0))


def num_processes(trainer: TrainerSpec) -> int:
    """Return the number of processes of a run: one for each device of each node."""
    return _num_devices(trainer) * trainer.num_nodes


def check_launcher(spec: RunSpec) -> None:
    """Refuse a launcher that has started another number of processes: each would take itself for the whole run.

    Raises:
        ConfigError: torchrun or srun has started another number than ``trainer.devices`` times ``trainer.num_nodes``.
    """
    environment, wanted = os.environ, num_processes(spec.trainer)
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, there = "torchrun", int(environment.get("WORLD_SIZE", "1"))
    elif "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launcher, there = "srun", int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # a batch script is one process
    else:
        return
    if there != wanted:
        raise ConfigError(
            f"{launcher} has started {there} processes, and trainer.devices={spec.trainer.devices} on "
            f"trainer.num_nodes={spec.trainer.num_nodes} are {wanted}; give trainer.devices the number on each node, "
            "or start one process"
        )


def check_job_of_sweep(spec: RunSpec) -> None:
    """Refuse several processes in a job of a sweep: each process that Lightning starts would begin the whole sweep.

    Raises:
        ConfigError: There are several, and SLURM has not started them.
    """
    if num_processes(spec.trainer) > 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        raise ConfigError(
            f"trainer.devices={spec.trainer.devices}, trainer.num_nodes={spec.trainer.num_nodes}: a job of a sweep "
            "(-m) cannot start further processes; use trainer.devices=1, or give a command for each job"
        )


def make_strategy(trainer: TrainerSpec) -> str | DDPStrategy:
    """Return Lightning's strategy, with the time that processes wait for each other where there are several."""
    if trainer.strategy in ("auto", "ddp") and num_processes(trainer) > 1:
        return DDPStrategy(timeout=timedelta(minutes=trainer.timeout_minutes))
    return trainer.strategy


def _num_devices(trainer: TrainerSpec) -> int:
    devices = trainer.devices
    if devices in ("auto", -1, "-1"):
        return 1 if trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    if isinstance(devices, str):
        return devices.count(",") + 1 if "," in devices else int(devices)
    return devices if isinstance(devices, int) else len(devices)
