"""SYNTHIA-RAND-CITYSCAPES in its own layout: ``RAND_CITYSCAPES/RGB/*.png`` and ``RAND_CITYSCAPES/GT/LABELS/*.png``.

The labels are 16-bit PNGs of three channels: the class id in the first (R, G, B order), the instance in the second.
Pillow and imageio keep only the high byte of each value, which is 0; OpenCV keeps all 16 bits.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.image_files import open_image
from ripu.datasets.pairing import pair_by_name
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import SYNTHIA16

SUBSET = "RAND_CITYSCAPES"  # the folder that its archive unpacks into


def decode_synthia(path: Path) -> NDArray[np.integer]:
    """Read the (H, W) uint16 class ids of a SYNTHIA label.

    Raises:
        SceneError: The file is missing, absurdly large, cannot be decoded or is not a 16-bit image of three channels.
    """
    with open_image(path):  # checks only the header: OpenCV would decode any size
        pass
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise SceneError(f"{path} cannot be read as an image; copy or download it again, or remove it")
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        raise SceneError(
            f"{path} contains {stored.dtype} of shape {stored.shape}, not 16-bit labels of three channels; take the "
            "files of GT/LABELS (those of GT/COLOR are for viewing) and do not convert them"
        )
    return np.asarray(stored[..., 2], dtype=np.uint16)  # OpenCV's order is B, G, R


def load_synthia(root: str | Path) -> SceneDataset:
    """Find all labelled scenes of SYNTHIA-RAND-CITYSCAPES, with the 16 classes that it shares with Cityscapes.

    An image without a label file, or the other way round, is left out and reported once.

    Raises:
        DatasetNotFoundError: No labelled image exists; the message names the subset that exists instead, if any.
    """
    root = Path(root)  # contains RAND_CITYSCAPES/
    base = root / SUBSET
    scenes, num_images, num_labels = pair_by_name(base / "RGB", base / "GT" / "LABELS", f"SYNTHIA in {base}")
    if not scenes:
        raise DatasetNotFoundError(
            "SYNTHIA-RAND-CITYSCAPES",
            root,
            f"{SUBSET}/RGB/*.png and {SUBSET}/GT/LABELS/*.png (9,400 of each)",
            'https://synthia-dataset.net/downloads, the subset "SYNTHIA-RAND-CITYSCAPES (CVPR16)"',
            found=_found_instead(root, num_images > 0, num_labels > 0),
            stand_in="streets_synthia",
        )
    return SceneDataset("synthia", scenes, SYNTHIA16, decode_synthia)


def _found_instead(root: Path, has_images: bool, has_labels: bool) -> str:
    """Describe the folder's contents for a message."""
    if (root / SUBSET).is_dir():
        if has_images and has_labels:
            return f"{SUBSET}, but no image of RGB has the name of one in GT/LABELS"
        missing = [name for name, found in (("RGB", has_images), ("GT/LABELS", has_labels)) if not found]
        return f"{SUBSET} without an image in {' and '.join(missing)}"
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
            "RAND have other views and class ids); only RAND-CITYSCAPES can be used"
        )
    return ""
