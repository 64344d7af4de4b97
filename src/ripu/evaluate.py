"""``python -m ripu.evaluate checkpoint=...``: per-class IoU of a checkpoint, and its predictions as PNG.

The data set, classes and network are those that the checkpoint was trained with; of the data, the validation scenes alone
are read.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ripu.config.app import command
from ripu.run import assembly, restore


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure one checkpoint on the validation scenes of its data set.

    Args:
        cfg: The composed configuration of ``conf/evaluate.yaml``.

    Returns:
        mIoU, per-class IoU and pixel accuracy, as written to ``evaluation.json``.

    Raises:
        ConfigError: The checkpoint is not one of this package, or is not there.
    """
    path = restore.checkpoint_path(cfg.checkpoint)

    import pytorch_lightning as pl

    from ripu.inference.prediction_writer import PredictionWriter
    from ripu.io.writing import write_json
    from ripu.report.summary import left_out, table
    from ripu.training.progress import EvaluationBar
    from ripu.training.skipped_files import SkippedFiles

    restore.check_device(cfg.accelerator, "accelerator")
    stored = restore.read_checkpoint(path)
    trained = OmegaConf.create(stored["hyper_parameters"]["config"])
    trained.resume = False
    trained.data.unreadable = cfg.unreadable
    if cfg.paths.data_root is not None:
        move_data(trained, str(cfg.paths.data_root))
    val, taxonomy = assembly.make_val(trained), assembly.make_taxonomy(trained)
    module = assembly.make_module(trained, taxonomy, is_fresh=False)
    module.load_state_dict(stored["state_dict"])
    if cfg.flip is not None:
        module.flip = cfg.flip
    precision = trained.trainer.precision if cfg.precision is None else cfg.precision
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
        "images": len(val) - len({one["image_id"] for one in skipped.found()}),
        "unreadable": skipped.found(),
    }
    write_json(run / "evaluation.json", results)
    print(table([("mIoU", results)], tuple(scores.subsets)) + left_out(results["unreadable"]))
    print(f"\nin {run}: evaluation.json" + (", predictions/" if writer else ""))
    return results


def move_data(trained: DictConfig, data_root: str) -> None:
    """Replace the data root of a stored configuration by another one, wherever it begins a path."""
    old = str(trained.paths.data_root)
    moved = _replaced(OmegaConf.to_container(trained.dataset), old, data_root)
    trained.dataset = moved
    trained.paths.data_root = data_root


def _replaced(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node[len(old) :]
    return node


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """The command line."""
    assembly.quiet_libraries()
    try:
        evaluate(cfg)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        assembly.explain(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
