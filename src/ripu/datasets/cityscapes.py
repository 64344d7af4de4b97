"""Cityscapes in its own layout: ``leftImg8bit/SPLIT/CITY/*`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""

from __future__ import annotations

from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import TAXONOMIES

_IMAGE_SUFFIX = "_leftImg8bit.png"


def load_cityscapes(root: str | Path, split: str, taxonomy: str = "cityscapes19") -> SceneDataset:
    """Find the scenes of one split.

    Args:
        root: The folder that contains ``leftImg8bit`` and ``gtFine``.
        split: ``train`` or ``val``.
        taxonomy: ``cityscapes19``, or ``cityscapes16`` for the classes shared with SYNTHIA.

    Returns:
        The scenes sorted by city and name; image ids are ``CITY/CITY_SEQUENCE_FRAME``.

    Raises:
        DatasetNotFoundError: No image or no label exists.
    """
    root = Path(root)
    images = sorted((root / "leftImg8bit" / split).glob(f"*/[!.]*{_IMAGE_SUFFIX}"))
    labels = root / "gtFine" / split
    has_labels = next(labels.glob("*/[!.]*_gtFine_labelIds.png"), None) is not None
    if not images or not has_labels:
        raise DatasetNotFoundError(
            "Cityscapes",
            root,
            f"leftImg8bit/{split}/CITY/*{_IMAGE_SUFFIX} and gtFine/{split}/CITY/*_gtFine_labelIds.png",
            "register at https://www.cityscapes-dataset.com, packages leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip",
            found=_found_instead(root, split, len(images), has_labels),
            stand_in="streets_synthia" if taxonomy == "cityscapes16" else "streets",
        )
    scenes = []
    for image in images:
        stem = image.name.removesuffix(_IMAGE_SUFFIX)
        label = labels / image.parent.name / f"{stem}_gtFine_labelIds.png"
        scenes.append(Scene(f"{image.parent.name}/{stem}", image, label if label.exists() else None))
    return SceneDataset(f"cityscapes {split}", tuple(scenes), TAXONOMIES[taxonomy])


def _found_instead(root: Path, split: str, num_images: int, has_labels: bool) -> str:
    """Describe a folder that contains half of the data set; return nothing otherwise."""
    if num_images:
        if next((root / "gtFine" / split).glob("*/*.png"), None) is None:
            return f"{num_images} images, but no label under gtFine/{split}"
        other = "has other files than *_gtFine_labelIds.png (train ids or colours?)"
        return f"{num_images} images; gtFine/{split} {other}"
    if has_labels:
        return f"labels, but no image under leftImg8bit/{split}"
    if (root / "leftImg8bit").is_dir() or (root / "gtFine").is_dir():
        return f"neither images nor labels of the split {split}"
    return ""
