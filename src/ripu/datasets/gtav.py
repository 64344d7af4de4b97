"""GTAV ("Playing for Data") in its own layout: ``images/*.png`` and ``labels/*.png`` with Cityscapes label ids."""

from __future__ import annotations

from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.pairing import pair_by_name
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import CITYSCAPES19


def load_gtav(root: str | Path) -> SceneDataset:
    """Find all labelled scenes of GTAV.

    An image without a label file, or the other way round, is left out and reported once: copies of the set are known to
    lack a few files. Image and label are resized separately for training, so they may differ in size.

    Raises:
        DatasetNotFoundError: No labelled image exists.
    """
    root = Path(root)  # contains images/ and labels/
    scenes, num_images, num_labels = pair_by_name(root / "images", root / "labels", f"GTAV in {root}")
    if not scenes:
        found = f"{num_images} images and {num_labels} labels, no two of the same name"
        raise DatasetNotFoundError(
            "GTAV",
            root,
            "images/*.png and labels/*.png (24,966 of each, ten archives of each unpacked into one folder)",
            "https://download.visinf.tu-darmstadt.de/data/from_games/",
            found=found if num_images or num_labels else "",
        )
    return SceneDataset("gtav", scenes, CITYSCAPES19)
