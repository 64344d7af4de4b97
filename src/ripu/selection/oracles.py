"""Oracles: the interface to the annotator, and the ground truth that stands in for one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset


class Oracle(Protocol):
    """A source of labels: ground truth today, a person tomorrow."""

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Return the labels of pixels of one image.

        Args:
            image_id: The image.
            rows: (N,) rows at label resolution.
            columns: (N,) columns at label resolution.

        Returns:
            (N,) uint8 train ids, 255 for void pixels; None if there is no answer yet.
        """


class GroundTruthOracle:
    """Label files as an oracle; an image without a file stays unanswered."""

    def __init__(self, scenes: SceneDataset) -> None:
        """Answer for the images of a data set."""
        self._scenes = scenes
        self._index = {scene.image_id: index for index, scene in enumerate(scenes.scenes)}

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Return labels from a file; see :class:`Oracle`.

        Raises:
            SceneError: The label file cannot be read.
            SkippedFileError: The same, under the policy ``skip``.
        """
        index = self._index[image_id]
        if self._scenes.scenes[index].label is None:
            return None
        answer: NDArray[np.uint8] = self._scenes.require_label(index)[rows, columns]
        return answer
