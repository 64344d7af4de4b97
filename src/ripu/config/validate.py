"""A configuration is checked before anything is done: every key is read by somebody, every value is one that can be.

What is allowed is read from ``conf/`` itself (which keys there are, and their types) and from :mod:`ripu.config.keys`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ripu.config import keys
from ripu.io.errors import ConfigError

_OPEN = ("dataset.classes", "dataset.ids", "dataset.subsets", "dataset.color_map")
"""Mappings whose keys are the user's own words."""

_OPTIONAL = ("dataset.recipe.source_sampling", "dataset.recipe.flip")
"""Keys that are read where they are given, and are not in every yaml."""


def config_dir() -> str:
    """The absolute path of the configuration tree: ``conf/`` of a checkout, ``ripu/conf`` of an installed wheel."""
    packed = Path(str(resources.files("ripu"))) / "conf"
    return str(packed if packed.is_dir() else Path(__file__).resolve().parents[3] / "conf")


@functools.cache
def _file_leaves(path: Path) -> Mapping[str, type | None]:
    """Leaves of a yaml of ``conf/`` with their types; None where another key or the user gives the value."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    content.pop("defaults", None)
    found: dict[str, type | None] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and value:
                walk(value, f"{name}.")
            else:
                is_open = isinstance(value, str) and ("${" in value or value == "???")
                found[name] = None if is_open else type(value)

    walk(content, "")
    return found


def _option_files(group: Path, choice: str | None) -> list[Path]:
    """The yaml of an option with those that it begins from; all of the group where the option is the user's own."""
    path = group / f"{choice}.yaml"
    if choice is None or not path.exists():
        return sorted(group.glob("*.yaml"))
    content: Any = OmegaConf.load(path)
    parents = content.get("defaults", [])
    names = [str(parent) for parent in parents if isinstance(parent, str) and parent != "_self_"]
    return [path, *(file for name in names for file in _option_files(group, name))]


def known_keys(config_name: str, choices: Mapping[str, str | None] | None = None) -> dict[str, frozenset[type]]:
    """The keys of a command.

    Args:
        config_name: Its yaml in ``conf/``.
        choices: Group -> option; None takes all options of all groups together.

    Returns:
        Key -> the types that it has in ``conf/``; none where another key gives its value.
    """
    root = Path(config_dir())
    found: dict[str, set[type]] = {}

    def add(path: Path, prefix: str) -> None:
        for key, kind in _file_leaves(path).items():
            found.setdefault(prefix + key, set()).update({kind} if kind is not None else ())

    add(root / f"{config_name}.yaml", "")
    for group in sorted(path for path in root.iterdir() if path.is_dir() and path.name != "hydra"):
        if choices is not None and group.name not in choices:
            continue
        for path in _option_files(group, None if choices is None else choices[group.name]):
            if "@package _global_" not in path.read_text():
                add(path, f"{group.name}.")
    return {key: frozenset(kinds) for key, kinds in found.items()}


def leaves(cfg: DictConfig) -> dict[str, Any]:
    """Leaves of a configuration by key, resolved and plain; without the node of Hydra and what nobody has given yet.

    What a part of a configuration (one without a data set, which a run completes) refers to may be missing.

    Raises:
        ConfigError: A value refers to a key that is not there.
    """
    found: dict[str, Any] = {}
    is_part = "dataset" not in cfg

    def walk(node: DictConfig, prefix: str) -> None:
        for key in node:
            name = f"{prefix}{key!s}"
            if name == "hydra" or OmegaConf.is_missing(node, key):
                continue
            try:
                value = node[key]
                if isinstance(value, DictConfig) and len(value):
                    walk(value, f"{name}.")
                    continue
                if isinstance(value, (DictConfig, ListConfig)):
                    value = OmegaConf.to_container(value, resolve=True)
            except InterpolationToMissingValueError:
                continue
            except OmegaConfBaseException as error:
                if is_part or "${hydra:" in str(node._get_node(key)):
                    continue
                cause = str(error).splitlines()[0]
                raise ConfigError(f"{name} cannot be resolved: {cause}; correct what it refers to") from error
            found[name] = value

    walk(cfg, "")
    return found


