"""The frame of a run: its folder, its trainer, its callbacks, and what is left behind when it is over."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ripu import __version__, start
from ripu.beginnings import Beginning, key_of
from ripu.build import ConfigError, Scenes, instantiate, make_plan, plain
from ripu.checkpointing import RunCheckpoint, newest_checkpoint, remove_leftovers, save_final
from ripu.commandline import given_words
from ripu.dashboard import Dashboard, keep_final
from ripu.files import writing
from ripu.labelstore import ImageAnswers, LabelStore, StoreMissingError
from ripu.labelstore.lock import WriterLock
from ripu.loggers import MetricsFile
from ripu.module import RipuModule
from ripu.plan import Plan
from ripu.progress import ProgressBar
from ripu.report.collect import leaves
from ripu.report.pictures import PredictionPanel, RunFacts, write_report
from ripu.report.predictions import PredictionWriter
from ripu.report.record import ReportRecorder
from ripu.report.storage import write_json
from ripu.resume import pick_up
from ripu.roundstats import carried_fraction, true_class_pixels
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.selection.oracle import Oracle, UnreadableAnswerError
from ripu.skipped import SkippedFiles
from ripu.start import StartLabels
from ripu.stopping import StopSignals
from ripu.terminate import die_with_parent
from ripu.trainlog import TrainingLog
from ripu.trust import read_yaml

__all__ = [
    "Clock",
    "SkippedFiles",
    "add_callbacks",
    "check_free",
    "check_launcher",
    "claim",
    "close",
    "find_start",
    "make_trainer",
    "newest_checkpoint",
    "num_processes",
    "pick_up",
    "put_again",
    "report",
    "save_final",
    "take_beginning",
]

_log = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"
_MAY_CHANGE = (
    *("resume", "dry_run", "paths", "logger", "trainer", "checkpoint", "evaluation", "protocol.flip", "dataset.recipe.flip"),
    *("data.num_workers", "data.cache", "data.unreadable"),
    *("dataset.recipe.region_side", "dataset.recipe.region_pixels"),  # what they decide stands in region; older runs lack them
)
"""Keys that a run may be picked up with other values of: they do not change what is learnt, but for _MAY_NOT_CHANGE."""

_MAY_NOT_CHANGE = ("trainer.max_steps", "trainer.accumulate")
"""The length of the run, and the images of a step and so which they are."""


@dataclass
class Clock:
    """Seconds by phase of a run.

    Attributes:
        since: ``time.monotonic()`` of the last lap.
        seconds: Seconds by phase.
    """

    since: float
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, phase: str) -> None:
        """Everything since the last lap was this phase."""
        now = time.monotonic()
        self.seconds[phase] = now - self.since
        self.since = now


def check_free(run: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Find that a folder can take a run: it holds none, or one that may go on.

    Args:
        run: The folder.
        config: The resolved configuration.
        resume: Whether an existing run is gone on with.

    Raises:
        ConfigError: A run is there and ``resume`` is not set, or it was started with other settings.
    """
    record = run / CONFIG_FILE
    if not record.exists() or _rank() != 0:
        return
    if not resume:
        raise ConfigError(
            f"paths.output_dir={run} holds a run already; add resume=true to go on with it, or name another folder"
        )
    try:
        old = read_yaml(record)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"{record} cannot be read ({cause}); restore it, or name another paths.output_dir") from error
    if not isinstance(old, dict):
        raise ConfigError(f"{record} holds no configuration; restore it, or name another paths.output_dir")
    _check_same(OmegaConf.create(old), OmegaConf.create({**config}), run)


def claim(run: Path, config: Mapping[str, Any]) -> WriterLock | None:
    """Make the folder of a run, take it for this process alone, and write its configuration, which marks it as a run.

    Args:
        run: The folder.
        config: The resolved configuration.

    Returns:
        What holds the folder, to be released; None on ranks other than 0.

    Raises:
        StoreLockedError: Another process is at work in it.
    """
    if _rank() != 0:
        return None
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(run / LOCK_FILE)
    try:
        remove_leftovers(run)
        temporary = run / f"{CONFIG_FILE}.tmp"
        with writing(run / CONFIG_FILE):
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create({**config})))
            os.replace(temporary, run / CONFIG_FILE)
    except BaseException:
        lock.release()
        raise
    return lock


def _rank() -> int:
    """The rank of this process, known before the trainer is."""
    return int(getattr(rank_zero_only, "rank", 0))


