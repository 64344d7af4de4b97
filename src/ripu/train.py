"""``python -m ripu.train``: compose, build, fit, test, report. The main path of the package.

python -m ripu.train                               the whole method on generated street scenes
python -m ripu.train dataset=gtav mode=pa          the published task with 40 pixels an image
python -m ripu.train -m mode=ra,pa seed=0,1        a sweep
python -m ripu.train paths.output_dir=X resume=true   go on with the run in X
python -m ripu.train start.run=X budget=0.05       a new run with the network and the labels of the finished run X
python -m ripu.train dataset=gtav dry_run=true     what it will do, ask, take and leave; nothing is kept
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ripu.config.app import command, given_words
from ripu.io import signals
from ripu.run import assembly, restore


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one experiment.

    Args:
        cfg: The composed configuration; ``paths.output_dir`` is the run.

    Returns:
        The content of ``results.json``; with ``dry_run``, the forecast.

    Raises:
        ValueError: Something that the user can put right, before any long work.
    """
    assembly.check_config(cfg)
    assembly.find_data(cfg)
    restore.check_device(cfg.trainer.accelerator, devices=cfg.trainer.devices)
    run = Path(cfg.paths.output_dir)

    from ripu.run import frame  # torch and Lightning are imported from here on

    frame.check_launcher(cfg)
    frame.check_free(run, assembly.plain(cfg), resume=cfg.resume)
    if cfg.dry_run:
        from ripu.run.forecast import dry_run

        return dry_run(cfg)
    clock = frame.Clock(time.monotonic())
    plan = assembly.make_plan(cfg)
    checkpoint = frame.pick_up(run, plan) if cfg.resume else None
    if checkpoint is None:
        assembly.check_start(cfg)
    scenes = assembly.make_scenes(cfg)
    module = assembly.make_module(cfg, scenes.taxonomy, is_fresh=checkpoint is None)
    assembly.check_transforms(cfg)
    start = frame.find_start(cfg, scenes)
    is_active = cfg.setting.target_labels == "revealed"
    images = assembly.target_images(scenes, run / "labels") if is_active else []
    engine = assembly.make_engine(cfg, scenes, images) if is_active else None
    lock = frame.claim(run, assembly.plain(cfg))
    beginning = store = None
    try:
        beginning = frame.take_beginning(cfg, run, plan, scenes)
        if beginning is not None:
            checkpoint = frame.newest_checkpoint(run / "checkpoints")
        trainer = frame.make_trainer(cfg, run, plan)
        store = assembly.make_store(cfg, scenes, run, images, write=trainer.is_global_zero) if is_active else None
        if start is not None and store is not None and trainer.is_global_zero:
            start.carry(store)
        if engine is not None and store is not None and trainer.is_global_zero:
            frame.put_again(store, engine.oracle)
        datamodule = assembly.make_datamodule(cfg, scenes, store)
        skipped = frame.SkippedFiles(run, datamodule.faults)
        selection = frame.add_callbacks(trainer, cfg, run, plan, scenes, engine, store, skipped, beginning)
        clock.lap("setup")
        if checkpoint is None and 0 in plan.selection_steps:
            trainer.validate(module, datamodule, verbose=False)  # the callback's first round follows
        trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        clock.lap("training")
        frame.save_final(trainer, run / "checkpoints" / "final.ckpt")
        trainer.test(module, datamodule, verbose=False)
        clock.lap("evaluation")
        results = frame.report(cfg, run, trainer, module, selection, scenes, engine, store, clock, skipped)
        frame.close(trainer, store)
        return results
    except Exception as error:
        if signals.is_stop_requested():  # it struck data workers as well
            raise signals.Terminated from error
        raise
    finally:  # whoever goes on with the run in this process finds it free
        if store is not None:
            store.close()
        if beginning is not None:
            beginning.close()
        if lock is not None:
            lock.release()


@command("train", assembly.check_config)
def main(cfg: DictConfig) -> None:
    """The command line."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    assembly.quiet_libraries()
    is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    with open_dict(cfg):
        if not cfg.dry_run:  # which keeps Hydra out of that folder
            cfg.paths.output_dir = HydraConfig.get().runtime.output_dir
        elif is_sweep:
            cfg.paths.output_dir = str(Path(cfg.paths.output_dir) / HydraConfig.get().sweep.subdir)
        cfg.resume = cfg.resume or signals.is_requeued()
    signals.stop_on_sigterm()
    began = time.time()
    words = given_words()
    try:
        if is_sweep:
            assembly.check_job_of_sweep(cfg)
        train(cfg)
    except (
        KeyboardInterrupt,
        SystemExit,
    ):  # Lightning's answer to Ctrl-C is SystemExit, after a checkpoint was written
        line = None if cfg.dry_run else go_on(cfg, words, began)
        status = signals.say_stopped(f"stopped; {line or 'nothing was begun, start again with the same command'}")
        raise SystemExit(signals.stop_status() or status) from None
    except Exception as error:
        assembly.explain(error)
        if line := go_on(cfg, words, began):
            print(line, file=sys.stderr)
        raise SystemExit(1) from None


def go_on(cfg: DictConfig, words: list[str], began: float) -> str | None:
    """How to go on with a run that has stopped; None where it had not begun.

    Args:
        cfg: The composed configuration.
        words: The words of its command line.
        began: ``time.time()`` when the command began.
    """
    record = Path(cfg.paths.output_dir) / "config.yaml"
    if not record.exists() or record.stat().st_mtime < began - 1:
        return None
    again = [word for word in words if not word.startswith(("paths.output_dir=", "resume="))]
    again += [f"paths.output_dir={cfg.paths.output_dir}", "resume=true"]
    return f"go on with: python -m ripu.train {shlex.join(again)}"


if __name__ == "__main__":
    main()
