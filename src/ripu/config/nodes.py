"""Plain nodes of a configuration, and what is made of them: objects that ``_target_`` names, and dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from ripu.io.errors import ConfigError, RipuError, is_out_of_memory

Node = Mapping[str, Any]
"""A plain node with ``_target_``, which :func:`instantiate` makes an object of."""

_T = TypeVar("_T")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain, resolved containers; refuse a data set without classes."""
    if "dataset" in cfg and OmegaConf.is_missing(cfg.dataset, "classes"):
        raise ConfigError(
            f"dataset={cfg.dataset.name} needs dataset.classes, the names of the classes; docs/your-own-data.md shows "
            "how to describe your own data"
        )
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def instantiate(node: Any, **more: Any) -> Any:
    """Make the object that a node describes by its ``_target_``.

    Raises:
        ValueError: The object refuses its arguments; the message is its own.
    """
    try:
        return hydra.utils.instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, (ValueError, RuntimeError)):
            raise ConfigError(str(error)) from error
        if isinstance(cause, RipuError) or is_out_of_memory(cause):
            raise cause from None
        said = " ".join(str(cause).split())
        raise ConfigError(f"{node['_target_']} refuses its arguments ({said[:300]}); correct them") from error


def fill(kind: type[_T], node: Mapping[str, Any]) -> _T:
    """Make a dataclass from the entries of a plain node that it has fields for."""
    return kind(
        **{
            field.name: tuple(node[field.name]) if str(field.type).startswith("tuple") else node[field.name]
            for field in fields(kind)  # type: ignore[arg-type]
        }
    )


def own_arguments(node: Mapping[str, Any], kind: type) -> Node:
    """Return a node without the keys that the package reads itself, which are the fields of ``kind``."""
    ours = {field.name for field in fields(kind)}
    return {key: value for key, value in node.items() if key not in ours}
