"""The life of a run: opened, trained, tested, reported, closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ripu.config.spec import RunSpec
from ripu.dashboards.callback import keep_final
from ripu.io import signals
from ripu.io.writing import write_json
from ripu.labelstore import LabelStore, StoreMissingError
from ripu.models.checkpoints import newest_checkpoint, step_of
from ripu.report.pictures import write_report
from ripu.run.assembly.data import make_datamodule, make_scenes, make_transforms, with_measured_range
from ripu.run.assembly.network import check_start, make_module
from ripu.run.assembly.selection import ask_again, make_engine, make_store, target_images
from ripu.run.device import check_shares
from ripu.run.folder import claim
from ripu.run.memory import begin_peak
from ripu.run.shared_beginning import take_beginning
from ripu.run.trainer import Run, add_callbacks, facts, make_trainer
from ripu.run.warm_start import find_labels
from ripu.schedule import Plan
from ripu.selection.round_report import carried_fraction
from ripu.selection.waiting import take_answers
from ripu.training.checkpoint_callback import save_final
from ripu.training.peak_memory import largest_peak_gib

_log = logging.getLogger(__name__)


@contextmanager
def open_run(spec: RunSpec) -> Iterator[Run]:
    """Find data and weights, lock the folder, open the label store and make the trainer; close all of it at the end.

    Nothing is written before everything that can be refused has been checked.

    Raises:
        ValueError: Data, weights or labels are missing or do not fit.
        LockedError: Another process is using the folder.
    """
    began = time.monotonic()
    begin_peak()
    folder, is_active = spec.output_dir, spec.setting.is_active
    checkpoint = find_checkpoint(folder, spec.plan) if spec.resume else None
    if checkpoint is None:
        check_start(spec)
    spec = with_measured_range(spec)
    scenes = make_scenes(spec)
    check_shares(spec, len(scenes.val))
    module = make_module(spec, is_fresh=checkpoint is None)
    make_transforms(spec)  # one that refuses its arguments does so before anything is written
    carried = find_labels(spec, scenes.target)
    images = target_images(scenes, folder / "labels") if is_active else []
    engine = make_engine(spec, scenes, images)
    with ExitStack() as stack, _ended_by_signal():
        if (lock := claim(folder, spec.config)) is not None:
            stack.callback(lock.release)
        beginning = take_beginning(spec, scenes)
        if beginning is not None:
            stack.callback(beginning.close)
            checkpoint = newest_checkpoint(folder / "checkpoints")
        trainer = make_trainer(spec)
        store = None
        if is_active:
            store = make_store(spec, scenes, folder, images, write=trainer.is_global_zero)
            stack.callback(store.close)
            if carried is not None and trainer.is_global_zero:
                carried.carry(store)
            if engine is not None and trainer.is_global_zero:
                ask_again(store, engine.oracle)
                if spec.person is not None:
                    take_answers(store, folder, spec.plan, 0 if checkpoint is None else step_of(checkpoint))
        datamodule = make_datamodule(spec, scenes, store)
        run = Run(spec, trainer, scenes, module, datamodule, engine, store, checkpoint, began)
        add_callbacks(run, *(() if beginning is None else (beginning,)))
        run.lap("setup")
        yield run
        for logger in trainer.loggers:  # the next run of a sweep makes its own
            logger.finalize("success")


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Turn an error that a termination signal has caused, e.g. in data workers, into that of the signal."""
    try:
        yield
    except Exception as error:
        if signals.is_stop_requested():
            raise signals.Terminated from error
        raise


def find_checkpoint(run: Path, plan: Plan) -> Path | None:
    """Find the checkpoint that a run resumes from: the newest whole one that the label store has all the rounds of.

    After a round was undone, that is one from before the round. Without any, the run starts over with the labels that
    it has.

    Raises:
        LabelStoreError: The label store is damaged, or it is gone and the run had rounds already.
    """
    folder, labels = run / "checkpoints", run / "labels"
    newest = newest_checkpoint(folder)
    if newest is None or (rounds := plan.num_rounds(step_of(newest))) == 0:
        return newest
    if not labels.is_dir():
        raise StoreMissingError(
            f"{labels} is gone, but {newest} is from after {rounds} rounds; restore the folder from a copy of the run, "
            "or start another run: answered picks would be asked again"
        )
    done = LabelStore.open(labels).num_rounds
    if rounds <= done:
        return newest
    before = newest_checkpoint(folder, below=plan.selection_steps[done])
    _log.warning(
        "%s is from after a round that is not in %s (undone?); resuming from %s, and round %d takes place again",
        newest,
        labels,
        before or "the start",
        done + 1,
    )
    return before


def fit(run: Run) -> None:
    """Train to the end of the plan, from the checkpoint of the run or the start, and write the final weights."""
    checkpoint, trainer = run.checkpoint, run.trainer
    if checkpoint is None and 0 in {*run.spec.plan.selection_steps, *run.spec.plan.renewal_steps}:
        trainer.validate(run.module, run.datamodule, verbose=False)  # the first round or renewal follows
    trainer.fit(run.module, run.datamodule, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    run.lap("training")
    save_final(trainer, run.spec.output_dir / "checkpoints" / "final.ckpt")


def test(run: Run) -> None:
    """Measure the final weights on the validation scenes."""
    run.trainer.test(run.module, run.datamodule, verbose=False)
    run.lap("evaluation")


def report(run: Run) -> dict[str, Any]:
    """Write ``results.json``, the report and the pictures, print the table and return the results; rank 0 only."""
    peaks = largest_peak_gib(run.trainer)
    spec, selection, store, scores = run.spec, run.selection, run.store, run.module.scores
    if not run.trainer.is_global_zero:
        return {}
    assert scores is not None
    start: dict[str, Any] | None = None
    if store is not None and store.carried:
        start = {"run": spec.start.run, "labels": spec.start.labels, "rounds": len(store.carried)}
        start["labelled_fraction"] = carried_fraction(store)  # before the first step
    folder = spec.output_dir
    results = {
        "mIoU": scores.miou,
        **scores.subsets,
        "per_class_iou": dict(scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        **facts(spec),
        "labelled_fraction": 1.0 if spec.setting.target_labels == "all" else selection.labelled_fraction,
        "evaluations": selection.evaluations,
        "rounds": _rounds(run, scores.miou),
        "start": start,
        "true_class_pixels": selection.true_class_pixels if selection.rounds else None,
        "unreadable": run.skipped.found(),
        "seconds": {phase: round(seconds, 1) for phase, seconds in run.seconds.items()},
        "peak_memory_gib": peaks,
    }
    write_json(folder / "results.json", results)
    size, pictures = spec.data.target_size, spec.evaluation.pictures
    write_report(folder, results, run.scenes, selection, run.module, size, pictures)
    keep_final(run.trainer, folder / "checkpoints" / "final.ckpt", results)
    return results


def _rounds(run: Run, final: float) -> list[dict[str, Any]]:
    """Return the rounds with the mIoU (percent) before each of them and at the evaluation that follows."""
    done, evaluations, rounds = run.selection.rounds, run.selection.evaluations, []
    for entry in done:
        before = next((one["mIoU"] for one in evaluations if one["step"] == entry["step"]), None)
        after = next((one["mIoU"] for one in evaluations if one["step"] > entry["step"]), final)
        rounds.append({**entry, "mIoU_before": before, "mIoU": final if entry is done[-1] else after})
    return rounds
