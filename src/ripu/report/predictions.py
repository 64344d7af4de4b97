"""Predictions as files: label ids and colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import Taxonomy
from ripu.files import writing


def save_prediction(folder: Path, image_id: str, label: NDArray[np.uint8], taxonomy: Taxonomy) -> None:
    """Write a prediction as label ids (what the Cityscapes server and scripts take) and in colour.

    Args:
        folder: Gets ``labelIds/`` and ``color/``.
        image_id: Names the files; only its last part is used, so nothing is written elsewhere.
        label: (H, W) uint8 train ids.
        taxonomy: Gives ids on disk and colours.
    """
    name = image_id.replace("\\", "/").rsplit("/", 1)[-1]
    for kind, pixels in (("labelIds", taxonomy.to_disk_ids(label)), ("color", taxonomy.colorize(label))):
        path = folder / kind / f"{name}.png"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


class PredictionWriter(pl.Callback):
    """Writes every test prediction as label ids and in colour."""

    def __init__(self, folder: Path, scenes: SceneDataset, taxonomy: Taxonomy) -> None:
        """Write into a folder.

        Args:
            folder: Gets ``labelIds/`` and ``color/``.
            scenes: The scenes that are tested on, which name the files.
            taxonomy: Gives ids on disk and colours.
        """
        self.folder = folder
        self.scenes = scenes
        self.taxonomy = taxonomy

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the predictions of a batch."""
        for index, label in zip(batch["index"], outputs, strict=True):
            image_id = self.scenes.scenes[index].image_id
            save_prediction(self.folder, image_id, label.to("cpu", torch.uint8).numpy(), self.taxonomy)
