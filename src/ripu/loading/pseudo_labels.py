"""Pseudo-labels of a run: a folder for each renewal, beside the label store and never in it.

``RUN/pseudo_labels/renewal-000/`` has a PNG for each target image that could be read, with train ids and 255 for no
pseudo-label, at the size that the network is fed, and ``index.json``, which is written last. They are a function of the
weights alone: a resumed run that reaches the renewal again makes them again, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError
from ripu.io.reading import read_json
from ripu.io.writing import write_bytes, write_json
from ripu.labelstore.records import VOID, export_name

FOLDER = "pseudo_labels"
_INDEX = "index.json"


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of one renewal.

    Attributes:
        folder: The folder of the renewal.
        image_ids: The target images in the order of the data set.
        unreadable: The positions of those that the renewal could not read.
    """

    folder: Path
    image_ids: tuple[str, ...]
    unreadable: frozenset[int] = frozenset()

    @classmethod
    def of_renewal(cls, run: Path, number: int, image_ids: tuple[str, ...]) -> PseudoLabels:
        """Return those of renewal ``number``, from 0, in the folder of a run; nothing is read or written yet."""
        return cls(run / FOLDER / f"renewal-{number:03d}", image_ids)

    def begin(self) -> None:
        """Declare the folder unfinished; rank 0 calls this before any rank writes."""
        (self.folder / _INDEX).unlink(missing_ok=True)

    def write(self, index: int, label: NDArray[np.uint8]) -> None:
        """Write the (H, W) uint8 pseudo-labels of the ``index``-th image."""
        _, data = cv2.imencode(".png", label)
        write_bytes(self._path(index), data.tobytes())

    def written(self) -> list[int]:
        """Return the positions of the images that have pseudo-labels."""
        return [index for index in range(len(self.image_ids)) if self._path(index).exists()]

    def finish(self, written: Collection[int], facts: Mapping[str, Any]) -> None:
        """Declare the folder complete; rank 0 calls this after every rank has written. ``facts`` is free JSON.

        Images that are not among the ``written`` ones could not be read.
        """
        missing = sorted({*range(len(self.image_ids))} - {*written})
        write_json(self.folder / _INDEX, {"images": len(self.image_ids), "unreadable": missing, **facts})

    def checked(self) -> PseudoLabels:
        """Return these pseudo-labels; refuse an incomplete folder.

        Raises:
            ConfigError: The folder is gone or unfinished.
        """
        path = self.folder / _INDEX
        found = read_json(path) if path.exists() else {}
        if found.get("images") != len(self.image_ids):
            raise ConfigError(
                f"{self.folder} has no complete pseudo-labels of the {len(self.image_ids)} target images; restore it "
                "from a copy of the run, or remove the checkpoints from after the renewal: the run then makes them "
                "again"
            )
        return replace(self, unreadable=frozenset(found.get("unreadable", ())))

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Return (H, W) uint8 train ids at network size, 255 = no pseudo-label.

        An image that the renewal could not read has a single pixel without one, which stands for any size.

        Raises:
            ConfigError: The file is gone or damaged.
        """
        if index in self.unreadable:
            return np.full((1, 1), VOID, dtype=np.uint8)
        path = self._path(index)
        label: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.exists() else None
        if label is None or label.ndim != 2 or label.dtype != np.uint8:
            raise ConfigError(f"{path} is gone or damaged; restore it from a copy of the run")
        found: NDArray[np.uint8] = label
        return found

    def _path(self, index: int) -> Path:
        return self.folder / f"{export_name(index, self.image_ids[index])}.png"
