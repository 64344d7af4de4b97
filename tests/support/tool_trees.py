"""Tiny exports of labelling tools, in their directory and file names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ripu.annotate.codecs.masks import to_runs, to_text
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


def write_coco(root: Path, kind: str = "instances") -> Path:
    """Write three images with ``labels.json``: a polygon or run lengths for each class, or panoptic segments."""
    images, annotations = [], []
    categories = [{"id": 10 + number, "name": name} for number, name in enumerate(NAMES)]
    (root / "images").mkdir(parents=True)
    if kind == "panoptic":
        (root / "labels").mkdir()
    for seed in range(3):
        label = draw_label(seed, CAMVID11)
        Image.fromarray(draw_image(label, CAMVID11, seed, 0.8)).save(root / "images" / f"{seed}.jpg")
        height, width = label.shape
        images.append({"id": 100 + seed, "file_name": f"elsewhere/{seed}.jpg", "height": height, "width": width})
        present = np.unique(label[label != VOID]).tolist()
        if kind == "panoptic":
            numbers = np.zeros(label.shape, dtype=np.uint32)
            for train_id in present:
                numbers[label == train_id] = 70_000 + 300 * train_id
            rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(root / "labels" / f"{seed}.png")
            segments = [{"id": 70_000 + 300 * one, "category_id": 10 + one, "iscrowd": 0} for one in present]
            entry = {"image_id": 100 + seed, "file_name": f"{seed}.png", "segments_info": segments}
            annotations.append(entry)
            continue
        for train_id in present:
            runs = to_runs((label == train_id).T)
            counts = to_text(runs) if seed % 2 else runs
            shape = {"size": [height, width], "counts": counts}
            number = len(annotations) + 1
            entry = {"id": number, "image_id": 100 + seed, "category_id": 10 + train_id, "segmentation": shape}
            annotations.append({**entry, "area": 1, "iscrowd": 1})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(content))
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