def _check_same(old: Any, new: Any, run: Path) -> None:
    changed: list[str] = []
    if not start.is_given(OmegaConf.create({"start": old.get("start")})) and not start.is_given(new):
        old, new = (OmegaConf.masked_copy(one, [key for key in one if key != "start"]) for one in (old, new))
    for key in sorted(_leaves(old).keys() | _leaves(new).keys()):
        is_free = any(key == free or key.startswith(f"{free}.") for free in _MAY_CHANGE) and key not in _MAY_NOT_CHANGE
        before, after = _leaves(old).get(key), _leaves(new).get(key)
        if before != after and not is_free and not key.endswith(".root"):
            changed.append(f"{key}: {before} -> {after}")
    if changed:
        raise ConfigError(
            f"the run in {run} was started with other settings ({'; '.join(changed[:5])}); go on with the same ones, or name "
            f"another paths.output_dir. More steps, rounds or budget for a finished run: start.run={run} paths.output_dir=NEW, "
            "which begins with its network and all of its labels"
        )


def _leaves(cfg: Any) -> dict[str, Any]:
    return leaves(OmegaConf.to_container(cfg))


def find_start(cfg: DictConfig, scenes: Scenes) -> StartLabels | None:
    """The labels that a run begins with, for the process that writes; see :func:`ripu.start.find`.

    None where they are in the store of the run already: what they came from is not needed any more.

    Raises:
        ConfigError: A mask is missing or not in order.
        LabelStoreError: The run that is gone on from has other classes or images.
    """
    if _rank() != 0 or _has_carried(Path(cfg.paths.output_dir) / "labels"):
        return None
    return start.find(cfg, scenes.target, scenes.taxonomy)


def put_again(store: LabelStore, oracle: Oracle) -> None:
    """Put what was asked and never answered to the oracle once more, e.g. where images have been labelled since.

    Args:
        store: The label store of the run, open for writing.
        oracle: Who answers; nobody is asked where nothing is unanswered.
    """

    def answers() -> Iterator[ImageAnswers]:
        for image in store.images:
            pixels = np.unique(store.unanswered(image.image_id))
            try:
                labels = oracle.answer(image.image_id, *np.divmod(pixels, image.width)) if len(pixels) else None
            except UnreadableAnswerError:  # told of when the image is next asked about
                continue
            if labels is not None:
                yield ImageAnswers(image.image_id, pixels, labels)

    found = store.append_answers(answers())
    if found:
        _log.info("%d pixels that were asked about and not answered are labelled by now", found)


def _has_carried(labels: Path) -> bool:
    try:
        return bool(LabelStore.open(labels).carried)
    except StoreMissingError:
        return False


def take_beginning(cfg: DictConfig, run: Path, plan: Plan, scenes: Scenes) -> Beginning | None:
    """Go on from the state before the first round that a run of the same beginning has left, or be the one to leave it.

    Args:
        cfg: The configuration; ``paths.beginnings`` is the shared folder.
        run: The folder of the run.
        plan: Its schedule.
        scenes: Its data.

    Returns:
        The beginning; None where none is shared: without a folder, without steps before the first round, and in a run
        that goes on with checkpoints of its own.

    Raises:
        ConfigError: The run has several processes.
    """
    folder = cfg.paths.beginnings
    if folder is None or not plan.selection_steps or plan.selection_steps[0] < 2:
        return None
    if num_processes(cfg) > 1:
        raise ConfigError(
            f"paths.beginnings={folder} shares the beginnings of single-process runs; use trainer.devices=1, or leave it out"
        )
    if cfg.resume and newest_checkpoint(run / "checkpoints") is not None:
        return None
    parts = [part for part in (scenes.source, scenes.target, scenes.val) if part is not None]
    beginning = Beginning(Path(folder), key_of(plain(cfg), plan, parts), plan, run)
    beginning.take()
    return beginning


def _num_devices(cfg: DictConfig) -> int:
    devices = cfg.trainer.devices
    if devices in ("auto", -1, "-1"):
        return 1 if cfg.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    if isinstance(devices, str):
        return devices.count(",") + 1 if "," in devices else int(devices)
    return devices if isinstance(devices, int) else len(devices)


def num_processes(cfg: DictConfig) -> int:
    """Processes of a run: one for each device of each node."""
    return _num_devices(cfg) * int(cfg.trainer.num_nodes)


def check_launcher(cfg: DictConfig) -> None:
    """Refuse another number of processes than the launcher has started: each would take itself for the whole run.

    Raises:
        ConfigError: torchrun or srun has started another number than ``trainer.devices`` times ``trainer.num_nodes``.
    """
    environment, wanted = os.environ, num_processes(cfg)
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, there = "torchrun", int(environment.get("WORLD_SIZE", "1"))
    elif "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launcher, there = "srun", int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # a batch script itself is one process
    else:
        return
    if there != wanted:
        raise ConfigError(
            f"{launcher} has started {there} processes, and trainer.devices={cfg.trainer.devices} on "
            f"trainer.num_nodes={cfg.trainer.num_nodes} are {wanted}; give trainer.devices the number on each node, or start "
            "one process"
        )


