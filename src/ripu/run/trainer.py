"""The trainer of a run and its callbacks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from ripu.dashboards.callback import Dashboard
from ripu.datasets.scenes import Scenes
from ripu.inference.prediction_writer import PredictionWriter
from ripu.io.errors import ConfigError
from ripu.io.signals import die_with_parent
from ripu.labelstore import LabelStore
from ripu.report.pictures import PredictionPanel
from ripu.report.record import ReportRecorder
from ripu.run.assembly import instantiate
from ripu.run.processes import early_rank, make_strategy, num_processes
from ripu.run.results import facts
from ripu.run.shared_beginning import Beginning
from ripu.schedule import Plan
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.selection.round_report import true_class_pixels
from ripu.training.checkpoint import RunCheckpoint
from ripu.training.log import TrainingLog
from ripu.training.metrics_file import MetricsFile
from ripu.training.progress import ProgressBar
from ripu.training.skipped_files import SkippedFiles
from ripu.training.stop_signals import StopSignals

__all__ = ["add_callbacks", "close", "make_trainer"]

_log = logging.getLogger(__name__)


def make_trainer(cfg: DictConfig, run: Path, plan: Plan) -> pl.Trainer:
    """The Lightning trainer of a run, without callbacks."""
    if (processes := num_processes(cfg)) > 1 and early_rank() == 0:
        _log.info(
            "%d processes: a step is of %d times data.source_batch + data.target_batch images; learning rate, steps and "
            "schedule stay as they are",
            processes,
            processes * cfg.trainer.accumulate,
        )
    loggers: list[Any] = [MetricsFile(run)]
    loggers += [instantiate(node) for node in cfg.logger.values() if node is not None]
    precision = cfg.trainer.precision
    if precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise ConfigError(f"trainer.precision={precision} is not allowed; use 32-true, bf16-mixed or 16-mixed")
    return pl.Trainer(
        max_steps=plan.max_steps,
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        strategy=make_strategy(cfg),
        num_nodes=cfg.trainer.num_nodes,
        precision=precision,
        log_every_n_steps=cfg.trainer.log_every_n_steps,
        deterministic=cfg.trainer.deterministic,
        logger=loggers,
        default_root_dir=run,
        reload_dataloaders_every_n_epochs=1,  # a phase of the plan is one epoch
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        inference_mode=False,  # no_grad as in training's own evaluations, which count into the same metric
    )


def add_callbacks(
    trainer: pl.Trainer,
    cfg: DictConfig,
    run: Path,
    plan: Plan,
    scenes: Scenes,
    engine: SelectionEngine | None,
    store: LabelStore | None,
    skipped: SkippedFiles,
    beginning: Beginning | None = None,
) -> SelectionCallback:
    """Give the trainer its callbacks, in the order in which they must act; returns the one that selects."""
    selection = SelectionCallback(plan, engine, store, truth=lambda: true_class_pixels(scenes.target))
    recorder = ReportRecorder(run, scenes, selection, facts(cfg), cfg.evaluation.gallery)
    selection.watch = recorder.watch()
    selection.on_unreadable = skipped.add
    if cfg.evaluation.save_predictions:
        trainer.callbacks.append(PredictionWriter(run / "predictions", scenes.val, scenes.taxonomy))  # type: ignore[attr-defined]
    bar = ProgressBar(plan)
    if not trainer.is_global_zero:
        bar.disable()
    die_with_parent()
    checkpoint = RunCheckpoint(
        run / "checkpoints",
        plan,
        every_steps=cfg.checkpoint.every_steps,
        every_minutes=cfg.checkpoint.every_minutes,
        keep=cfg.checkpoint.keep,
    )
    trainer.callbacks += [  # type: ignore[attr-defined]
        bar,
        skipped,
        PredictionPanel(run / "panel", cfg.evaluation.pictures),
        selection,
        recorder,
        checkpoint,
        StopSignals(run, checkpoint),
        TrainingLog(),
        Dashboard(
            selection,
            plan,
            scenes,
            engine,
            store,
            tuple(cfg.data.target_size),
            cfg.evaluation.pictures,
            {"all": 1.0, "none": 0.0}.get(cfg.setting.target_labels),
        ),
        *([beginning] if beginning is not None else []),
    ]
    return selection


def close(trainer: pl.Trainer, store: LabelStore | None) -> None:
    """Finish loggers and give locks back, so that the next run of a sweep starts afresh."""
    for logger in trainer.loggers:
        logger.finalize("success")
    if store is not None:
        store.close()
