"""A configuration that comes out of a file is not trusted: what it may name, and what it may not.

A checkpoint holds the configuration of its run, whose ``_target_`` entries name objects to be made. Whoever can write
the file could name any function that is installed, so each entry must be of the kind that its place asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ripu.config.migrate import upgrade
from ripu.config.validate import locate
from ripu.io.errors import ConfigError


def _is_network(made: Any) -> bool:
    from torch import nn

    return isinstance(made, type) and issubclass(made, nn.Module)


def _is_score(made: Any) -> bool:
    return isinstance(made, type) and hasattr(made, "needs_image")


def _is_shape(made: Any) -> bool:
    return isinstance(made, type) and hasattr(made, "is_fixed")


def _is_loader(made: Any) -> bool:
    if isinstance(made, type) or not callable(made):
        return False
    returns = str(getattr(made, "__annotations__", {}).get("return", ""))
    is_own = str(getattr(made, "__module__", "")).startswith("ripu.datasets.")
    return is_own or returns.rpartition(".")[2].rstrip("'>") in ("SceneDataset", "Taxonomy")


KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_network, "a network"),
    "acquisition": (_is_score, "a score"),
    "region": (_is_shape, "a shape of regions"),
    "dataset.prepare": (_is_loader, "a loader of data"),
    "dataset.source": (_is_loader, "a loader of data"),
    "dataset.target": (_is_loader, "a loader of data"),
    "dataset.val": (_is_loader, "a loader of data"),
    "dataset.taxonomy": (_is_loader, "a class table"),
}
"""What may be named where."""

UNUSED = ("data.transforms", "dataset.recipe.transforms", "logger")
"""Places whose objects are made in training alone, from the user's own configuration, and never from a file."""


def accept_stored(config: Any, source: Path) -> dict[str, Any]:
    """Check a stored configuration that somebody else may have written, and bring it up to today's keys.

    Nothing that it names is called.

    Args:
        config: The plain configuration.
        source: The file that it comes from, for messages.

    Returns:
        The configuration with today's keys; see :func:`ripu.config.migrate.upgrade`.

    Raises:
        ConfigError: It is not a mapping, a ``_target_`` names an object that does not belong in its place, or a value
            refers to something outside the configuration.
    """

    def walk(node: Any, key: str) -> None:
        if isinstance(node, str) and "${" in node:
            raise ConfigError(f"{source}: {key}={node} in its configuration refers to this machine; it is not used")
        if isinstance(node, (list, tuple)):
            for position, value in enumerate(node):
                walk(value, f"{key}.{position}")
        if not isinstance(node, Mapping):
            return
        if "_target_" in node and not any(key == one or key.startswith(f"{one}.") for one in UNUSED):
            _check_stored_target(str(node["_target_"]), key, source)
        for name, value in node.items():
            walk(value, f"{key}.{name}" if key else str(name))

    if not isinstance(config, Mapping):
        raise ConfigError(f"{source}: its configuration is a {type(config).__name__}, not a mapping; it is not used")
    upgraded = upgrade(config)
    walk(upgraded, "")
    return upgraded


def check_target(target: str, key: str) -> None:
    """Refuse an object that a command line names and that is not there, or of a kind that its place has no use for.

    Args:
        target: Its dotted name.
        key: The node that it stands in.

    Raises:
        ConfigError: Naming it, and what belongs there.
    """
    is_kind, what = KINDS[key]
    if not is_kind(locate(target, f"{key}._target_")):
        raise ConfigError(f"{key}._target_={target} is not {what}; name one")


def _check_stored_target(target: str, key: str, source: Path) -> None:
    is_kind, what = KINDS.get(key, (lambda made: False, "nothing"))
    if key not in KINDS or not is_kind(locate(target, f"{source}: {key}._target_")):
        raise ConfigError(
            f"{source}: its configuration names {key}._target_={target}, where {what} belongs; a checkpoint cannot name other "
            "code. Do not use the file, unless it is your own: then train from a configuration instead"
        )
