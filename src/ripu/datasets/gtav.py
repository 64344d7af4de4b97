"""GTAV ("Playing for Data") in its own layout: ``images/*.png`` and ``labels/*.png`` with Cityscapes label ids."""

from __future__ import annotations

import logging
from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CITYSCAPES19

_log = logging.getLogger(__name__)


def load_gtav(root: str | Path) -> SceneDataset:
    """All labelled scenes of GTAV.

    An image without a label file (or the other way round) is left out and reported once: copies of the set are known
    to lack a few files. Labels are resized to the training size apart from their image, so scenes whose image and
    label differ in size are usable.

    Args:
        root: The folder that holds ``images`` and ``labels``.

    Returns:
        The scenes sorted by name.

    Raises:
        DatasetNotFoundError: No labelled image is there.
    """
    root = Path(root)
    images = {path.name: path for path in sorted((root / "images").glob("[!.]*.png"))}
    labels = {path.name: path for path in sorted((root / "labels").glob("[!.]*.png"))}
    scenes = tuple(Scene(Path(name).stem, path, labels[name]) for name, path in images.items() if name in labels)
    if not scenes:
        raise DatasetNotFoundError(
            "GTAV",
            root,
            "images/*.png and labels/*.png (24,966 of each, ten archives of each unpacked into one folder)",
            "https://download.visinf.tu-darmstadt.de/data/from_games/",
            there=f"{len(images)} images and {len(labels)} labels, of which none belong together"
            if images or labels
            else "",
        )
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        _log.warning("GTAV in %s: %d files have no partner and are left out: %s", root, len(alone), alone[:5])
    return SceneDataset("gtav", scenes, CITYSCAPES19)
