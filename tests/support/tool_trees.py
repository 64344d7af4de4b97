"""Tiny exports of labelling tools, in their directory and file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ripu.datasets.taxonomy import CAMVID11, VOID
from trees import draw_image, draw_label

NAMES = CAMVID11.class_names
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\n" + "".join(
    f"{name}:{','.join(map(str, color))}::\n" for name, color in zip(NAMES, CAMVID11.class_colors, strict=True)
)


def write_voc(root: Path) -> Path:
    """Write CVAT's "Segmentation mask 1.1" with images: scenes 0 and 1 for training, scene 2 for validation."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "labelmap.txt").write_text(LABELMAP)
    for seed in range(3):
        label = draw_label(seed, CAMVID11)
        Image.fromarray(draw_image(label, CAMVID11, seed, 0.8)).save(root / "JPEGImages" / f"frame_{seed}.jpg")
        Image.fromarray(CAMVID11.colorize(label)).save(root / "SegmentationClass" / f"frame_{seed}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("frame_0\nframe_1\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("frame_2\n")
    return root


def write_masks(root: Path, template: str, image: str = "images/{number}.jpg") -> Path:
    """Write three images, and for each class of an image a mask named by a template, as 0 and 255."""
    for seed in range(3):
        label = draw_label(seed, CAMVID11)
        for train_id in np.unique(label[label != VOID]).tolist():
            path = root / template.format(number=seed, name=NAMES[train_id])
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(label == train_id, 255, 0).astype(np.uint8)).save(path)
        path = root / image.format(number=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(label, CAMVID11, seed, 0.8)).save(path)
    return root
