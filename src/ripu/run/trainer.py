"""An open run: its parts, the facts about it, its trainer and the callbacks."""

from __future__ import annotations

import logging
import subprocess
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from ripu import __version__
from ripu.config.nodes import instantiate
from ripu.config.spec import RunSpec
from ripu.dashboards.callback import Dashboard
from ripu.datamodule import RipuDataModule
from ripu.datasets.scenes import Scenes
from ripu.functional import fused
from ripu.inference.prediction_writer import PredictionWriter
from ripu.io.console import command_line
from ripu.io.errors import ConfigError
from ripu.io.signals import die_with_parent
from ripu.labelstore import LabelStore
from ripu.module import RipuModule
from ripu.report.pictures import PredictionPanel
from ripu.report.record import GalleryWatch, ReportRecorder
from ripu.run.device import early_rank, num_processes
from ripu.run.memory import keep_freed_memory
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.selection.renewal import Renewals
from ripu.selection.round_report import true_class_pixels
from ripu.selection.waiting import WaitForAnswers
from ripu.training.checkpoint_callback import RunCheckpoint
from ripu.training.progress import ProgressBar
from ripu.training.skipped_files import SkippedFiles
from ripu.training.stop_signals import StopSignals
from ripu.training.training_log import MetricsFile, TrainingLog

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """A run that is open: everything that its phases share."""

    spec: RunSpec
    trainer: pl.Trainer
    scenes: Scenes
    module: RipuModule
    datamodule: RipuDataModule
    engine: SelectionEngine | None  # None without rounds
    store: LabelStore | None  # None in settings without revealed labels
    checkpoint: Path | None = None  # where training resumes; None at the start
    since: float = field(default_factory=time.monotonic)  # time.monotonic() of the last lap
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    selection: SelectionCallback = field(init=False)  # has the learning curve; made by add_callbacks
    skipped: SkippedFiles = field(init=False)

    def lap(self, phase: str) -> None:
        """Count everything since the last lap to a phase."""
        now = time.monotonic()
        self.seconds[phase] = now - self.since
        self.since = now


def provenance() -> dict[str, Any]:
    """Return the versions, commit, device and threads that a result was made with."""
    has_gpu = torch.cuda.is_available()
    return {
        "version": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if has_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "fused": fused.compiler("cuda" if has_gpu else "cpu"),
    }


@cache
def _commit() -> str | None:
    """Return the commit of this code when this process first asked; later edits do not change it."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        git = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return None
    return git.stdout.strip() or None


def facts(spec: RunSpec) -> dict[str, Any]:
    """Return the part of the results that is known when a run begins."""
    return {
        "dataset": spec.dataset.name,
        "mode": spec.mode,
        "setting": spec.setting.name,
        "method": spec.method.name,
        **spec.scores,
        "budget": spec.budget,
        "seed": spec.seed,
        "max_steps": spec.plan.max_steps,
        "pretrain_steps": spec.plan.pretrain_steps,
        **({"renewal_steps": list(spec.plan.renewal_steps)} if spec.plan.renewal_steps else {}),
        "processes": num_processes(spec.trainer),
        "provenance": {**provenance(), "command": command_line("train", spec.words), "experiment": spec.experiment},
    }


def make_trainer(spec: RunSpec) -> pl.Trainer:
    """Make the Lightning trainer of a run, without callbacks."""
    trainer = spec.trainer
    processes = num_processes(trainer)
    if processes > 1 and early_rank() == 0:
        _log.info(
            "%d processes: a step has %d times data.source_batch + data.target_batch images; learning rate, steps and "
            "schedule stay as they are",
            processes,
            processes * trainer.accumulate,
        )
    strategy: Any = trainer.strategy
    if processes > 1 and strategy in ("auto", "ddp"):
        strategy = DDPStrategy(timeout=timedelta(minutes=trainer.timeout_minutes))  # how long they wait for each other
    if trainer.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise ConfigError(f"trainer.precision={trainer.precision} is not allowed; use 32-true, bf16-mixed or 16-mixed")
    loggers: list[Any] = [MetricsFile(spec.output_dir), *(instantiate(node) for node in spec.loggers)]
    made = pl.Trainer(
        max_steps=spec.plan.max_steps,
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        strategy=strategy,
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
    if made.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return made


def add_callbacks(run: Run, *more: pl.Callback, bar: ProgressBar | None = None) -> None:
    """Give the trainer of a run its callbacks, in the order in which they must act; ``bar`` replaces the usual one."""
    spec, trainer, scenes = run.spec, run.trainer, run.scenes
    folder, plan, evaluation = spec.output_dir, spec.plan, spec.evaluation
    run.skipped = SkippedFiles(folder, run.datamodule.faults)
    run.selection = SelectionCallback(
        plan,
        run.engine,
        run.store,
        truth=lambda: true_class_pixels(scenes.target),
        watch=GalleryWatch(folder, scenes, evaluation.gallery),
        on_unreadable=run.skipped.add,
    )
    checkpoints = RunCheckpoint(
        folder / "checkpoints",
        plan,
        every_steps=spec.checkpoint.every_steps,
        every_minutes=spec.checkpoint.every_minutes,
        keep=spec.checkpoint.keep,
    )
    waiting = []
    if spec.person is not None and run.store is not None:
        person = spec.person
        hold = person.hold_minutes if person.wait == "hold" else None
        waiting = [WaitForAnswers(folder, plan, run.store, run.selection, hold_minutes=hold, serve=person.serve)]
    bar = bar or ProgressBar(plan)
    if not trainer.is_global_zero:
        bar.disable()
    die_with_parent()
    trainer.callbacks += [  # type: ignore[attr-defined]
        *(
            [PredictionWriter(folder / "predictions", scenes.val, scenes.taxonomy)]
            if evaluation.save_predictions
            else []
        ),
        bar,
        run.skipped,
        PredictionPanel(folder / "panel", evaluation.pictures),
        run.selection,
        *([Renewals(plan, folder, run.skipped.add)] if plan.renewal_steps else []),
        ReportRecorder(folder, scenes, run.selection, facts(spec), evaluation.gallery),
        checkpoints,
        StopSignals(folder, checkpoints),
        *waiting,
        TrainingLog(),
        Dashboard(
            run.selection,
            scenes,
            spec.data.target_size,
            evaluation.pictures,
            {"all": 1.0, "none": 0.0, "unlabelled": 0.0}.get(spec.setting.target_labels),
        ),
        *more,
    ]
