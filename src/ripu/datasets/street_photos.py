"""Street photographs with the 19 classes of Cityscapes in train ids: ACDC, BDD100K and IDD.

``conf/dataset/acdc.yaml``, ``bdd100k.yaml`` and ``idd.yaml`` say where their files are. The layouts are those of
https://acdc.vision.ee.ethz.ch, https://doc.bdd100k.com/download.html and https://github.com/AutoNUE/public-code.
"""

from __future__ import annotations

from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.pairing import matches
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CITYSCAPES19, in_train_ids


def load_street_photos(name: str, root: str | Path, images: str, labels: str, url: str) -> SceneDataset:
    """Find the scenes of one split.

    Args:
        name: The name of the data set, for messages.
        root: Its folder.
        images: A folder or a glob below ``root``.
        labels: The same for the labels, 0..18 in the order of Cityscapes' classes and 255 for void; the wildcards of an
            image and its label match the same text.
        url: Where to get the data.

    Returns:
        The scenes in the order of their paths, also those without a label; image ids are paths below ``root`` without
        extension.

    Raises:
        DatasetNotFoundError: No image or no label exists.
    """
    root = Path(root)
    try:
        found = matches(root, images, f"{name}: images")
        partners = matches(root, labels, f"{name}: labels")
    except SceneError as error:
        there = str(error) if root.is_dir() else ""
        raise DatasetNotFoundError(name, root, f"{images} and {labels}", url, found=there) from error
    scenes = tuple(
        Scene(path.relative_to(root).with_suffix("").as_posix(), path, partners.get(wildcards))
        for wildcards, path in found.items()
    )
    return SceneDataset(name, scenes, in_train_ids(CITYSCAPES19))
