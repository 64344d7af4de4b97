"""Objects that a configuration names by ``_target_``: only those of the kind that their place asks for.

A checkpoint contains the configuration of its run. Whoever can write the file could name any installed function, so
nothing that it names is made before each ``_target_`` has been checked against
:attr:`ripu.config.key_properties.Key.target`. The check imports the module that a ``_target_`` names, so a module in
the current folder, which may have come with the file, is refused unless the user has named that folder. Python's own
search stays as it is, which protects less than taking the folder out of ``sys.path``: what an accepted module imports
in turn may come from the current folder.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ripu.config.key_properties import Target
from ripu.config.keys import target_of
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


def accept_stored(config: Any, source: Path, *, is_own: bool = False) -> dict[str, Any]:
    """Check a stored configuration that somebody else may have written, and return it with today's keys.

    Nothing that it names is called.

    Args:
        config: The configuration.
        source: The file that it comes from, for messages.
        is_own: The file is the user's own, who may have code in the current folder.

    Raises:
        ConfigError: It is not a mapping, a ``_target_`` names an object that does not belong in its place or lies in
            the current folder, or a value refers to something outside the configuration.
    """

    def walk(node: Any, key: str) -> None:
        """Check the value of a key and everything below it."""
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
            if kind and not is_own and _is_in_current_folder(target):
                raise ConfigError(
                    f"{source}: {key}._target_={target} is in the current folder, from which a checkpoint has nothing "
                    f"imported; if it is your own code, set PYTHONPATH=. or import {target.partition('.')[0]} first"
                )
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


def _is_in_current_folder(target: str) -> bool:
    """Return whether Python would import a dotted name from the current folder, which nobody has named.

    ``python -m`` and ``python -c`` search that folder, once. It is named if PYTHONPATH or an installed package adds it
    again. What is imported already comes from where its importer wanted it to.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # the folder has been removed
        return False
    named = [os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if here in named or [os.path.realpath(entry or here) for entry in sys.path].count(here) > 1:
        return False
    parts, search = target.split("."), list(sys.path)
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name in sys.modules:
            found = getattr(sys.modules[name], "__spec__", None)
        else:
            found = PathFinder.find_spec(name, search)
            if found is not None and found.origin is not None:
                place = os.path.dirname(found.origin)
                inside = parts[:count] if found.submodule_search_locations is not None else parts[: count - 1]
                return os.path.realpath(place) == os.path.realpath(os.path.join(here, *inside))
        if found is None or found.origin is not None:
            return False
        search = list(found.submodule_search_locations or ())  # a folder without __init__.py: others may have parts
    return False


def check_target(target: str, key: str) -> None:
    """Refuse a dotted name in node ``key`` of a command line that names no object, or one of the wrong kind."""
    kind = target_of(key)
    if kind in ("", "any"):
        return
    is_kind, words = _KINDS[kind]
    if not is_kind(locate(target, f"{key}._target_")):
        raise ConfigError(f"{key}._target_={target} is not {words}; name one")
