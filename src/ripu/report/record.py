"""Callbacks that record a run for its report while it trains, and rewrite the report after each round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import ScoreMaps
from ripu.datasets.scenes import SceneDataset, Scenes
from ripu.datasets.taxonomy import VOID
from ripu.io.writing import write_bytes, write_json
from ripu.module import RipuModule
from ripu.report import storage
from ripu.report.page import try_page
from ripu.report.pictures import evenly, predict
from ripu.selection.callback import SelectionCallback

NUM_BINS = 15
CALIBRATION_STEP = 2
NUM_HARDEST = 6


class GalleryWatch:
    """Keeps the maps of a few target images at every round; see :class:`ripu.selection.rank_part.Watch`."""

    def __init__(self, run: Path, scenes: Scenes, count: int) -> None:
        """Watch ``count`` target images; the report of the run gets a file per round and image."""
        self.folder = run / storage.FOLDER
        self.indices = frozenset(evenly(len(scenes.target), count))

    def wants(self, index: int) -> bool:
        """Return True for the images of the gallery."""
        return index in self.indices

    def see(self, number: int, index: int, logits: Tensor, maps: ScoreMaps) -> None:
        """Write the maps and the prediction of an image."""
        size = storage.fitted((maps.score.shape[1], maps.score.shape[2]), storage.MOST_WIDTH)
        label = F.interpolate(logits.float(), size, mode="bilinear", align_corners=True).argmax(dim=1)[0]
        arrays: dict[str, Any] = {"prediction": label.to("cpu", torch.uint8).numpy()}
        for name in storage.MAP_NAMES:
            values: Tensor | None = getattr(maps, name)
            if values is not None:
                arrays[name], arrays[f"{name}_largest"] = storage.quantised(values[0].float().cpu().numpy())
        storage.write_arrays(self.folder / f"target-{index:05d}-round-{number:03d}.npz", **arrays)


class _Tally:
    """Counts over the images of an evaluation on one rank."""

    def __init__(self, num_classes: int, keep: int) -> None:
        self.num_classes, self.keep = num_classes, keep
        self.bins = np.zeros((NUM_BINS, 3))  # pixels, correct pixels and summed confidence, by confidence
        # Index, mIoU and share of correct pixels of every image, in percent; NaN without a labelled pixel.
        self.images: list[tuple[int, float, float]] = []
        # mIoU, index and (H, W) prediction of the images with the lowest mIoU.
        self.worst: list[tuple[float, int, NDArray[np.uint8]]] = []

    def __call__(self, index: int, prediction: Tensor, confidence: Tensor, label: Tensor) -> None:
        """Count an image; calibrate on every second pixel per axis."""
        is_known = label != VOID
        pairs = label[is_known].long() * self.num_classes + prediction[is_known]
        counts = torch.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, -1).double()
        hits = counts.diag()
        union = counts.sum(0) + counts.sum(1) - hits
        miou = 100.0 * float((hits / union)[union > 0].mean())
        self.images.append((index, miou, 100.0 * float(hits.sum() / counts.sum())))
        if self.keep and miou == miou:
            self.worst.append((miou, index, prediction.to("cpu", torch.uint8).numpy()))
            self.worst = sorted(self.worst, key=lambda one: one[:2])[: self.keep]
        every = (slice(None, None, CALIBRATION_STEP),) * 2
        confidence = confidence[every][is_known[every]].double()
        is_right = (prediction[every] == label[every])[is_known[every]].double()
        place = (confidence * NUM_BINS).long().clamp_(0, NUM_BINS - 1)
        # On the CPU: weighted counts of a GPU are summed in no fixed order.
        place, is_right, confidence = place.cpu(), is_right.cpu(), confidence.cpu()
        for column, weights in enumerate((torch.ones_like(confidence), is_right, confidence)):
            self.bins[:, column] += torch.bincount(place, weights, NUM_BINS).numpy()


class ReportRecorder(pl.Callback):
    """Fills ``RUN/report`` and rewrites ``RUN/report.html``; acts after the selection callback.

    It does not influence training: it reads existing predictions, maps and counts, and the gallery's labels for
    pictures only.
    """

    def __init__(
        self, run: Path, scenes: Scenes, selection: SelectionCallback, facts: dict[str, Any], count: int
    ) -> None:
        """Record a run with ``count`` target images in the gallery; 0 records no pictures.

        The selection callback keeps the learning curve; facts are the parts of ``results.json`` known from the start.
        """
        self.run, self.folder = run, run / storage.FOLDER
        self.scenes, self.selection, self.facts = scenes, selection, facts
        self.indices = evenly(len(scenes.target), count)
        self._tally: _Tally | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the images of the gallery."""
        if not trainer.is_global_zero:
            return
        target, taxonomy = self.scenes.target, self.scenes.taxonomy
        images = []
        for index in self.indices:
            height, width = target.label_size(index)
            images.append({"index": index, "id": target.scenes[index].image_id, "height": height, "width": width})
            self._write_scene(target, index, f"target-{index:05d}")
        content = {
            "taxonomy": taxonomy.name,
            "class_names": list(taxonomy.class_names),
            "class_colors": [list(color) for color in taxonomy.class_colors],
            "images": images,
            "target_images": len(target),
            "val_ids": [scene.image_id for scene in self.scenes.val.scenes],
        }
        write_json(self.folder / "gallery.json", content)

    def _write_scene(self, scenes: SceneDataset, index: int, name: str) -> None:
        if scenes.scenes[index].label is not None:
            write_bytes(self.folder / f"{name}-truth.png", storage.png(scenes.read_label(index)))
        write_bytes(self.folder / f"{name}-image.jpg", storage.jpeg(scenes.read_picture(index)))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting."""
        self._start(pl_module, keep=0)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting and keeping the worst predictions."""
        self._start(pl_module, keep=NUM_HARDEST if self.indices else 0)

    def _start(self, pl_module: pl.LightningModule, keep: int) -> None:
        assert isinstance(pl_module, RipuModule)
        self._tally = pl_module.on_prediction = _Tally(self.scenes.taxonomy.num_classes, keep)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the counts."""
        self._end(trainer, pl_module, f"evaluation-{trainer.global_step:08d}")
        if trainer.is_global_zero:
            self._write_progress(trainer)
        if trainer.state.fn == "validate":  # before training; the round of step 0 has followed
            self._write_round(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the counts, the images with the worst predictions, and the final predictions of the gallery."""
        tally = self._end(trainer, pl_module, f"evaluation-{trainer.global_step:08d}-final")
        assert isinstance(pl_module, RipuModule)
        for _, index, prediction in tally.worst:
            self._write_scene(self.scenes.val, index, f"val-{index:05d}")
            write_bytes(self.folder / f"val-{index:05d}-after.png", storage.png(prediction))
        if trainer.is_global_zero:
            size = trainer.datamodule.target_size  # type: ignore[attr-defined]
            for index in self.indices:
                label = predict(pl_module, self.scenes.target, index, size)
                write_bytes(self.folder / f"target-{index:05d}-after.png", storage.png(label))

    def _end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> _Tally:
        assert isinstance(pl_module, RipuModule)
        assert self._tally is not None
        tally, self._tally, pl_module.on_prediction = self._tally, None, None
        assert pl_module.counts is not None
        storage.write_arrays(
            self.folder / f"{name}-rank{trainer.global_rank}.npz",
            confusion=pl_module.counts.cpu().numpy().astype(np.int64),  # of all ranks already
            bins=tally.bins,
            images=np.array(tally.images, dtype=np.float64).reshape(-1, 3),
            world_size=trainer.world_size,
        )
        return tally

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report if a round took place."""
        self._write_round(trainer)

    def _write_round(self, trainer: pl.Trainer) -> None:
        rounds = self.selection.rounds
        if trainer.is_global_zero and rounds and rounds[-1]["step"] == trainer.global_step:
            self._write_progress(trainer)
            try_page(self.run)

    def _write_progress(self, trainer: pl.Trainer) -> None:
        content = {
            **self.facts,
            "step": trainer.global_step,
            "evaluations": self.selection.evaluations,
            "rounds": self.selection.rounds,
            "labelled_fraction": self.selection.labelled_fraction,
            "true_class_pixels": self.selection.true_class_pixels if self.selection.rounds else None,
        }
        write_json(self.folder / "progress.json", content)
