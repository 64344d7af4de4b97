"""The folder of a run: free or to be resumed, locked by one process, and marked by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripu.config.keys import key_of
from ripu.config.migrate import read_stored, to_yaml, upgrade
from ripu.io.console import argument
from ripu.io.errors import ConfigError
from ripu.io.lock import FileLock
from ripu.io.reading import UntrustedError, leaves
from ripu.io.writing import write_bytes, writing
from ripu.run.device import early_rank
from ripu.training.checkpoint_callback import remove_leftovers


def check_free(run: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a folder that contains a run, unless ``resume`` is set and the run has the same resolved configuration."""
    record = run / "config.yaml"
    if not record.exists() or early_rank() != 0:
        return
    if not resume:
        raise ConfigError(
            f"paths.output_dir={run} contains a run already; add resume=true to resume it, or name another folder"
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
    """Make the folder of a run and write its resolved configuration; return its lock, or None on ranks other than 0.

    Raises:
        LockedError: Another process is using the folder.
    """
    if early_rank() != 0:
        return None
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / ".lock")
    try:
        remove_leftovers(run)
        write_bytes(run / "config.yaml", to_yaml(config).encode())
    except BaseException:
        lock.release()
        raise
    return lock
