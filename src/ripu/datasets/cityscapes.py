"""Cityscapes in its own layout: ``leftImg8bit/SPLIT/CITY/*`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

Copies that were made for other programs may have ``*_gtFine_labelTrainIds.png`` alone.
"""

from __future__ import annotations

from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import TAXONOMIES, in_train_ids

_IMAGE_SUFFIX = "_leftImg8bit.png"
_LABEL_SUFFIXES = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")  # the first that exists in a split is read


def load_cityscapes(root: str | Path, split: str, taxonomy: str = "cityscapes19") -> SceneDataset:
    """Find the scenes of one split.

    Args:
        root: The folder that contains ``leftImg8bit`` and ``gtFine``.
        split: ``train`` or ``val``.
        taxonomy: ``cityscapes19``, or ``cityscapes16`` for the classes shared with SYNTHIA.

    Returns:
        The scenes sorted by city and name; image ids are ``CITY/CITY_SEQUENCE_FRAME``. Labels are read from train ids
        if the split has no label ids.

    Raises:
        DatasetNotFoundError: No image or no label exists.
    """
    root = Path(root)
    images = sorted((root / "leftImg8bit" / split).glob(f"*/[!.]*{_IMAGE_SUFFIX}"))
    labels = root / "gtFine" / split
    existing = (suffix for suffix in _LABEL_SUFFIXES if next(labels.glob(f"*/[!.]*{suffix}"), None) is not None)
    suffix = next(existing, None)
    if not images or suffix is None:
        raise DatasetNotFoundError(
            "Cityscapes",
            root,
            f"leftImg8bit/{split}/CITY/*{_IMAGE_SUFFIX} and gtFine/{split}/CITY/*_gtFine_labelIds.png",
            "register at https://www.cityscapes-dataset.com, packages leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip",
            found=_found_instead(root, split, len(images), suffix is not None),
            stand_in="streets_synthia" if taxonomy == "cityscapes16" else "streets",
        )
    scenes = []
    for image in images:
        stem = image.name.removesuffix(_IMAGE_SUFFIX)
        label = labels / image.parent.name / f"{stem}{suffix}"
        scenes.append(Scene(f"{image.parent.name}/{stem}", image, label if label.exists() else None))
    table = TAXONOMIES[taxonomy] if suffix == _LABEL_SUFFIXES[0] else in_train_ids(TAXONOMIES[taxonomy])
    return SceneDataset(f"cityscapes {split}", tuple(scenes), table)


def _found_instead(root: Path, split: str, num_images: int, has_labels: bool) -> str:
    """Describe a folder that contains half of the data set; return nothing otherwise."""
    if num_images:
        if next((root / "gtFine" / split).glob("*/*.png"), None) is None:
            return f"{num_images} images, but no label under gtFine/{split}"
        other = "has other files than *_gtFine_labelIds.png and *_gtFine_labelTrainIds.png (colours?)"
        return f"{num_images} images; gtFine/{split} {other}"
    if has_labels:
        return f"labels, but no image under leftImg8bit/{split}"
    if (root / "leftImg8bit").is_dir() or (root / "gtFine").is_dir():
        return f"neither images nor labels of the split {split}"
    return ""
