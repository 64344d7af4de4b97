"""Output of the commands: errors in one line, and silence of the libraries below."""

from __future__ import annotations

import logging
import warnings

from ripu.io.errors import print_error
from ripu.io.signals import ignore_dead_workers


def explain(error: Exception) -> None:
    """Print an error that the user can do something about in one line; raise any other again.

    Args:
        error: The error that ended a command; see :func:`ripu.io.errors.print_error`.
    """
    ignore_dead_workers()
    print_error(error)


def quiet_libraries() -> None:
    """Silence the notes of Lightning and PyTorch about themselves; warnings and this package's own notes stay."""
    noisy = ("pytorch_lightning", "lightning_utilities", "lightning_fabric", "lightning")

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in noisy

    for handler in logging.getLogger().handlers:  # not their loggers, whose levels they set when they are imported
        handler.addFilter(is_wanted)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data|torchmetrics")
