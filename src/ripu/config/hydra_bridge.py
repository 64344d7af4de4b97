"""Every private name of Hydra that the package needs; its test fails when one of them disappears."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig


def parse_arguments(words: Sequence[str]) -> Namespace:
    """Return the options and ``overrides`` of a command line; unlike for Hydra, they may come in any order."""
    parsed: Namespace = get_args_parser().parse_intermixed_args(list(words))
    return parsed


def split_sweep(overrides: Sequence[Any]) -> list[list[str]]:
    """Return the overrides of each job that Hydra's own sweeper makes of parsed overrides."""
    return [job for batch in BasicSweeper.split_arguments(list(overrides), None) for job in batch]


class ConfigLoader:
    """Composes configurations as a command will, without starting it."""

    def __init__(self, config_dir: str, own_dir: str | None = None) -> None:
        """Look for yaml files in ``config_dir``, and before that in a folder of the user's own."""
        setup_globals()
        Plugins.instance()
        path = create_config_search_path(f"file://{config_dir}")
        if own_dir is not None:
            path.prepend("command-line", f"file://{Path(own_dir).absolute()}", SearchPathQuery(provider="schema"))
        self._loader = ConfigLoaderImpl(config_search_path=path)

    def compose(self, name: str, words: Sequence[str]) -> DictConfig:
        """Compose the configuration of one job, the node ``hydra`` included."""
        composed: DictConfig = self._loader.load_configuration(name, list(words), run_mode=RunMode.RUN)
        return composed

    def is_group(self, name: str) -> bool:
        """Return whether a group of options has this name."""
        return bool(self._loader.repository.group_exists(name))

    def options(self, group: str) -> list[str]:
        """Return the options of a group, those of the groups in it with their path (``table1/ra``)."""
        found = list(self._loader.get_group_options(group))
        for name in self._loader.get_group_options(group, results_filter=ObjectType.GROUP):
            found += [f"{name}/{option}" for option in self.options(f"{group}/{name}")]
        return found
