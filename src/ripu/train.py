"""``python -m ripu.train``: compose, build, fit, test, report. The main path of the package.

python -m ripu.train                               the whole method on generated street scenes
python -m ripu.train dataset=gtav mode=pa          the published task with 40 pixels an image
python -m ripu.train -m mode=ra,pa seed=0,1        a sweep
python -m ripu.train paths.output_dir=X resume=true   go on with the run in X
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ripu import build, terminate
from ripu.commandline import command


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one experiment.

    Args:
        cfg: The composed configuration; ``paths.output_dir`` is the run.

    Returns:
        The content of ``results.json``.

    Raises:
        ValueError: Something that the user can put right, before any long work.
    """
    build.check_config(cfg)
    build.check_device(cfg.trainer.accelerator)
    run = Path(cfg.paths.output_dir)

    from ripu import runs  # torch and Lightning are imported from here on

    runs.check_free(run, build.plain(cfg), resume=cfg.resume)
    clock = runs.Clock(time.monotonic())
    plan = build.make_plan(cfg)
    checkpoint = runs.pick_up(run, plan) if cfg.resume else None
    if checkpoint is None:
        build.check_start(cfg)
    scenes = build.make_scenes(cfg)
    module = build.make_module(cfg, scenes.taxonomy, is_fresh=checkpoint is None)
    runs.claim(run, build.plain(cfg))
    beginning = runs.take_beginning(cfg, run, plan, scenes)
    if beginning is not None:
        checkpoint = runs.newest_checkpoint(run / "checkpoints")
    is_active = cfg.setting.target_labels == "revealed"
    trainer = runs.make_trainer(cfg, run, plan)
    store = build.make_store(cfg, scenes, run, write=trainer.is_global_zero) if is_active else None
    engine = build.make_engine(cfg, scenes, store) if store is not None else None
    datamodule = build.make_datamodule(cfg, scenes, store)
    selection = runs.add_callbacks(trainer, cfg, run, plan, scenes, engine, store, beginning)
    clock.lap("setup")
    try:
        if checkpoint is None and 0 in plan.selection_steps:
            trainer.validate(module, datamodule, verbose=False)  # the callback's first round follows
        trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except BaseException as error:
        if store is not None:
            store.close()  # whoever goes on with the run in this process finds it free
        if isinstance(error, SystemExit):  # Lightning's answer to Ctrl-C, after a checkpoint was written
            raise error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else KeyboardInterrupt from None
        if terminate.was_told() and not isinstance(error, KeyboardInterrupt):  # it struck data workers as well
            raise terminate.Terminated from error
        raise
    finally:
        if beginning is not None:
            beginning.close()
    clock.lap("training")
    trainer.save_checkpoint(run / "checkpoints" / "final.ckpt", weights_only=True)
    trainer.test(module, datamodule, verbose=False)
    clock.lap("evaluation")
    results = runs.report(cfg, run, trainer, module, selection, scenes, engine, store, clock)
    runs.close(trainer, store)
    return results


@command("train", build.check_config)
def main(cfg: DictConfig) -> None:
    """The command line."""
    from hydra.core.hydra_config import HydraConfig

    build.quiet_libraries()
    with open_dict(cfg):
        cfg.paths.output_dir = HydraConfig.get().runtime.output_dir
        cfg.resume = cfg.resume or terminate.is_requeued()
    terminate.terminate_like_interrupt()
    try:
        train(cfg)
    except KeyboardInterrupt as stopped:
        again = [
            word for word in HydraConfig.get().overrides.task if not word.startswith(("paths.output_dir", "resume"))
        ]
        again += [f"paths.output_dir={cfg.paths.output_dir}", "resume=true"]
        print(f"\nstopped; go on with: python -m ripu.train {' '.join(again)}", file=sys.stderr)
        raise SystemExit(143 if isinstance(stopped, terminate.Terminated) else 130) from None
    except Exception as error:
        build.explain(error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