def argument_nodes(cfg: DictConfig) -> list[str]:
    """Keys of the nodes that describe objects."""
    found: list[str] = []

    def walk(node: Any, name: str) -> None:
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            if "_target_" in node:
                found.append(name)
            for key in node:
                if (name == "" and key == "hydra") or OmegaConf.is_missing(node, key):
                    continue
                if not OmegaConf.is_interpolation(node, str(key)):
                    walk(node[key], f"{name}.{key!s}" if name else str(key))

    walk(cfg, "")
    return found


def check_keys(cfg: DictConfig, config_name: str, choices: Mapping[str, str | None] | None = None) -> None:
    """Refuse keys that nothing reads.

    A key is read if it is in the yaml of the command or of the chosen options, if it is an argument of an object, or if
    another value refers to it.

    Args:
        cfg: The composed configuration.
        config_name: The yaml of the command in ``conf/``.
        choices: Group -> option.

    Raises:
        ConfigError: Naming the key, its value and the nearest valid name.
    """
    known = known_keys(config_name, choices)
    targets = argument_nodes(cfg)
    raw = OmegaConf.to_yaml(cfg, resolve=False)
    used = set(re.findall(r"[\w.]+", " ".join(re.findall(r"\$\{.*\}", raw))))
    for key, value in leaves(cfg).items():
        parents = [key[:end] for end in (match.start() for match in re.finditer(r"\.", key))]
        if key in known or key in _OPTIONAL or any(key == one or key.startswith(f"{one}.") for one in _OPEN):
            continue
        if any(parent in targets for parent in parents):
            continue  # an argument: the object's signature tells
        if key in used or any(parent in used for parent in parents):
            continue
        if value in ({}, None) and any(one.startswith(f"{key}.") for one in known):
            continue
        raise ConfigError(f"{key}={value}: nothing reads the key {key}{keys.near(key, known)}")


def check_values(cfg: DictConfig, config_name: str) -> None:
    """Refuse values of the wrong type or out of range.

    Args:
        cfg: The composed configuration.
        config_name: The yaml of the command in ``conf/``.

    Raises:
        ConfigError: Naming the key, its value and what is allowed.
    """
    known = known_keys(config_name)
    for key, value in leaves(cfg).items():
        said = keys.fault(key, value, known.get(key, frozenset()))
        if said is not None:
            raise ConfigError(said)
    for key, kinds in known.items():
        if key in keys.RULES or (kinds and dict not in kinds):
            given = OmegaConf.select(cfg, key, throw_on_missing=False) if _is_mapping(cfg, key) else None
            if isinstance(given, DictConfig) and len(given) and not given._is_none():
                said = keys.fault(key, OmegaConf.to_container(given), kinds)
                if said is not None:
                    raise ConfigError(said)


def _is_mapping(cfg: DictConfig, key: str) -> bool:
    """Whether a key that is in the configuration holds a mapping itself, not by reference to another."""
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or name not in list(node):
            return False
        node = node._get_node(name)
    return isinstance(node, DictConfig) and not node._is_interpolation() and not node._is_missing()


def check_arguments(node: DictConfig, key: str) -> None:
    """Refuse arguments that an object does not take.

    Args:
        node: Describes the object by ``_target_``.
        key: Where the node stands in the configuration, for the message.

    Raises:
        ConfigError: There is no such object, or it has no such argument.
    """
    made = locate(str(node._target_), f"{key}._target_")
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in map(str, node):
        if name not in parameters and not name.startswith("_"):
            names = [f"{key}.{one}" for one in parameters]
            raise ConfigError(
                f"{key}.{name}={node[name]}: {node._target_} has no argument {name}{keys.near(f'{key}.{name}', names)}"
            )


def locate(target: str, key: str) -> Any:
    """The object of a dotted name.

    Args:
        target: The name.
        key: Where it stands in the configuration, for the message.

    Raises:
        ConfigError: There is no such object.
    """
    from hydra.utils import get_object

    log = logging.getLogger("hydra.utils")
    before = log.disabled
    log.disabled = True  # what it says is said below
    try:
        return get_object(target)
    except Exception as error:  # importing a module may fail in any way
        folder, _, name = target.rpartition(".")
        hint = ""
        if folder in sys.modules:
            hint = keys.near(name, [one for one in dir(sys.modules[folder]) if not one.startswith("_")])
        cause = str(error.__cause__ or error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{key}={target} cannot be found ({cause}){hint}") from error
    finally:
        log.disabled = before
