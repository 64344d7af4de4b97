"""``python -m ripu.evaluate checkpoint=...``: per-class IoU of a checkpoint, and its predictions as PNG.

Data set, classes and network are those of the checkpoint; only the validation scenes are read.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.io.errors import print_error
from ripu.run import restore
from ripu.run.assembly.data import make_val
from ripu.run.device import check_device


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure one checkpoint on the validation scenes of its data set.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        ConfigError: The checkpoint is missing, or was not written by ``ripu.train``.
    """
    path = restore.checkpoint_path(cfg.checkpoint)
    import pytorch_lightning as pl

    from ripu.inference.prediction_writer import PredictionWriter
    from ripu.io.writing import write_json
    from ripu.report.summary import left_out, table
    from ripu.training.progress import EvaluationBar
    from ripu.training.skipped_files import SkippedFiles

    check_device(cfg.accelerator, "accelerator")
    stored = restore.read_checkpoint(path)
    trained = restore.restored_spec(stored, cfg.paths.data_root)
    trained = replace(trained, data=replace(trained.data, unreadable=cfg.unreadable))
    val, taxonomy = make_val(trained), trained.taxonomy
    module = restore.restored_module(trained, stored)
    module.flip = module.flip if cfg.flip is None else cfg.flip
    precision: Any = trained.trainer.precision if cfg.precision is None else cfg.precision
    datamodule = restore.make_reader(trained, val, val, cfg.num_workers, cfg.batch)
    run = Path(cfg.paths.output_dir)
    run.mkdir(parents=True, exist_ok=True)
    writer: list[pl.Callback] = [PredictionWriter(run / "predictions", val, taxonomy)] if cfg.save_predictions else []
    skipped = SkippedFiles(None)
    trainer = pl.Trainer(
        accelerator=cfg.accelerator,
        devices=1,
        precision=precision,
        logger=False,
        callbacks=[EvaluationBar(), skipped, *writer],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run,
    )
    trainer.test(module, datamodule, verbose=False)
    scores = module.scores
    assert scores is not None
    results: dict[str, Any] = {
        "checkpoint": str(path),
        "mIoU": scores.miou,
        **scores.subsets,
        "per_class_iou": dict(scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        "flip": bool(module.flip),
        "precision": precision,
        "images": len(val) - len({fault["image_id"] for fault in skipped.found()}),
        "unreadable": skipped.found(),
    }
    write_json(run / "evaluation.json", results)
    print(table([("mIoU", results)], tuple(scores.subsets)) + left_out(results["unreadable"]))
    print(f"\nin {run}: evaluation.json" + (", predictions/" if writer else ""))
    return results


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    try:
        evaluate(cfg)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        print_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
