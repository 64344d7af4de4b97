"""A check of the command line: every word of it, and every job of a sweep, before anything is done.

Hydra says in many lines what is wrong with a word, or lets it pass. Here a single line names the key, the value, what
is allowed and the nearest valid name, for ``-m`` and ``--cfg`` as well.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ripu.config import keys
from ripu.config.hydra_bridge import ConfigLoader, parse_arguments, split_sweep
from ripu.config.key_messages import near, without_effect
from ripu.config.targets import check_target
from ripu.config.validate import check_arguments, check_keys, check_values, config_dir, known_keys
from ripu.io.errors import ConfigError

SWEEP_SECONDS = 10.0
"""The jobs of a sweep are checked before the first one runs for this long; the rest are checked when they start."""


def quote_texts(argv: Sequence[str], config_name: str) -> list[str]:
    """Return a command line as Hydra reads it: options last, and strings quoted where its grammar asks for it.

    Those are paths with ``=``, brackets or letters beyond ASCII. Words that Hydra can read, and values of keys that
    take no string, stay as they are.
    """
    args, options = parse_arguments(argv), list(argv)
    for word in args.overrides:
        options.remove(word)
    return [*(_quoted(word, config_name, args.multirun) for word in args.overrides), *options]


def _quoted(word: str, config_name: str, is_sweep: bool) -> str:
    key, sign, value = word.partition("=")
    if not sign or value.startswith(("'", '"')) or (is_sweep and "," in value):
        return word
    try:
        OverridesParser.create().parse_override(word)
        return word
    except HydraException:
        name = key.lstrip("+")
        rule = keys.rule_of(name, known_keys(config_name).get(name, frozenset()))
        is_text = not value.startswith(("[", "{")) if rule is None else rule.is_good(value)
        return f"{key}={QuotedString(value, Quote.single).with_quotes()}" if is_text else word


def check_command_line(argv: Sequence[str], config_name: str, check: Callable[[DictConfig], object]) -> list[str]:
    """Check a command line, every job of a sweep included; return lines about words that have no effect.

    Raises:
        ConfigError: From ``check``, or naming what is wrong and the nearest valid name.
    """
    args = parse_arguments(argv)
    if args.help or args.hydra_help or args.shell_completion or args.info or args.experimental_rerun:
        return []
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir} is not a folder; name the one that contains your yaml files")
    checker = _Checker(args, config_name)
    overrides = checker.parse(args.overrides)
    jobs = [list(args.overrides)]
    if args.multirun:
        if any(override.key_or_group == "hydra/sweeper" for override in overrides):
            return []  # the plugin decides what the words mean; jobs are checked when they start
        jobs = split_sweep(overrides)
    lines: list[str] = []
    end = time.monotonic() + SWEEP_SECONDS
    for number, job in enumerate(jobs):
        if number and time.monotonic() > end:
            lines.append(f"{len(jobs) - number} of the {len(jobs)} jobs of the sweep are checked when they start")
            break
        try:
            lines += checker.check(job, check)
        except ConfigError as error:
            if len(jobs) == 1:
                raise
            raise ConfigError(f"job {number} of the sweep ({' '.join(job)}): {error}") from error
    return list(dict.fromkeys(lines))


class _Checker:
    """Composes configurations as Hydra will, and says in one line what is wrong with them."""

    def __init__(self, args: Namespace, config_name: str) -> None:
        self._args, self._config_name = args, config_name
        self._loader = ConfigLoader(config_dir(), args.config_dir)
        self._groups = [path.name for path in Path(config_dir()).iterdir() if path.is_dir() and path.name != "hydra"]

    def parse(self, words: Sequence[str]) -> list[Any]:
        """Parse overrides; refuse those that cannot be read or choose an option that does not exist."""
        found: list[Any] = []
        for word in words:
            try:
                found.append(OverridesParser.create().parse_override(word))
            except HydraException as error:
                if "=" not in word:
                    names = [*known_keys(self._config_name), *self._groups]
                    hint = "" if word in names else near(word.lstrip("+~"), names)
                    raise ConfigError(f"{word} has no value; write KEY=VALUE, e.g. seed=1{hint}") from error
                cause = str(error).splitlines()[0]
                raise ConfigError(
                    f"{word} cannot be read ({cause}); quote values that contain blanks or any of , = : [ {{ $"
                ) from error
        for override in found:
            self._check_choice(override)
        for override in found:
            if override.is_sweep_override() and not self._args.multirun:
                key, value = override.get_key_element(), override.input_line.partition("=")[2]
                raise ConfigError(
                    f"{override.input_line} gives {key} several values; add -m to run once per value, or write "
                    f"{key}=[{value}] for a list"
                )
        return found

    def _check_choice(self, override: Any) -> None:
        key, line = override.key_or_group, override.input_line
        if override.is_delete() and not key.startswith("hydra"):
            raise ConfigError(f"{line} removes {key}, which the command needs; give it a value instead")
        if not self._loader.is_group(key):
            if "/" in key:
                raise ConfigError(f"{line}: there is no option group {key}{near(key, self._groups)}")
            return
        if key.startswith("hydra"):
            return
        options = self._loader.options(key)
        values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        for choice in (choice for value in values for choice in (value if isinstance(value, list) else [value])):
            if isinstance(choice, dict):
                continue
            if choice is None:
                some = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
                raise ConfigError(f"{key}=null chooses nothing; leave it out, or choose one of {some}")
            name = str(getattr(choice, "text", choice)).strip("'\"")
            if name.removesuffix(".yaml") not in options:
                hint = near(name, options)
                start = f"{hint} The options" if hint else "; the options"
                raise ConfigError(f"{key}={name} is unknown{start} are {', '.join(options)}")

    def check(self, words: Sequence[str], check: Callable[[DictConfig], object]) -> list[str]:
        """Compose one job and check it; return lines about what has no effect."""
        overrides = self.parse(words)
        cfg = self._compose(words, overrides)
        choices = {str(key): value for key, value in cfg.hydra.runtime.choices.items()}
        missing = [str(key) for key in cfg if OmegaConf.is_missing(cfg, key)]
        cfg = cfg.copy()
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        known = known_keys(self._config_name, choices)
        check_keys(cfg, known)
        check_arguments(cfg, known)
        check_values(cfg, self._config_name)
        check(cfg)
        if missing:
            raise ConfigError(f"{missing[0]} is not given; write {missing[0]}=VALUE")
        given = [override.key_or_group for override in overrides if not override.key_or_group.startswith("hydra")]
        for key in given:
            if key.endswith("._target_"):
                check_target(str(OmegaConf.select(cfg, key)), key.removesuffix("._target_"))
        counts = Counter(given)
        lines = [f"{key} is given {count} times; the last one counts" for key, count in counts.items() if count > 1]
        return lines + without_effect(lambda key: OmegaConf.select(cfg, key), given)

    def _compose(self, words: Sequence[str], overrides: Sequence[Any]) -> DictConfig:
        try:
            return self._loader.compose(self._args.config_name or self._config_name, words)
        except (HydraException, OmegaConfBaseException) as error:
            self._explain(overrides)
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(f"the configuration cannot be composed: {first}") from error
        except yaml.YAMLError as error:
            cause = " ".join(str(error).split())
            raise ConfigError(f"a yaml file of the configuration cannot be read: {cause}; correct it") from error
        except UnicodeDecodeError as error:
            file = next(filter(_is_in_other_encoding, self._own_files()), "a yaml file of the configuration")
            raise ConfigError(f"{file} is not text in UTF-8 ({error}); save it as UTF-8") from error

    def _own_files(self) -> list[Path]:
        folder = self._args.config_dir
        return [] if folder is None else sorted(Path(folder).rglob("*.yaml"))

    def _explain(self, overrides: Sequence[Any]) -> None:
        """Find the override whose key made composing fail, if it is one, and refuse it."""
        choices = [
            override.input_line
            for override in overrides
            if self._loader.is_group(override.key_or_group) or override.key_or_group.startswith("hydra")
        ]
        try:
            cfg = self._loader.compose(self._args.config_name or self._config_name, choices)
        except Exception:  # it is not the keys
            return
        known = [
            key
            for key in known_keys(self._config_name, dict(cfg.hydra.runtime.choices))
            if not key.endswith("._target_")  # nobody means it
        ]
        for override in overrides:
            if override.input_line in choices:
                continue
            key, line = override.key_or_group, override.input_line
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else cfg
            exists = isinstance(node, DictConfig) and name in list(node)
            if override.is_add() and exists:
                raise ConfigError(f"{line}: {key} exists already; leave out the +")
            if not exists and not override.is_add():
                hint = near(key, known if parent else [*known, *self._groups])
                if not hint and parent and isinstance(node, DictConfig) and len(node):
                    hint = f"; {parent} has {', '.join(str(own) for own in node if own != '_target_')}"
                is_argument = isinstance(node, DictConfig) and "_target_" in node
                more = f" (an argument that {node._target_} takes is added with +{key})" if is_argument else ""
                raise ConfigError(f"{line}: there is no key {key}{hint}{more}")


def _is_in_other_encoding(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False
