"""The callback that writes test predictions as label ids and in colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import Taxonomy
from ripu.io.writing import writing


def file_names(image_ids: Sequence[str]) -> list[str]:
    """Return file names without suffix: the last part of each id if it is unique, else the whole id in one word.

    >>> file_names(["rome/day/7", "rome/night/7", "rome/day/8"])
    ['rome_day_7', 'rome_night_7', '8']
    """
    parts = [image_id.replace("\\", "/").split("/") for image_id in image_ids]
    uses = Counter(part[-1] for part in parts)
    names = [part[-1] if uses[part[-1]] == 1 else "_".join(part) for part in parts]
    if len(set(names)) < len(names):  # a_b/c beside a/b_c
        names = [f"{number:06d}_{name}" for number, name in enumerate(names)]
    return names


def save_prediction(folder: Path, name: str, label: NDArray[np.uint8], taxonomy: Taxonomy) -> None:
    """Write (H, W) train ids as ``labelIds/NAME.png``, as the Cityscapes server wants them, and ``color/NAME.png``."""
    for kind, pixels in (("labelIds", taxonomy.to_disk_ids(label)), ("color", taxonomy.colorize(label))):
        path = folder / kind / f"{name}.png"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


class PredictionWriter(pl.Callback):
    """Writes every prediction for the test ``scenes``, which name the files; see :func:`save_prediction`."""

    def __init__(self, folder: Path, scenes: SceneDataset, taxonomy: Taxonomy) -> None:
        self.folder = folder
        self.names = file_names([scene.image_id for scene in scenes.scenes])
        self.taxonomy = taxonomy

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Write the predictions of a batch."""
        for index, label in zip(batch["index"], outputs, strict=True):
            save_prediction(self.folder, self.names[index], label.to("cpu", torch.uint8).numpy(), self.taxonomy)
