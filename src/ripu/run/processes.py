"""The processes of a run: how many there are, who has started them, and how they wait for each other."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ripu.io.errors import ConfigError

__all__ = ["check_launcher", "early_rank", "make_strategy", "num_processes"]


def early_rank() -> int:
    """The rank of this process, known before the trainer is."""
    return int(getattr(rank_zero_only, "rank", 0))


def num_processes(cfg: DictConfig) -> int:
    """Processes of a run: one for each device of each node."""
    return _num_devices(cfg) * int(cfg.trainer.num_nodes)


def check_launcher(cfg: DictConfig) -> None:
    """Refuse another number of processes than the launcher has started: each would take itself for the whole run.

    Raises:
        ConfigError: torchrun or srun has started another number than ``trainer.devices`` times ``trainer.num_nodes``.
    """
    environment, wanted = os.environ, num_processes(cfg)
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, there = "torchrun", int(environment.get("WORLD_SIZE", "1"))
    elif "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launcher, there = (
            "srun",
            int(environment.get("SLURM_STEP_NUM_TASKS", "1")),
        )  # a batch script itself is one process
    else:
        return
    if there != wanted:
        raise ConfigError(
            f"{launcher} has started {there} processes, and trainer.devices={cfg.trainer.devices} on "
            f"trainer.num_nodes={cfg.trainer.num_nodes} are {wanted}; give trainer.devices the number on each node, or start "
            "one process"
        )


def make_strategy(cfg: DictConfig) -> str | DDPStrategy:
    """The strategy, with the time that processes wait for each other where there are several."""
    if cfg.trainer.strategy in ("auto", "ddp") and (_num_devices(cfg) > 1 or cfg.trainer.num_nodes > 1):
        return DDPStrategy(timeout=timedelta(minutes=cfg.trainer.timeout_minutes))
    return str(cfg.trainer.strategy)


def _num_devices(cfg: DictConfig) -> int:
    devices = cfg.trainer.devices
    if devices in ("auto", -1, "-1"):
        return 1 if cfg.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    if isinstance(devices, str):
        return devices.count(",") + 1 if "," in devices else int(devices)
    return devices if isinstance(devices, int) else len(devices)
