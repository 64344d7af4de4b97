"""The private names of Lightning are still there, and do what the package uses them for."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment

from ripu.training import lightning_bridge


def test_the_sigterm_notifier_is_the_one_that_lightning_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert callable(trainer._signal_connector._sigterm_notifier_fn)
    calls: list[int] = []

    def note(number: int, frame: Any) -> None:
        calls.append(number)

    lightning_bridge.replace_sigterm_notifier(trainer, note)
    registered: dict[int, Any] = {}
    monkeypatch.setattr(
        type(trainer._signal_connector),
        "_register_signal",
        lambda self, number, handler: registered.update({number: handler}),
    )
    trainer._signal_connector.register_signal_handlers()
    registered[signal.SIGTERM](signal.SIGTERM, None)
    assert calls == [signal.SIGTERM]


def test_the_cluster_environment_is_the_given_one() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, plugins=[SLURMEnvironment()])
    assert isinstance(lightning_bridge.cluster_environment(trainer), SLURMEnvironment)
