"""Networks that were trained before: their checkpoints found, read and rebuilt, and the device that they run on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ripu.config.targets import accept_stored
from ripu.io.errors import ConfigError
from ripu.run import assembly

if TYPE_CHECKING:  # takes long to import: only when something is read
    import torch

    from ripu.datamodule import RipuDataModule
    from ripu.datasets.scenes import SceneDataset
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.module import RipuModule

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""Without one of them Linux has no GPU that PyTorch can use: known without importing it."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ``ripu.train``, whose configuration may name no code but networks.

    Raises:
        ConfigError: The file is damaged, or is not a checkpoint of ``ripu.train``.
    """
    from ripu.models.checkpoints import read_run_checkpoint

    stored = read_run_checkpoint(path)
    stored["hyper_parameters"]["config"] = accept_stored(stored["hyper_parameters"]["config"], path)
    return stored


def restore(path: Path) -> tuple[DictConfig, RipuModule, Taxonomy]:
    """Configuration, module with its weights, and classes of a checkpoint; the data are not touched.

    Raises:
        ConfigError: The file is damaged, or is not a checkpoint of ``ripu.train``.
    """
    stored = read_checkpoint(path)
    trained = OmegaConf.create(stored["hyper_parameters"]["config"])
    taxonomy = assembly.make_taxonomy(trained)
    module = assembly.make_module(trained, taxonomy, is_fresh=False)
    module.load_state_dict(stored["state_dict"])
    return trained, module, taxonomy


def checkpoint_path(given: str) -> Path:
    """The checkpoint file that a user names: a file, or the folder of a run (then its final one).

    Raises:
        ConfigError: It is not there.
    """
    path = Path(given)
    path = path / "checkpoints" / "final.ckpt" if path.is_dir() else path
    if not path.exists():
        raise ConfigError(f"checkpoint={given}: {path} does not exist; name a .ckpt file or a finished run")
    return path


def check_device(accelerator: str, key: str = "trainer.accelerator", devices: Any = "auto") -> None:
    """Refuse devices that this machine does not have.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        key: What it is called on the command line.
        devices: ``trainer.devices``: ``auto``, how many, or which.

    Raises:
        ConfigError: Naming the key, and what there is.
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
        where = f"{key}={accelerator}" + (" on a machine without a GPU" if accelerator == "auto" else "")
        assembly.check_processes(devices, where)
    elif devices not in ("auto", -1, "-1"):
        count = torch.cuda.device_count() if has_cuda else 1
        highest = int(devices) if str(devices).isdigit() else 1 + max(map(int, str(devices).strip("[]").split(",")))
        if highest > count:
            raise ConfigError(
                f"trainer.devices={devices}: this machine has {count} of them (numbered from 0); use auto"
            )


def make_reader(
    cfg: DictConfig, target: SceneDataset, val: SceneDataset, num_workers: int, batch: int
) -> RipuDataModule:
    """A data module of a run that nothing trains on: it reads whole images at the run's sizes.

    Args:
        cfg: The configuration of the run.
        target: What its pool reads.
        val: What its evaluation reads.
        num_workers: Processes that read.
        batch: Images at a time.
    """
    from ripu.datamodule import RipuDataModule

    return RipuDataModule(
        None,
        target,
        val,
        plan=assembly.make_plan(cfg),
        seed=cfg.seed,
        source_size=tuple(cfg.data.source_size),
        target_size=tuple(cfg.data.target_size),
        source_batch=1,
        target_batch=1,
        uses_target=False,
        store=None,
        num_workers=num_workers,
        eval_batch=batch,
    )


def make_device(accelerator: str) -> torch.device:
    """The device of a command that runs without a trainer.

    Args:
        accelerator: ``auto`` (CUDA where there is one), ``cpu``, ``gpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: Another one, or one that this machine does not have.
    """
    import torch

    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise ConfigError(f"accelerator={accelerator} is not allowed; use auto, cpu or gpu")
    check_device(accelerator, "accelerator")
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    elif accelerator == "gpu":
        accelerator = "cuda" if torch.cuda.is_available() else "mps"
    return torch.device(accelerator)
