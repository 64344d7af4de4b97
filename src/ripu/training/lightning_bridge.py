"""Every private name of Lightning that the package needs; its test fails when one of them disappears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl


def replace_sigterm_notifier(trainer: pl.Trainer, handler: Callable[[int, Any], None]) -> None:
    """Replace the handler of SIGTERM that Lightning installs when training begins.

    Args:
        trainer: A trainer that has not begun to fit.
        handler: A signal handler: signal number and frame.
    """
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[assignment]


def cluster_environment(trainer: pl.Trainer) -> Any:
    """Return the cluster environment of a trainer, e.g. a ``SLURMEnvironment``; None without a cluster."""
    return trainer._accelerator_connector.cluster_environment
