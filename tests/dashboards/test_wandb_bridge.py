"""The private names of W&B, and of Lightning's logger for it, that the dashboard needs are still there."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import wandb
from pytorch_lightning.loggers import WandbLogger


def test_a_run_has_the_names() -> None:
    run = wandb.sdk.wandb_run.Run
    assert not [name for name in ("_public_api", "_assert_can_log_artifact") if not hasattr(run, name)]
    assert list(inspect.signature(run._public_api).parameters)[:1] == ["self"]
    assert list(inspect.signature(run._assert_can_log_artifact).parameters) == ["self", "artifact"]
    assert "_assert_can_log_artifact(" in inspect.getsource(run._log_artifact)


def test_the_process_that_uploads_can_be_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = wandb.init(dir=tmp_path, settings=wandb.Settings(silent=True))
    try:
        assert callable(wandb.setup()._connection._proc._process.terminate)
    finally:
        run.finish()


def test_lightnings_logger_has_the_names(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=str(tmp_path), mode="offline")
    assert logger._experiment is None
    assert logger._wandb_init["mode"] == "offline"
