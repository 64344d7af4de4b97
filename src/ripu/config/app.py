"""The entry points: ``hydra.main`` behind a check of every word that the user has given."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ripu.config.command_line import check_command_line, quote_texts
from ripu.config.validate import config_dir
from ripu.io.errors import RipuError, print_error
from ripu.io.signals import end_guard, say_stopped


def command(config_name: str, check: Callable[[DictConfig], object] = lambda cfg: None) -> Callable[[Any], Any]:
    """Make a function the entry point of a command.

    Args:
        config_name: The yaml file of the command in ``conf/``.
        check: Refuses configurations with :class:`ripu.io.errors.ConfigError`, without taking long.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        run = hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(task)

        @functools.wraps(task)
        def main() -> Any:
            end_guard()
            try:
                sys.argv[1:] = quote_texts(sys.argv[1:], config_name)
                for line in check_command_line(sys.argv[1:], config_name, check):
                    print(f"warning: {line}", file=sys.stderr)
                return run()
            except KeyboardInterrupt:
                raise SystemExit(say_stopped("stopped")) from None
            except BrokenPipeError:  # the reader has seen enough: python -m ripu.train --help | head
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(1) from None
            except (RipuError, OSError) as error:  # OSError: Hydra makes the folder of a run
                print_error(error)
                raise SystemExit(1) from None

        return main

    return decorate


def given_words() -> list[str]:
    """Return the words of the running command, a folder of the user's own yaml files first; none outside a command."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    return [*(f"--config-dir={folder}" for folder in folders), *HydraConfig.get().overrides.task]


def chosen(group: str) -> str | None:
    """Return the option of a group that the running command has; None outside a command."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def quiet_libraries() -> None:
    """Silence the notes of Lightning and PyTorch about themselves; warnings and this package's own notes stay."""
    noisy = ("pytorch_lightning", "lightning_utilities", "lightning_fabric", "lightning")

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in noisy

    for handler in logging.getLogger().handlers:  # not their loggers, whose levels they set when they are imported
        handler.addFilter(is_wanted)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data|torchmetrics")
