"""``python -m ripu.evaluate checkpoint=...``: per-class IoU of a checkpoint, and its predictions as PNG.

Data set, classes and network are those of the checkpoint; only the validation scenes are read. With ``dataset=...``
they are those of another data set, and the classes of the same name are measured.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.checks import check_output_folder
from ripu.config.nodes import plain
from ripu.config.parts import DatasetSpec, make_dataset
from ripu.config.spec import RunSpec
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.shared_classes import SharedClasses, share_classes
from ripu.io.errors import ConfigError, exit_on_error
from ripu.run import restore
from ripu.run.assembly.data import make_val
from ripu.run.device import check_device

if TYPE_CHECKING:
    import pytorch_lightning as pl


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure one checkpoint on the validation scenes of its data set, or of another one.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        ConfigError: The checkpoint is missing, or was not written by ``ripu.train``; or no class of the other data set
            is one of the network's.
    """
    _check_folder(cfg)
    path, run = restore.checkpoint_path(cfg.checkpoint), Path(cfg.paths.output_dir)
    from ripu.inference.prediction_writer import PredictionWriter
    from ripu.io.writing import write_json
    from ripu.report.summary import left_out, table
    from ripu.training.metrics import scores_from_confusion
    from ripu.training.progress import EvaluationBar
    from ripu.training.skipped_files import SkippedFiles

    check_device(cfg.accelerator, "accelerator")
    stored = restore.read_checkpoint(path)
    trained = restore.restored_spec(stored, None if "dataset" in cfg else cfg.paths.data_root)
    size = trained.data.target_size if cfg.size is None else (cfg.size[0], cfg.size[1])
    trained = replace(trained, data=replace(trained.data, unreadable=cfg.unreadable, target_size=size))
    val, shared = _scenes(cfg, trained)
    module = restore.restored_module(trained, stored)
    module.flip = module.flip if cfg.flip is None else cfg.flip
    precision: Any = trained.trainer.precision if cfg.precision is None else cfg.precision
    datamodule = restore.make_reader(trained, val, val, cfg.num_workers, cfg.batch)
    run.mkdir(parents=True, exist_ok=True)
    writer: list[Any] = []
    if cfg.save_predictions:
        writer.append(PredictionWriter(run / "predictions", val, trained.taxonomy))
    skipped = SkippedFiles(None)
    callbacks = [EvaluationBar(), skipped, *writer]
    _trainer(cfg, precision, callbacks).test(module, datamodule, verbose=False)
    assert module.counts is not None
    scores = scores_from_confusion(module.counts, val.taxonomy, None if shared is None else shared.names)
    results: dict[str, Any] = {
        "checkpoint": str(path),
        "dataset": str(cfg.dataset.name if shared else trained.dataset.name),
        "mIoU": scores.miou,
        **scores.subsets,
        "per_class_iou": dict(scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        "flip": bool(module.flip),
        "precision": precision,
        "images": len(val) - len({fault["image_id"] for fault in skipped.found()}),
        "unreadable": skipped.found(),
    }
    if shared is not None:
        results["left_out"] = {"of_network": list(shared.only_network), "of_data": list(shared.only_data)}
        print(_about(shared, str(cfg.dataset.name)))
    write_json(run / "evaluation.json", results)
    print(table([("mIoU", results)], tuple(scores.subsets)) + left_out(results["unreadable"]))
    print(f"\nin {run}: evaluation.json" + (", predictions/" if writer else ""))
    return results


def _trainer(cfg: DictConfig, precision: Any, callbacks: list[Any]) -> pl.Trainer:
    """Return a trainer that only measures."""
    import pytorch_lightning as pl

    return pl.Trainer(
        accelerator=cfg.accelerator,
        devices=1,
        precision=precision,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=cfg.paths.output_dir,
    )


def _scenes(cfg: DictConfig, trained: RunSpec) -> tuple[SceneDataset, SharedClasses | None]:
    """Return the validation scenes, and the classes that they share with the network if they are other data."""
    if "dataset" not in cfg:
        return make_val(trained), None
    val = make_val(replace(trained, dataset=_other_data(cfg, trained)))
    shared = share_classes(trained.taxonomy, val.taxonomy)
    return shared.relabel(val, trained.taxonomy), shared


def _other_data(cfg: DictConfig, trained: RunSpec) -> DatasetSpec:
    """Return the data set of the command line, below the data root of the run unless another one is given."""
    cfg = cfg.copy()
    if cfg.paths.data_root is None:
        cfg.paths.data_root = str(trained.data_root)
    return make_dataset(plain(cfg)["dataset"])


def _about(shared: SharedClasses, name: str) -> str:
    """Return lines about the classes that are measured on the data set ``name``, and those that are not."""
    lines = [f"measured on {name}: {len(shared.names)} classes that the network and the data have in common"]
    if shared.only_network:
        lines.append(f"  only in the network (predicting them is a miss): {', '.join(shared.only_network)}")
    if shared.only_data:
        lines.append(f"  only in the data (their pixels are void): {', '.join(shared.only_data)}")
    return "\n".join([*lines, ""])


def _check_folder(cfg: DictConfig) -> None:
    """Refuse to write results on other data into the folder of a run, beside its own, and where nothing can be."""
    folder = Path(cfg.paths.output_dir)
    is_run = any((folder / name).exists() for name in ("config.yaml", "results.json", "checkpoints"))
    if "dataset" in cfg and is_run:
        raise ConfigError(
            f"paths.output_dir={folder} is the folder of a run; name another one for results on other data"
        )
    check_output_folder(folder)


@command("evaluate", _check_folder)
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    with exit_on_error():
        try:
            evaluate(cfg)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None


if __name__ == "__main__":
    main()