def _strategy(cfg: DictConfig) -> str | DDPStrategy:
    """The strategy, with the time that processes wait for each other where there are several."""
    if cfg.trainer.strategy in ("auto", "ddp") and (_num_devices(cfg) > 1 or cfg.trainer.num_nodes > 1):
        return DDPStrategy(timeout=timedelta(minutes=cfg.trainer.timeout_minutes))
    return str(cfg.trainer.strategy)


def make_trainer(cfg: DictConfig, run: Path, plan: Plan) -> pl.Trainer:
    """The Lightning trainer of a run, without callbacks."""
    if (processes := num_processes(cfg)) > 1 and _rank() == 0:
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
        strategy=_strategy(cfg),
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


@cache
def _commit() -> str | None:
    """The commit of this code when a run of this process first asked, which is not that of what is edited since."""
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        git = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return None
    return git.stdout.strip() or None


def provenance() -> dict[str, Any]:
    """Version, commit, device and threads that a result was made with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "version": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def facts(cfg: DictConfig) -> dict[str, Any]:
    """What results say of a run and is known when it begins."""
    return {
        "dataset": cfg.dataset.name,
        "mode": cfg.mode.name,
        "setting": cfg.setting.name,
        "acquisition": str(cfg.acquisition._target_).rsplit(".", 1)[-1],
        "budget": cfg.budget,
        "seed": cfg.seed,
        "max_steps": cfg.trainer.max_steps,
        "pretrain_steps": make_plan(cfg).pretrain_steps,
        "processes": num_processes(cfg),
        "provenance": {
            **provenance(),
            "command": " ".join(["python -m ripu.train", *given_words()]),
            "experiment": _experiment(),
        },
    }


def report(
    cfg: DictConfig,
    run: Path,
    trainer: pl.Trainer,
    module: RipuModule,
    selection: SelectionCallback,
    scenes: Scenes,
    engine: SelectionEngine | None,
    store: LabelStore | None,
    clock: Clock,
    skipped: SkippedFiles,
) -> dict[str, Any]:
    """Write ``results.json``, the learning curve and the pictures, and print the table.

    Returns:
        The content of ``results.json``; an empty mapping on ranks other than 0.
    """
    if not trainer.is_global_zero:
        return {}
    scores = module.scores
    assert scores is not None
    rounds = []
    for position, entry in enumerate(selection.rounds):
        later = selection.evaluations[_next_evaluation(selection, entry["step"]) :]
        reached = later[0]["mIoU"] if later and position + 1 < len(selection.rounds) else scores.miou
        before = next((one["mIoU"] for one in selection.evaluations if one["step"] == entry["step"]), None)
        rounds.append({**entry, "mIoU_before": before, "mIoU": reached})
    run_facts = facts(cfg)
    results = {
        "mIoU": scores.miou,
        **scores.subsets,
        "per_class_iou": dict(scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        **run_facts,
        "labelled_fraction": 1.0 if cfg.setting.target_labels == "all" else selection.labelled_fraction,
        "evaluations": selection.evaluations,
        "rounds": rounds,
        "start": None if store is None else start_facts(cfg, store),
        "true_class_pixels": selection.true_class_pixels if selection.rounds else None,
        "unreadable": skipped.found(),
        "seconds": {phase: round(seconds, 1) for phase, seconds in clock.seconds.items()},
    }
    write_json(run / "results.json", results)
    write_report(
        RunFacts(run, results, scenes, engine, store, module, tuple(cfg.data.target_size), cfg.evaluation.pictures)
    )
    keep_final(trainer, run / "checkpoints" / "final.ckpt", results)
    return results


def start_facts(cfg: DictConfig, store: LabelStore) -> dict[str, Any] | None:
    """What a run began with, for ``results.json``; None where it began with no label.

    Returns:
        ``run`` and ``labels`` as configured, the number of carried ``rounds``, and the ``labelled_fraction`` before the
        first step.
    """
    if not store.carried:
        return None
    return {
        "run": cfg.start.run,
        "labels": cfg.start.labels,
        "rounds": len(store.carried),
        "labelled_fraction": carried_fraction(store),
    }


def _next_evaluation(selection: SelectionCallback, step: int) -> int:
    return next((i for i, one in enumerate(selection.evaluations) if one["step"] > step), len(selection.evaluations))


def _experiment() -> str | None:
    """The row of the paper's tables that the command line named."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


def close(trainer: pl.Trainer, store: LabelStore | None) -> None:
    """Finish loggers and give locks back, so that the next run of a sweep starts afresh."""
    for logger in trainer.loggers:
        logger.finalize("success")
    if store is not None:
        store.close()
