"""What is left behind when a run is over: ``results.json``, the page, the table."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ripu import __version__
from ripu.config.app import given_words
from ripu.dashboards.callback import keep_final
from ripu.datasets.scenes import Scenes
from ripu.io.writing import write_json
from ripu.labelstore import LabelStore
from ripu.module import RipuModule
from ripu.report.pictures import RunFacts, write_report
from ripu.run.assembly import make_plan
from ripu.run.processes import num_processes
from ripu.selection.callback import SelectionCallback
from ripu.selection.engine import SelectionEngine
from ripu.selection.round_report import carried_fraction
from ripu.training.skipped_files import SkippedFiles

__all__ = ["Clock", "facts", "provenance", "report"]


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


def _experiment() -> str | None:
    """The row of the paper's tables that the command line named."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


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
