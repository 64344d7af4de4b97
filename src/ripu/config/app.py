"""What stands in front of an entry point: every word of its command line is checked before anything is done.

What Hydra says about a command line in many lines, or lets pass, is said here in one: the key, the value, what is
allowed and the nearest valid name; for ``-m`` and ``--cfg`` too.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ripu.config import keys
from ripu.config.targets import KINDS, check_target
from ripu.config.validate import argument_nodes, check_arguments, check_keys, check_values, config_dir, known_keys
from ripu.io import interrupt
from ripu.io.errors import ConfigError, line_of

SWEEP_SECONDS = 10.0
"""Jobs of a sweep are all checked before the first one runs, as far as this time allows; the others when they start."""


def command(config_name: str, check: Callable[[DictConfig], None] = lambda cfg: None) -> Callable[[Any], Any]:
    """Make a function a command line: ``hydra.main`` behind a check of everything that the user has given.

    Args:
        config_name: The yaml of the command in ``conf/``.
        check: Refuses configurations with :class:`ConfigError`, without taking long.
    """
    import hydra

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        run = hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(task)

        @functools.wraps(task)
        def main() -> Any:
            interrupt.begin()
            try:
                return checked()
            except KeyboardInterrupt:
                raise SystemExit(interrupt.told("stopped")) from None
            except OSError as error:  # Hydra makes the folder of a run
                line = line_of(error)
                if line is None:
                    raise
                print(f"\nerror: {line}", file=sys.stderr)
                raise SystemExit(1) from None

        def checked() -> Any:
            try:
                for said in check_command_line(sys.argv[1:], config_name, check):
                    print(f"warning: {said}", file=sys.stderr)
            except ValueError as error:
                line = line_of(error)
                if line is None:
                    raise
                print(f"\nerror: {line}", file=sys.stderr)
                raise SystemExit(1) from None
            try:
                return run()
            except BrokenPipeError:  # the reader has seen enough: python -m ripu.train --help | head
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(1) from None

        return main

    return decorate


def given_words() -> list[str]:
    """The words of the command that goes on, a folder of the user's own configurations first; none outside a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    return [*(word for folder in folders for word in ("--config-dir", folder)), *HydraConfig.get().overrides.task]


