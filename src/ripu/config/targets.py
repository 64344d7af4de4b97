"""Objects that a configuration names by ``_target_``: only those of the kind that their place asks for.

A checkpoint contains the configuration of its run. Whoever can write the file could name any installed function, so
nothing that it names is made before each ``_target_`` has been checked against :attr:`ripu.config.keys.Key.target`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ripu.config.keys import Target, target_of
from ripu.config.migrate import upgrade
from ripu.config.validate import locate
from ripu.io.errors import ConfigError


def _is_network(found: Any) -> bool:
    from torch import nn

    return isinstance(found, type) and issubclass(found, nn.Module)


def _is_optimizer(found: Any) -> bool:
    from torch.optim import Optimizer

    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        return False
    closure = inspect.signature(found.step).parameters.get("closure")
    return closure is not None and closure.default is not closure.empty  # Lightning passes one


def _is_loader(found: Any) -> bool:
    if isinstance(found, type) or not callable(found):
        return False
    returns = str(getattr(found, "__annotations__", {}).get("return", ""))
    is_own = str(getattr(found, "__module__", "")).startswith("ripu.datasets.")
    return is_own or returns.rpartition(".")[2].rstrip("'>") in ("SceneDataset", "Taxonomy")


_KINDS: Mapping[Target, tuple[Callable[[Any], bool], str]] = {
    "": (lambda found: False, "nothing"),
    "network": (_is_network, "a network"),
    "score": (lambda found: isinstance(found, type) and hasattr(found, "needs_image"), "a score"),
    "oracle": (lambda found: isinstance(found, type) and hasattr(found, "is_person"), "an oracle"),
    "shape": (lambda found: isinstance(found, type) and hasattr(found, "is_fixed"), "a shape of regions"),
    "objective": (lambda found: isinstance(found, type) and hasattr(found, "needs_teacher"), "an objective"),
    "optimizer": (_is_optimizer, "an optimiser of torch whose step may have a closure and needs none"),
    "loader": (_is_loader, "a loader of data"),
    "class table": (_is_loader, "a class table"),
}
"""Kind -> its test, and the words for it."""


def accept_stored(config: Any, source: Path) -> dict[str, Any]:
    """Check a stored configuration that somebody else may have written, and return it with today's keys.

    Nothing that it names is called. ``source`` is the file that it comes from, for messages.

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
        if "_target_" in node and (kind := target_of(key)) != "any":
            target = str(node["_target_"])
            is_kind, words = _KINDS[kind]
            if not kind or not is_kind(locate(target, f"{source}: {key}._target_")):
                raise ConfigError(
                    f"{source}: its configuration names {key}._target_={target}, where {words} belongs; a checkpoint "
                    "cannot name other code. Do not use the file, unless it is your own: then train from a "
                    "configuration instead"
                )
        for name, value in node.items():
            walk(value, f"{key}.{name}" if key else str(name))

    if not isinstance(config, Mapping):
        raise ConfigError(f"{source}: its configuration is a {type(config).__name__}, not a mapping; it is not used")
    upgraded = upgrade(config)
    walk(upgraded, "")
    return upgraded


def check_target(target: str, key: str) -> None:
    """Refuse a dotted name in node ``key`` of a command line that names no object, or one of the wrong kind."""
    kind = target_of(key)
    if kind in ("", "any"):
        return
    is_kind, words = _KINDS[kind]
    if not is_kind(locate(target, f"{key}._target_")):
        raise ConfigError(f"{key}._target_={target} is not {words}; name one")
