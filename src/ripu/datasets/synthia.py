"""SYNTHIA-RAND-CITYSCAPES in its own layout: ``RAND_CITYSCAPES/RGB/*.png`` and ``RAND_CITYSCAPES/GT/LABELS/*.png``.

The labels are 16-bit PNG of three channels: the class id in the first (R, G, B order), the instance in the second.
Pillow and imageio keep the high byte of each value, so they read zeros; OpenCV keeps all 16 bits.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.image_files import open_image
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import SYNTHIA16

SUBSET = "RAND_CITYSCAPES"
"""The folder that the archive of the subset unpacks into."""

_log = logging.getLogger(__name__)


def decode_synthia(path: Path) -> NDArray[np.integer]:
    """Read the class ids of a SYNTHIA label.

    Args:
        path: A 16-bit PNG of three channels.

    Returns:
        (H, W) uint16 class ids.

    Raises:
        SceneError: The file is missing, absurdly large, cannot be decoded or is not a 16-bit image of three channels.
    """
    with open_image(path):  # checks the header alone: OpenCV would decode any size
        pass
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise SceneError(f"{path} cannot be read as an image; copy or download it again, or remove it")
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        raise SceneError(
            f"{path} holds {stored.dtype} of shape {stored.shape}, not 16-bit labels of three channels; take the files "
            "of GT/LABELS (those of GT/COLOR are for the eye) and do not convert them"
        )
    return np.asarray(stored[..., 2], dtype=np.uint16)  # OpenCV's order is B, G, R


def load_synthia(root: str | Path) -> SceneDataset:
    """All labelled scenes of SYNTHIA-RAND-CITYSCAPES, read with the 16 classes that it shares with Cityscapes.

    An image without a label file (or the other way round) is left out and reported once.

    Args:
        root: The folder that holds ``RAND_CITYSCAPES``.

    Returns:
        The scenes sorted by name.

    Raises:
        DatasetNotFoundError: No labelled image is there; names the subset that is there instead, if one is.
    """
    root = Path(root)
    base = root / SUBSET
    images = {path.name: path for path in sorted((base / "RGB").glob("[!.]*.png"))}
    labels = {path.name: path for path in sorted((base / "GT" / "LABELS").glob("[!.]*.png"))}
    scenes = tuple(Scene(Path(name).stem, path, labels[name]) for name, path in images.items() if name in labels)
    if not scenes:
        raise DatasetNotFoundError(
            "SYNTHIA-RAND-CITYSCAPES",
            root,
            f"{SUBSET}/RGB/*.png and {SUBSET}/GT/LABELS/*.png (9,400 of each)",
            'https://synthia-dataset.net/downloads, the subset "SYNTHIA-RAND-CITYSCAPES (CVPR16)"',
            there=_found_instead(root, images, labels),
            stand_in="streets_synthia",
        )
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        _log.warning("SYNTHIA in %s: %d files have no partner and are left out: %s", base, len(alone), alone[:5])
    return SceneDataset("synthia", scenes, SYNTHIA16, decode_synthia)


def _found_instead(root: Path, images: dict[str, Path], labels: dict[str, Path]) -> str:
    """What is in the folder instead, for a message."""
    missing = "" if images else "RGB"
    if not labels:
        missing += " and GT/LABELS" if missing else "GT/LABELS"
    if (root / SUBSET).is_dir():
        return (
            f"{SUBSET} without a picture in {missing}"
            if missing
            else (f"{SUBSET}, but no picture of RGB has the name of one in GT/LABELS")
        )
    if (root / "RGB").is_dir() and (root / "GT").is_dir():
        return (
            f"RGB and GT without {SUBSET} above them: if they are of this subset, move both into "
            f"{root / SUBSET}; SYNTHIA-RAND (CVPR16) looks alike, but has other classes and cannot be used"
        )
    entries = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    others = [name for name in entries if name.upper().replace("_", "-").startswith(("SYNTHIA", "RAND", "SEQ"))]
    if others:
        return (
            f"{', '.join(others[:5])}: another subset of SYNTHIA (video sequences, SF, AL and "
            "RAND have other views and class ids); only RAND-CITYSCAPES is used"
        )
    return ""
