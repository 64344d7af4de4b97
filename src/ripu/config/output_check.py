"""A check of the output folder of a run, before anything else is done."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ripu.io.errors import ConfigError


def _is_writable(folder: Path) -> bool:
    """Try to make a folder in another: permissions do not settle it on every file system."""
    probe = folder / f".ripu-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _check_default_name(cfg: DictConfig) -> None:
    """Refuse a folder named by the time where it must exist already, or be the same for several processes."""
    if cfg.resume:
        raise ConfigError(
            "resume=true resumes the run in paths.output_dir, which is not given; add paths.output_dir=RUN"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("processes that torchrun starts need a folder that they share; add paths.output_dir=RUN")


def check_output(cfg: DictConfig) -> None:
    """Refuse an output folder that a run cannot have.

    Args:
        cfg: The configuration of a run: ``paths.output_dir``, and the folders of its data set.

    Raises:
        ConfigError: It is a file, lies below one, cannot be written to, or lies in the data set; or it is not given,
            and the run is to be resumed or has processes of torchrun.
    """
    if "ripu.started" in str(OmegaConf.to_container(cfg.paths, resolve=False)["output_dir"]):  # type: ignore[index,call-overload]
        _check_default_name(cfg)
    given = OmegaConf.select(cfg, "paths.output_dir")
    if OmegaConf.select(cfg, "paths.data_root") is None:
        raise ConfigError("paths.data_root=null is not allowed; name the parent of the data sets' folders")
    folder = Path(os.path.abspath(str(given)))
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise ConfigError(f"paths.output_dir={given}: {there} is a file; name a folder")
    if not _is_writable(there):
        raise ConfigError(f"paths.output_dir={given}: {there} cannot be written to; name another folder")
    for part in ("source", "target", "val"):
        root = OmegaConf.select(cfg, f"dataset.{part}.root")
        if OmegaConf.select(cfg, f"dataset.{part}._target_") == "ripu.datasets.folder.load_folder":
            continue  # the user's own data may lie anywhere
        if root and folder.is_relative_to(os.path.abspath(str(root))):
            raise ConfigError(
                f"paths.output_dir={given} lies in the data set (dataset.{part}.root={root}); name a folder outside it"
            )
