"""The devices of this machine, held against those that a command asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.config.checks import check_processes
from ripu.io.errors import ConfigError

if TYPE_CHECKING:  # torch takes long to import
    import torch

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""Without one of them Linux has no GPU that PyTorch can use: known without importing it."""


def check_device(accelerator: str, key: str = "trainer.accelerator", devices: Any = "auto") -> None:
    """Refuse devices that this machine does not have.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        key: Its key on the command line.
        devices: ``trainer.devices``: ``auto``, a number of devices, or their numbers.

    Raises:
        ConfigError: Naming the key, and the devices that there are.
    """
    if accelerator in ("gpu", "cuda") and sys.platform == "linux" and not any(Path(one).exists() for one in _GPU_FILES):
        raise ConfigError(f"{key}={accelerator}: this machine has no such device; use auto or cpu")
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = ["cpu", *(["gpu", "cuda"] if has_cuda else []), *(["gpu", "mps"] if has_mps else [])]
    if accelerator in ("gpu", "cuda", "mps") and accelerator not in there:
        built = "" if torch.version.cuda else "; this PyTorch is built without CUDA"
        raise ConfigError(f"{key}={accelerator}: this machine has no such device{built}; use auto or {there[0]}")
    if accelerator == "cpu" or not (has_cuda or has_mps):
        check_processes(
            devices, f"{key}={accelerator}" + (" on a machine without a GPU" if accelerator == "auto" else "")
        )
    elif devices not in ("auto", -1, "-1"):
        count = torch.cuda.device_count() if has_cuda else 1
        highest = int(devices) if str(devices).isdigit() else 1 + max(map(int, str(devices).strip("[]").split(",")))
        if highest > count:
            raise ConfigError(
                f"trainer.devices={devices}: this machine has only {count} device(s), numbered from 0; use auto"
            )


def make_device(accelerator: str) -> torch.device:
    """Return the device of a command that runs without a trainer.

    Args:
        accelerator: ``auto`` (CUDA where there is one), ``cpu``, ``gpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: It is another one, or one that this machine does not have.
    """
    import torch

    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise ConfigError(f"accelerator={accelerator} is not allowed; use auto, cpu or gpu")
    check_device(accelerator, "accelerator")
    if accelerator in ("auto", "gpu"):
        accelerator = "cuda" if torch.cuda.is_available() else {"auto": "cpu", "gpu": "mps"}[accelerator]
    return torch.device(accelerator)