def check_command_line(argv: Sequence[str], config_name: str, check: Callable[[DictConfig], None]) -> list[str]:
    """Check a command line, every job of a sweep.

    Args:
        argv: The words behind the command.
        config_name: The yaml of the command in ``conf/``.
        check: Refuses configurations with :class:`ConfigError`.

    Returns:
        Lines on what is given and has no effect.

    Raises:
        ConfigError: Naming what is wrong, and the nearest valid name.
        ValueError: What a check says.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.utils import setup_globals

    args = get_args_parser().parse_args(list(argv))
    if args.help or args.hydra_help or args.shell_completion or args.info or args.experimental_rerun:
        return []
    setup_globals()
    reader = _Reader(args.config_name or config_name, config_name, args.config_dir)
    overrides = reader.parse(args.overrides)
    jobs = [list(args.overrides)]
    if args.multirun:
        if any(override.key_or_group == "hydra/sweeper" for override in overrides):
            return []  # what a plugin makes of the words is its own matter; jobs are checked when they start
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    else:
        for override in overrides:
            if override.is_sweep_override():
                key, value = override.get_key_element(), override.input_line.partition("=")[2]
                raise ConfigError(
                    f"{override.input_line} gives {key} several values; add -m for a run with each, or write "
                    f"{key}=[{value}] for a list"
                )
    said: list[str] = []
    end = time.monotonic() + SWEEP_SECONDS
    for number, job in enumerate(jobs):
        if number and time.monotonic() > end:
            said.append(f"{len(jobs) - number} of the {len(jobs)} jobs of the sweep are checked when they start")
            break
        try:
            said += reader.check(job, check)
        except ValueError as error:
            if len(jobs) > 1 and isinstance(error, ConfigError):
                raise ConfigError(f"job {number} of the sweep ({' '.join(job)}): {error}") from error
            raise
    return list(dict.fromkeys(said))


class _Reader:
    """Composes configurations as Hydra will, and says in a line what is wrong with them."""

    def __init__(self, name: str, config_name: str, folder: str | None) -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.config_search_path import SearchPathQuery
        from hydra.core.plugins import Plugins

        Plugins.instance()
        path = create_config_search_path(f"file://{config_dir()}")
        if folder is not None:
            if not Path(folder).is_dir():
                raise ConfigError(f"--config-dir {folder} is no folder; name the one that holds your yaml files")
            before = SearchPathQuery(provider="schema")
            path.prepend("command-line", f"file://{Path(folder).absolute()}", before)
        self._name, self._config_name = name, config_name
        self._loader = ConfigLoaderImpl(config_search_path=path)

    def parse(self, words: Sequence[str]) -> list[Any]:
        """The overrides, once each of them can be read and chooses what there is."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        parser = OverridesParser.create()
        found = []
        for word in words:
            try:
                found.append(parser.parse_override(word))
            except HydraException as error:
                cause = str(error).splitlines()[0]
                if "=" not in word:
                    names = [*known_keys(self._config_name), *self._groups()]
                    hint = "" if word in names else keys.near(word.lstrip("+~"), names)
                    raise ConfigError(f"{word} has no value; write KEY=VALUE, e.g. seed=1{hint}") from error
                raise ConfigError(
                    f"{word} cannot be read ({cause}); put values with blanks or signs such as , = : [ {{ $ into quotes"
                ) from error
        for override in found:
            self._check_choice(override)
        return found

    def _groups(self) -> list[str]:
        return [path.name for path in Path(config_dir()).iterdir() if path.is_dir() and path.name != "hydra"]

    def _is_group(self, override: Any) -> bool:
        return bool(self._loader.repository.group_exists(override.key_or_group))

    def _check_choice(self, override: Any) -> None:
        key, line = override.key_or_group, override.input_line
        if override.is_delete() and not key.startswith("hydra"):
            raise ConfigError(f"{line} takes away {key}, which is read; give it a value instead")
        if not self._is_group(override):
            if "/" in key:
                raise ConfigError(f"{line}: there is no group of options {key}{keys.near(key, self._groups())}")
            return
        if key.startswith("hydra"):
            return
        options = self._options(key)
        values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        for value in values:
            for one in value if isinstance(value, list) else [value]:
                name = str(getattr(one, "text", one)).strip("'\"")
                if isinstance(one, dict):
                    continue
                if one is None:
                    some = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
                    raise ConfigError(f"{key}=null chooses nothing; leave it out, or choose one of {some}")
                if name not in options and name.removesuffix(".yaml") not in options:
                    hint = keys.near(name, options)
                    start = f"{hint} There" if hint else "; there"
                    raise ConfigError(f"{key}={name} is unknown{start} are {', '.join(options)}")

    def _options(self, group: str) -> list[str]:
        """The options of a group, those of its groups with their path (``table1/ra`` of ``experiment``)."""
        from hydra.core.object_type import ObjectType

        found = list(self._loader.get_group_options(group))
        for name in self._loader.get_group_options(group, results_filter=ObjectType.GROUP):
            found += [f"{name}/{option}" for option in self._options(f"{group}/{name}")]
        return found

    def _compose(self, words: Sequence[str]) -> DictConfig:
        from hydra.types import RunMode

        cfg: DictConfig = self._loader.load_configuration(self._name, list(words), run_mode=RunMode.RUN)
        return cfg

    def check(self, words: Sequence[str], check: Callable[[DictConfig], None]) -> list[str]:
        """Compose one job and check it; returns lines on what has no effect."""
        from hydra.errors import HydraException

        overrides = self.parse(words)
        try:
            cfg = self._compose(words)
        except (HydraException, OmegaConfBaseException) as error:
            self._explain(overrides)
            raise ConfigError(f"the configuration cannot be composed: {_first_line(error)}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split())
            raise ConfigError(f"a yaml file of the configuration cannot be read: {cause}; correct it") from error
        choices = {str(key): value for key, value in cfg.hydra.runtime.choices.items()}
        missing = _missing(cfg)
        with_own = cfg.copy()
        OmegaConf.set_struct(with_own, False)
        del with_own["hydra"]
        check_keys(with_own, self._config_name, choices)
        self._check_own_arguments(with_own, choices)
        check_values(with_own, self._config_name)
        check(with_own)
        if missing:
            raise ConfigError(f"{missing[0]} is not given; write {missing[0]}=VALUE")
        given = [one.key_or_group for one in overrides if not one.key_or_group.startswith("hydra")]
        twice = dict.fromkeys(one for one in given if given.count(one) > 1)
        for key in given:
            if key.endswith("._target_") and key.removesuffix("._target_") in KINDS:
                check_target(str(OmegaConf.select(with_own, key)), key.removesuffix("._target_"))
        said = [f"{one} is given {given.count(one)} times; the last one counts" for one in twice]
        return said + keys.without_effect(lambda key: OmegaConf.select(with_own, key), given)

    def _check_own_arguments(self, cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
        """Hold arguments that are in no shipped yaml against the object, which has to be imported for that."""
        known = known_keys(self._config_name, choices)
        for key in argument_nodes(cfg):
            node = OmegaConf.select(cfg, key)
            if any(f"{key}.{name}" not in known and not str(name).startswith("_") for name in node):
                check_arguments(node, key)

    def _explain(self, overrides: Sequence[Any]) -> None:
        """Find the override that cannot be, when composing has failed."""
        choices = [one.input_line for one in overrides if self._is_group(one) or one.key_or_group.startswith("hydra")]
        try:
            cfg = self._compose(choices)
        except Exception:  # it is not the keys
            return
        known = known_keys(self._config_name, dict(cfg.hydra.runtime.choices))
        names = [*known, *self._groups()]
        for one in overrides:
            if one.input_line in choices:
                continue
            key = one.key_or_group
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else cfg
            is_there = isinstance(node, DictConfig) and name in list(node)
            if one.is_add() and is_there:
                raise ConfigError(f"{one.input_line}: {key} is there already; leave out the +")
            if not is_there and not one.is_add():
                hint = keys.near(key, names)
                if not hint and parent and isinstance(node, DictConfig) and len(node):
                    hint = f"; {parent} has {', '.join(str(one) for one in node)}"
                is_argument = isinstance(node, DictConfig) and "_target_" in node
                more = f" (an argument that {node._target_} takes is added with +{key})" if is_argument else ""
                raise ConfigError(f"{one.input_line}: there is no key {key}{hint}{more}")


def _missing(cfg: DictConfig) -> list[str]:
    """Keys at the root that the user has to give and has not."""
    return [str(key) for key in cfg if OmegaConf.is_missing(cfg, key)]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
