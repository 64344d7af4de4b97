"""The network's labels of the pixels that a round asks about: files beside the label store, for the annotation page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.io.writing import AtomicFile, writing
from ripu.labelstore.commits import file_header
from ripu.labelstore.errors import CorruptStoreError
from ripu.labelstore.files import RecordFile, RecordWriter
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import LabelArray, Round


def write_predictions(
    folder: Path, store: LabelReader, spec: Round, rank: int, labels: Iterable[tuple[str, LabelArray]]
) -> None:
    """Write one rank's predictions for a round.

    Args:
        folder: ``RUN/annotation``; made if it is missing.
        store: The label store.
        spec: The round.
        rank: The rank.
        labels: Image ids, and the labels of all queried pixels, in the order of picks and regions.

    Raises:
        WriteError: The disk is full.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with AtomicFile(folder / f"predictions-{spec.index:03d}-{rank:05d}.dat") as file:
        out = RecordWriter(file, file_header(store, "predictions", spec))
        for image_id, found in labels:
            out.add(store.number(image_id), found.astype(np.uint8).tobytes())
        out.finish("predictions")
        file.publish()


def remove_predictions(folder: Path, round_index: int) -> None:
    """Remove the predictions of all ranks for a round: it is asked anew, perhaps about other pixels or with none."""
    for path in folder.glob(f"predictions-{round_index:03d}-*.dat"):
        path.unlink(missing_ok=True)


class PredictionFiles:
    """Reads what :func:`write_predictions` wrote on all ranks."""

    def __init__(self, folder: Path, store: LabelReader, round_index: int) -> None:
        """Find the files of a round; those of another store, and damaged ones, are left out."""
        self._store, self._round = store, round_index
        self._files: list[RecordFile] = []
        spec = store.rounds_as_of(round_index + 1)[-1]
        for path in sorted(folder.glob(f"predictions-{round_index:03d}-*.dat")):
            with contextlib.suppress(CorruptStoreError):
                file = RecordFile(path)
                if file.header == file_header(store, "predictions", spec):
                    self._files.append(file)

    def read(self, number: int) -> list[NDArray[np.uint8]]:
        """Return the labels of each pick of an image, in the order of its pixels; empty if there are none."""
        for file in self._files:
            payload = file.read(number)
            if payload is not None:
                regions = self._store.asked(self._store.images[number].image_id, self._round)
                labels = np.frombuffer(payload, dtype=np.uint8)
                if len(labels) == len(regions.indices):
                    return np.split(labels, regions.offsets[1:-1])
        return []
