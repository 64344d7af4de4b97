"""The ``config.yaml`` of a run, written, and read with today's keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ripu.config.keys import key_of
from ripu.config.migrate import upgrade
from ripu.io.reading import UntrustedError, leaves, read_yaml


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return a plain configuration as the text of ``config.yaml``."""
    return OmegaConf.to_yaml(OmegaConf.create({**config}))


def read_stored(path: Path) -> dict[str, Any]:
    """Read the configuration of a run that may be older than today's keys.

    Args:
        path: Its ``config.yaml``.

    Raises:
        UntrustedError: It is damaged, or not a mapping.
        OSError: It cannot be read.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UntrustedError(f"{path} holds no configuration")
    return upgrade(content)


def read_values(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the configuration of a run by dotted key.

    Returns:
        All values, and those that tell runs apart: not how fast, where and with which seed they were trained.
    """
    values = leaves(read_stored(path))
    return values, {key: value for key, value in values.items() if key_of(key).is_compared}
