"""Checks of a composed configuration: every key is one that something reads, and every value is allowed.

``conf/`` says which keys exist and which types they have; :mod:`ripu.config.keys` says the rest.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ripu.config import keys, resolvers  # noqa: F401  conf/ needs the resolvers
from ripu.config.key_messages import fault, near
from ripu.io.errors import ConfigError
from ripu.io.reading import leaves


def config_dir() -> str:
    """Return the absolute path of the yaml files: ``conf/`` of a checkout, ``ripu/conf`` of an installed wheel."""
    packed = Path(str(resources.files("ripu"))) / "conf"
    return str(packed if packed.is_dir() else Path(__file__).resolve().parents[3] / "conf")


@functools.cache
def _file_leaves(path: Path) -> Mapping[str, type | None]:
    """Return the keys of a yaml file with their types; None if another key or the user gives the value."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    content.pop("defaults", None)
    return {
        key: None if isinstance(value, str) and ("${" in value or value == "???") else type(value)
        for key, value in leaves(content).items()
    }


def _option_files(group: Path, choice: str | None) -> list[Path]:
    """Return the yaml file of an option and of its defaults; of an option that is the user's own, all of the group."""
    path = group / f"{choice}.yaml"
    if choice is None or not path.exists():
        return sorted(group.glob("*.yaml"))
    content: Any = OmegaConf.load(path)
    names = [name for name in content.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    return [path, *(file for name in names for file in _option_files(group, name))]


def known_keys(config_name: str, choices: Mapping[str, str | None] | None = None) -> dict[str, frozenset[type]]:
    """Return the keys of a command with the types that they have in ``conf/``; none if another key gives the value.

    ``choices`` maps groups to options; without it, all options of all groups count together.
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
            if "@package _global_" not in path.read_text("utf-8"):
                add(path, f"{group.name}.")
                if not _file_leaves(path):  # an option that stands for nothing
                    found.setdefault(group.name, {dict})
    return {key: frozenset(kinds) for key, kinds in found.items()}


def values_of(cfg: DictConfig) -> dict[str, Any]:
    """Return the values of a configuration by key, resolved and plain, without ``hydra`` and missing ones.

    A configuration without a data set is a part, which a run completes: its references may lead nowhere. Other
    references that lead nowhere are refused.
    """
    found: dict[str, Any] = {}
    is_part = "dataset" not in cfg

    def walk(node: DictConfig, prefix: str) -> None:
        """Add the values of a node, whose keys begin with ``prefix``."""
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
                if is_part or "${hydra:" in str(OmegaConf.to_container(node, resolve=False)[key]):  # type: ignore[index]
                    continue
                cause = str(error).splitlines()[0]
                raise ConfigError(f"{name} cannot be resolved: {cause}; correct what it refers to") from error
            found[name] = value

    walk(cfg, "")
    return found


def _objects(cfg: DictConfig) -> list[str]:
    """Return the keys of the nodes that describe objects."""
    names = leaves(OmegaConf.to_container(cfg, resolve=False))
    return [name.removesuffix("._target_") for name in names if name.endswith("._target_")]


def check_keys(cfg: DictConfig, known: Collection[str]) -> None:
    """Refuse keys of a composed configuration that nothing reads.

    A key is read if it is ``known`` from the yaml file of the command or of a chosen option, if it is an argument of an
    object, or if another value refers to it.
    """
    targets = _objects(cfg)
    raw = OmegaConf.to_yaml(cfg, resolve=False)
    used = set(re.findall(r"[\w.]+", " ".join(re.findall(r"\$\{.*\}", raw))))
    for key, value in values_of(cfg).items():
        parents = [key[: match.start()] for match in re.finditer(r"\.", key)]
        is_read = (
            key in known
            or key in used
            or keys.is_own_word(key)
            or any(parent in used or parent in targets for parent in parents)
            or (value in ({}, None) and any(one.startswith(f"{key}.") for one in known))
        )
        if not is_read:
            raise ConfigError(f"{key}={value}: nothing reads the key {key}{near(key, known)}")


def check_values(cfg: DictConfig, config_name: str) -> None:
    """Refuse values of the wrong type or out of range in a composed configuration of a command."""
    known = known_keys(config_name)
    values = values_of(cfg)
    raw = OmegaConf.to_container(cfg, resolve=False)
    for key, types in known.items():
        given: Any = raw
        for name in key.split("."):
            given = given.get(name) if isinstance(given, dict) else None
        has_rule = keys.key_of(key).rule is not None or (types and dict not in types)
        if has_rule and isinstance(given, dict) and given:  # a mapping, although one value is meant
            values[key] = given
    for key, value in values.items():
        if (line := fault(key, value, known.get(key, frozenset()))) is not None:
            raise ConfigError(line)


def check_arguments(cfg: DictConfig, known: Collection[str]) -> None:
    """Refuse arguments that an object does not take; objects with arguments beyond ``known`` keys are imported."""
    for key in _objects(cfg):
        node = OmegaConf.select(cfg, key)
        given = [str(name) for name in node if not str(name).startswith("_")]
        if all(f"{key}.{name}" in known for name in given):
            continue
        made = locate(str(node._target_), f"{key}._target_")
        try:
            parameters = inspect.signature(made).parameters
        except (TypeError, ValueError):
            continue
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        for name in given:
            if name not in parameters and f"{key}.{name}" not in known:  # else the package reads it itself
                hint = near(f"{key}.{name}", [f"{key}.{one}" for one in parameters])
                raise ConfigError(f"{key}.{name}={node[name]}: {node._target_} has no argument {name}{hint}")


def locate(target: str, key: str) -> Any:
    """Return the object of a dotted name; ``key`` is its place in the configuration, for the message.

    Raises:
        ConfigError: The object does not exist.
    """
    log = logging.getLogger("hydra.utils")
    before = log.disabled
    log.disabled = True  # it would log what is raised below
    try:
        return get_object(target)
    except Exception as error:  # importing a module may fail in any way
        folder, _, name = target.rpartition(".")
        names = dir(sys.modules[folder]) if folder in sys.modules else []
        hint = near(name, [other for other in names if not other.startswith("_")])
        cause = str(error.__cause__ or error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{key}={target} cannot be found ({cause}){hint}") from error
    finally:
        log.disabled = before
