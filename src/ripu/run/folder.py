"""The folder of a run: whether it is free, who has it, and the configuration that marks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ripu.config.migrate import upgrade
from ripu.io.errors import ConfigError
from ripu.io.lock import FileLock
from ripu.io.reading import UntrustedError, leaves, read_yaml
from ripu.io.writing import write_bytes, writing
from ripu.run import initial_labels
from ripu.run.processes import early_rank
from ripu.training.checkpoint import remove_leftovers

__all__ = ["check_free", "claim"]

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"
_MAY_CHANGE = (
    *(
        "resume",
        "dry_run",
        "paths",
        "logger",
        "trainer",
        "checkpoint",
        "evaluation",
        "protocol.flip",
        "dataset.recipe.flip",
    ),
    *("data.num_workers", "data.cache", "data.unreadable"),
    *(
        "dataset.recipe.region_side",
        "dataset.recipe.region_pixels",
    ),  # what they decide stands in region; older runs lack them
)
"""Keys that a run may be picked up with other values of: they do not change what is learnt, but for _MAY_NOT_CHANGE."""

_MAY_NOT_CHANGE = ("trainer.max_steps", "trainer.accumulate")
"""The length of the run, and the images of a step and so which they are."""


def check_free(run: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Find that a folder can take a run: it holds none, or one that may go on.

    Args:
        run: The folder.
        config: The resolved configuration.
        resume: Whether an existing run is gone on with.

    Raises:
        ConfigError: A run is there and ``resume`` is not set, or it was started with other settings.
    """
    record = run / CONFIG_FILE
    if not record.exists() or early_rank() != 0:
        return
    if not resume:
        raise ConfigError(
            f"paths.output_dir={run} holds a run already; add resume=true to go on with it, or name another folder"
        )
    try:
        old = read_yaml(record)
    except UntrustedError as error:
        raise ConfigError(f"{error}; restore it, or name another paths.output_dir") from error
    if not isinstance(old, dict):
        raise ConfigError(f"{record} holds no configuration; restore it, or name another paths.output_dir")
    _check_same(OmegaConf.create(upgrade(old)), OmegaConf.create({**config}), run)


def claim(run: Path, config: Mapping[str, Any]) -> FileLock | None:
    """Make the folder of a run, take it for this process alone, and write its configuration, which marks it as a run.

    Args:
        run: The folder.
        config: The resolved configuration.

    Returns:
        What holds the folder, to be released; None on ranks other than 0.

    Raises:
        LockedError: Another process is at work in it.
    """
    if early_rank() != 0:
        return None
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / LOCK_FILE)
    try:
        remove_leftovers(run)
        write_bytes(run / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create({**config})).encode())
    except BaseException:
        lock.release()
        raise
    return lock


def _check_same(old: Any, new: Any, run: Path) -> None:
    changed: list[str] = []
    if not initial_labels.is_given(OmegaConf.create({"start": old.get("start")})) and not initial_labels.is_given(new):
        old, new = (OmegaConf.masked_copy(one, [key for key in one if key != "start"]) for one in (old, new))
    for key in sorted(_leaves(old).keys() | _leaves(new).keys()):
        is_free = any(key == free or key.startswith(f"{free}.") for free in _MAY_CHANGE) and key not in _MAY_NOT_CHANGE
        before, after = _leaves(old).get(key), _leaves(new).get(key)
        if before != after and not is_free and not key.endswith(".root"):
            changed.append(f"{key}: {before} -> {after}")
    if changed:
        raise ConfigError(
            f"the run in {run} was started with other settings ({'; '.join(changed[:5])}); go on with the same ones, or name "
            f"another paths.output_dir. More steps, rounds or budget for a finished run: start.run={run} paths.output_dir=NEW, "
            "which begins with its network and all of its labels"
        )


def _leaves(cfg: Any) -> dict[str, Any]:
    return leaves(OmegaConf.to_container(cfg))
