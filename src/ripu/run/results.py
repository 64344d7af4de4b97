"""The results of a run: ``results.json``, the report, the table."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ripu import __version__
from ripu.config.spec import RunSpec
from ripu.dashboards.callback import keep_final
from ripu.io.shell import command_line
from ripu.io.writing import write_json
from ripu.report.pictures import write_report
from ripu.run.parts import Run
from ripu.run.processes import num_processes
from ripu.run.warm_start import start_facts
from ripu.selection.callback import SelectionCallback


def provenance() -> dict[str, Any]:
    """Return the version, commit, device and threads that a result was made with."""
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
    """Return the commit of this code when this process first asked; later edits do not change it."""
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
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
        "acquisition": str(spec.acquisition["_target_"]).rsplit(".", 1)[-1],
        "budget": spec.budget,
        "seed": spec.seed,
        "max_steps": spec.plan.max_steps,
        "pretrain_steps": spec.plan.pretrain_steps,
        "processes": num_processes(spec.trainer),
        "provenance": {
            **provenance(),
            "command": command_line("train", spec.words),
            "experiment": spec.experiment,
        },
    }


def report(run: Run) -> dict[str, Any]:
    """Write ``results.json``, the learning curve and the pictures, and print the table.

    Returns:
        The content of ``results.json``; an empty mapping on ranks other than 0.
    """
    spec, selection, scores = run.spec, run.selection, run.module.scores
    if not run.trainer.is_global_zero:
        return {}
    assert scores is not None
    folder = spec.output_dir
    results = {
        "mIoU": scores.miou,
        **scores.subsets,
        "per_class_iou": dict(scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        **facts(spec),
        "labelled_fraction": 1.0 if spec.setting.target_labels == "all" else selection.labelled_fraction,
        "evaluations": selection.evaluations,
        "rounds": _rounds(selection, scores.miou),
        "start": None if run.store is None else start_facts(spec, run.store),
        "true_class_pixels": selection.true_class_pixels if selection.rounds else None,
        "unreadable": run.skipped.found(),
        "seconds": {phase: round(seconds, 1) for phase, seconds in run.clock.seconds.items()},
    }
    write_json(folder / "results.json", results)
    size, pictures = spec.data.target_size, spec.evaluation.pictures
    write_report(folder, results, run.scenes, selection, run.module, size, pictures)
    keep_final(run.trainer, folder / "checkpoints" / "final.ckpt", results)
    return results


def _rounds(selection: SelectionCallback, final: float) -> list[dict[str, Any]]:
    """Return the rounds with the mIoU (percent) before each of them and at the evaluation that follows."""
    rounds = []
    for position, entry in enumerate(selection.rounds):
        step = entry["step"]
        before = next((one["mIoU"] for one in selection.evaluations if one["step"] == step), None)
        later = next((one["mIoU"] for one in selection.evaluations if one["step"] > step), final)
        is_last = position + 1 == len(selection.rounds)
        rounds.append({**entry, "mIoU_before": before, "mIoU": final if is_last else later})
    return rounds
