"""The life of a run: opened, trained, tested, closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ripu.config.spec import RunSpec
from ripu.io import signals
from ripu.models.checkpoints import newest_checkpoint
from ripu.run.assembly.data import check_transforms, make_datamodule, make_scenes
from ripu.run.assembly.network import check_start, make_module
from ripu.run.assembly.selection import ask_again, make_engine, make_store, target_images
from ripu.run.folder import claim
from ripu.run.parts import Clock, Run
from ripu.run.resume import find_checkpoint
from ripu.run.shared_beginning import take_beginning
from ripu.run.trainer import make_run, make_trainer
from ripu.run.warm_start import find_labels
from ripu.training.checkpoint_callback import save_final


@contextmanager
def open_run(spec: RunSpec) -> Iterator[Run]:
    """Find data and weights, lock the folder, open the label store and make the trainer; close all of it at the end.

    Nothing is written before everything that can be refused has been checked.

    Raises:
        ValueError: Data, weights or labels are missing or do not fit.
        LockedError: Another process is at work in the folder.
    """
    clock = Clock()
    run, is_active = spec.output_dir, spec.setting.is_active
    checkpoint = find_checkpoint(run, spec.plan) if spec.resume else None
    if checkpoint is None:
        check_start(spec)
    scenes = make_scenes(spec)
    module = make_module(spec, is_fresh=checkpoint is None)
    check_transforms(spec)
    carried = find_labels(spec, scenes.target)
    images = target_images(scenes, run / "labels") if is_active else []
    engine = make_engine(spec, scenes, images)
    with ExitStack() as stack, _ended_by_signal():
        if (lock := claim(run, spec.config)) is not None:
            stack.callback(lock.release)
        beginning = take_beginning(spec, scenes)
        if beginning is not None:
            stack.callback(beginning.close)
            checkpoint = newest_checkpoint(run / "checkpoints")
        trainer = make_trainer(spec)
        store = None
        if is_active:
            store = make_store(spec, scenes, run, images, write=trainer.is_global_zero)
            stack.callback(store.close)
            if carried is not None and trainer.is_global_zero:
                carried.carry(store)
            if engine is not None and trainer.is_global_zero:
                ask_again(store, engine.oracle)
        datamodule = make_datamodule(spec, scenes, store)
        more = () if beginning is None else (beginning,)
        opened = make_run(
            spec, trainer, scenes, module, datamodule, engine, store, more=more, checkpoint=checkpoint, clock=clock
        )
        clock.lap("setup")
        yield opened
        for logger in trainer.loggers:  # the next run of a sweep makes its own
            logger.finalize("success")


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Turn an error that a termination signal has caused, in data workers for instance, into that of the signal."""
    try:
        yield
    except Exception as error:
        if signals.is_stop_requested():
            raise signals.Terminated from error
        raise


def fit(run: Run) -> None:
    """Train to the end of the plan, from the checkpoint of the run or the start, and write the final weights."""
    checkpoint, trainer = run.checkpoint, run.trainer
    if checkpoint is None and 0 in run.spec.plan.selection_steps:
        trainer.validate(run.module, run.datamodule, verbose=False)  # the callback's first round follows
    trainer.fit(run.module, run.datamodule, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    run.clock.lap("training")
    save_final(trainer, run.spec.output_dir / "checkpoints" / "final.ckpt")


def test(run: Run) -> None:
    """Measure the final weights on the validation scenes."""
    run.trainer.test(run.module, run.datamodule, verbose=False)
    run.clock.lap("evaluation")
