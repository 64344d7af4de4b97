"""The folder of a run: it is free or can be resumed, one process holds it, and its configuration marks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripu.config.keys import key_of
from ripu.config.migrate import upgrade
from ripu.config.stored import read_stored, to_yaml
from ripu.io.errors import ConfigError
from ripu.io.lock import FileLock
from ripu.io.reading import UntrustedError, leaves
from ripu.io.shell import argument
from ripu.io.writing import write_bytes, writing
from ripu.run.processes import early_rank
from ripu.training.checkpoint_callback import remove_leftovers

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"


def check_free(run: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a folder that holds a run already, unless that run can be resumed.

    Args:
        run: The folder.
        config: The resolved configuration.
        resume: True to resume an existing run.

    Raises:
        ConfigError: A run is there and ``resume`` is not set, or it was started with other settings.
    """
    record = run / CONFIG_FILE
    if not record.exists() or early_rank() != 0:
        return
    if not resume:
        raise ConfigError(
            f"paths.output_dir={run} holds a run already; add resume=true to resume it, or name another folder"
        )
    try:
        old = leaves(read_stored(record))
    except UntrustedError as error:
        raise ConfigError(f"{error}; restore it, or name another paths.output_dir") from error
    new = leaves(upgrade(config))
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key_of(key).may_change
    ]
    if changed:
        raise ConfigError(
            f"the run in {run} was started with other settings ({'; '.join(changed[:5])}); resume it with the same "
            "ones, or name another paths.output_dir. More steps, rounds or budget for a finished run: a warm start "
            f"with its network and all of its labels, {argument('start.run', run)} paths.output_dir=NEW"
        )


def claim(run: Path, config: Mapping[str, Any]) -> FileLock | None:
    """Make the folder of a run, lock it for this process, and write its configuration, which marks it as a run.

    Args:
        run: The folder.
        config: The resolved configuration.

    Returns:
        The lock, to be released; None on ranks other than 0.

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
        write_bytes(run / CONFIG_FILE, to_yaml(config).encode())
    except BaseException:
        lock.release()
        raise
    return lock
