"""The devices and processes of a command, compared with what this machine and its launcher offer."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from ripu.config.checks import check_processes
from ripu.config.parts import TrainerSpec
from ripu.config.spec import RunSpec
from ripu.io.errors import ConfigError
from ripu.io.signals import is_slurm_job

if TYPE_CHECKING:  # it takes long to import
    import torch

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""Without one of them Linux has no GPU that PyTorch can use: known without importing it."""


def check_device(accelerator: str, key: str = "trainer.accelerator", devices: Any = "auto") -> None:
    """Refuse an accelerator, and a number or list of ``devices``, that this machine does not have (ConfigError)."""
    if accelerator in ("gpu", "cuda") and sys.platform == "linux" and not any(map(os.path.exists, _GPU_FILES)):
        raise ConfigError(f"{key}={accelerator}: this machine has no such device; use auto or cpu")
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    usable = {"gpu": has_cuda or has_mps, "cuda": has_cuda, "mps": has_mps}
    if not usable.get(accelerator, True):
        built = "" if torch.version.cuda else "; this PyTorch is built without CUDA"
        raise ConfigError(f"{key}={accelerator}: this machine has no such device{built}; use auto or cpu")
    if accelerator == "cpu" or not usable["gpu"]:
        machine = " on a machine without a GPU" if accelerator == "auto" else ""
        check_processes(devices, f"{key}={accelerator}{machine}")
    elif devices not in ("auto", -1, "-1"):
        count = torch.cuda.device_count() if has_cuda else 1
        highest = int(devices) if str(devices).isdigit() else 1 + max(map(int, str(devices).strip("[]").split(",")))
        if highest > count:
            raise ConfigError(
                f"trainer.devices={devices}: this machine has only {count} device(s), numbered from 0; use auto"
            )


def make_device(accelerator: str) -> torch.device:
    """Return the device of a command without a trainer (``auto``: CUDA if available); see :func:`check_device`."""
    import torch

    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise ConfigError(f"accelerator={accelerator} is not allowed; use auto, cpu or gpu")
    check_device(accelerator, "accelerator")
    if accelerator in ("auto", "gpu"):
        accelerator = "cuda" if torch.cuda.is_available() else {"auto": "cpu", "gpu": "mps"}[accelerator]
    return torch.device(accelerator)


def early_rank() -> int:
    """Return the rank of this process, which is known before there is a trainer."""
    from pytorch_lightning.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0))


def num_processes(trainer: TrainerSpec) -> int:
    """Return the number of processes of a run: one for each device of each node."""
    import torch

    devices = trainer.devices
    if devices in ("auto", -1, "-1"):
        count = 1 if trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    elif isinstance(devices, str):
        count = devices.count(",") + 1 if "," in devices else int(devices)
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return count * trainer.num_nodes


def check_launcher(spec: RunSpec) -> None:
    """Refuse a launcher that has started a different number of processes: each would take itself for the whole run."""
    environment, wanted = os.environ, num_processes(spec.trainer)
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, started = "torchrun", int(environment.get("WORLD_SIZE", "1"))
    elif is_slurm_job() and "SLURM_PROCID" in environment:
        launcher, started = "srun", int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # a batch script is one process
    else:
        return
    if started != wanted:
        raise ConfigError(
            f"{launcher} has started {started} processes, but trainer.devices={spec.trainer.devices} on "
            f"trainer.num_nodes={spec.trainer.num_nodes} are {wanted}; give trainer.devices the number on each node, "
            "or start one process"
        )


def check_shares(spec: RunSpec, num_val: int) -> None:
    """Refuse fewer validation images than processes: one without any could not take part in an evaluation."""
    if (processes := num_processes(spec.trainer)) > num_val:
        raise ConfigError(
            f"trainer.devices={spec.trainer.devices} on trainer.num_nodes={spec.trainer.num_nodes} are {processes} "
            f"processes, of which each needs a share of the validation images, but there are only {num_val}; use "
            f"{num_val} processes at most, or more validation images"
        )


def check_job_of_sweep(spec: RunSpec) -> None:
    """Refuse a job that a sweep cannot run.

    Each further process that Lightning starts would begin the whole sweep, and a job that ends to wait for people would
    end the sweep.
    """
    if spec.person is not None and spec.person.wait == "exit":
        raise ConfigError(
            "oracle=human ends each job of a sweep (-m) at its first round; give a command for each job, or add "
            "oracle.wait=hold"
        )
    if num_processes(spec.trainer) > 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        raise ConfigError(
            f"trainer.devices={spec.trainer.devices}, trainer.num_nodes={spec.trainer.num_nodes}: a job of a sweep "
            "(-m) cannot start further processes; use trainer.devices=1, or give a command for each job"
        )
