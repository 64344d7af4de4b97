"""The trainer of a run and its callbacks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ripu.config.spec import RunSpec, instantiate
from ripu.dashboards.callback import Dashboard
from ripu.datamodule import RipuDataModule
from ripu.datasets.scenes import Scenes
from ripu.inference.prediction_writer import PredictionWriter
from ripu.io.errors import ConfigError
from ripu.io.signals import die_with_parent
from ripu.labelstore import LabelStore
from ripu.module import RipuModule
from ripu.report.pictures import PredictionPanel
from ripu.report.record import GalleryWatch, ReportRecorder
from ripu.run.parts import Clock, Run
from ripu.run.processes import early_rank, make_strategy, num_processes
from ripu.run.results import facts
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.selection.round_report import true_class_pixels
from ripu.training.checkpoint_callback import RunCheckpoint
from ripu.training.progress import ProgressBar
from ripu.training.skipped_files import SkippedFiles
from ripu.training.stop_signals import StopSignals
from ripu.training.training_log import MetricsFile, TrainingLog

_log = logging.getLogger(__name__)


def make_trainer(spec: RunSpec) -> pl.Trainer:
    """Make the Lightning trainer of a run, without callbacks."""
    trainer = spec.trainer
    if (processes := num_processes(trainer)) > 1 and early_rank() == 0:
        _log.info(
            "%d processes: a step has %d times data.source_batch + data.target_batch images; learning rate, steps and "
            "schedule stay as they are",
            processes,
            processes * trainer.accumulate,
        )
    if trainer.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise ConfigError(f"trainer.precision={trainer.precision} is not allowed; use 32-true, bf16-mixed or 16-mixed")
    loggers: list[Any] = [MetricsFile(spec.output_dir), *(instantiate(node) for node in spec.loggers)]
    return pl.Trainer(
        max_steps=spec.plan.max_steps,
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        strategy=make_strategy(trainer),
        num_nodes=trainer.num_nodes,
        precision=trainer.precision,  # type: ignore[arg-type]
        log_every_n_steps=trainer.log_every_n_steps,
        deterministic=trainer.deterministic,  # type: ignore[arg-type]
        logger=loggers,
        default_root_dir=spec.output_dir,
        reload_dataloaders_every_n_epochs=1,  # a phase of the plan is one epoch
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        inference_mode=False,  # no_grad as in training's own evaluations, which count into the same metric
    )


def make_run(
    spec: RunSpec,
    trainer: pl.Trainer,
    scenes: Scenes,
    module: RipuModule,
    datamodule: RipuDataModule,
    engine: SelectionEngine | None,
    store: LabelStore | None,
    *,
    bar: ProgressBar | None = None,
    more: tuple[pl.Callback, ...] = (),
    checkpoint: Path | None = None,
    clock: Clock | None = None,
) -> Run:
    """Give the trainer its callbacks, in the order in which they must act, and return the open run.

    Args:
        spec, trainer, scenes, module, datamodule, engine, store, checkpoint, clock: The parts, as
            :class:`ripu.run.parts.Run` describes them; the trainer has no callbacks yet.
        bar: The progress bar; None for the usual one.
        more: Callbacks that act last.
    """
    run, plan, evaluation = spec.output_dir, spec.plan, spec.evaluation
    skipped = SkippedFiles(run, datamodule.faults)
    selection = SelectionCallback(
        plan,
        engine,
        store,
        truth=lambda: true_class_pixels(scenes.target),
        watch=GalleryWatch(run, scenes, evaluation.gallery),
        on_unreadable=skipped.add,
    )
    checkpoints = RunCheckpoint(
        run / "checkpoints",
        plan,
        every_steps=spec.checkpoint.every_steps,
        every_minutes=spec.checkpoint.every_minutes,
        keep=spec.checkpoint.keep,
    )
    bar = bar or ProgressBar(plan)
    if not trainer.is_global_zero:
        bar.disable()
    die_with_parent()
    trainer.callbacks += [  # type: ignore[attr-defined]
        *([PredictionWriter(run / "predictions", scenes.val, scenes.taxonomy)] if evaluation.save_predictions else []),
        bar,
        skipped,
        PredictionPanel(run / "panel", evaluation.pictures),
        selection,
        ReportRecorder(run, scenes, selection, facts(spec), evaluation.gallery),
        checkpoints,
        StopSignals(run, checkpoints),
        TrainingLog(),
        Dashboard(
            selection,
            scenes,
            spec.data.target_size,
            evaluation.pictures,
            {"all": 1.0, "none": 0.0}.get(spec.setting.target_labels),
        ),
        *more,
    ]
    clock = clock or Clock()
    return Run(spec, scenes, module, datamodule, trainer, selection, engine, store, skipped, checkpoint, clock)
