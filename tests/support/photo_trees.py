"""Tiny trees of street photographs with train ids, in the directory names of the data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ripu.datasets.taxonomy import CITYSCAPES19, Taxonomy
from trees import draw_image, draw_label

BDD100K = {
    "images/10k/train/0000f77c-6257be58.jpg": "labels/sem_seg/masks/train/0000f77c-6257be58.png",
    "images/10k/train/0000f77c-62c2a288.jpg": "labels/sem_seg/masks/train/0000f77c-62c2a288.png",
    "images/10k/val/7d2f7975-e0c1c5a7.jpg": "labels/sem_seg/masks/val/7d2f7975-e0c1c5a7.png",
}
ACDC = {
    f"rgb_anon/{condition}/{split}/GOPR{number}/GOPR{number}_frame_000{frame}_rgb_anon.png": (
        f"gt/{condition}/{split}/GOPR{number}/GOPR{number}_frame_000{frame}_gt_labelTrainIds.png"
    )
    for condition, number in (("fog", "0475"), ("night", "0351"))
    for split, frame in (("train", 247), ("val", 512))
}
IDD = {
    f"leftImg8bit/{split}/{drive}/{frame}_leftImg8bit.png": f"gtFine/{split}/{drive}/{frame}_gtFine_labelcsTrainIds.png"
    for split, drive, frame in (("train", 0, "024541"), ("train", 3, "005506"), ("val", 119, "902541"))
}


def write_photos(root: Path, files: dict[str, str], taxonomy: Taxonomy = CITYSCAPES19) -> Path:
    """Write images and labels in train ids; ``files`` maps image paths to label paths. Scene number N has seed N."""
    for seed, (image, label) in enumerate(files.items()):
        train_ids = draw_label(seed, taxonomy)
        for path, pixels in ((image, draw_image(train_ids, taxonomy, seed, 0.7)), (label, train_ids)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(pixels)).save(root / path)
    return root
