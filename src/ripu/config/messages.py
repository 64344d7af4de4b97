"""Silence of the libraries below the commands."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence the notes of Lightning and PyTorch about themselves; warnings and this package's own notes stay."""
    noisy = ("pytorch_lightning", "lightning_utilities", "lightning_fabric", "lightning")

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in noisy

    for handler in logging.getLogger().handlers:  # not their loggers, whose levels they set when they are imported
        handler.addFilter(is_wanted)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data|torchmetrics")
