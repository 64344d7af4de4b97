"""Who answers: the interface to the annotator, and the ground truth that stands in for one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset, SceneError
from ripu.datasets.unreadable import Fault, TolerantScenes, strict


class UnreadableAnswerError(Exception):
    """The label of an image cannot be read, and the policy is to ask for nothing there."""

    def __init__(self, fault: Fault) -> None:
        """Tell what could not be read."""
        super().__init__(fault)
        self.fault = fault


class Oracle(Protocol):
    """Somebody who knows labels: ground truth today, a person tomorrow."""

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Labels of pixels of one image.

        Args:
            image_id: The image.
            rows: (N,) rows at label resolution.
            columns: (N,) columns at label resolution.

        Returns:
            (N,) uint8 train ids, 255 where the pixel has no class; None where nobody has answered yet.
        """


class GroundTruthOracle:
    """Answers from label files; an image without a file stays unanswered."""

    def __init__(self, scenes: SceneDataset) -> None:
        """Answer for these scenes."""
        self._scenes = strict(scenes)
        self._tolerant = scenes if isinstance(scenes, TolerantScenes) else None
        self._index = {scene.image_id: index for index, scene in enumerate(scenes.scenes)}

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """See :class:`Oracle`.

        Raises:
            SceneError: The label file cannot be read.
            UnreadableAnswerError: The same, of :class:`TolerantScenes`.
        """
        index = self._index[image_id]
        path = self._scenes.scenes[index].label
        if path is None:
            return None
        try:
            answer: NDArray[np.uint8] = self._scenes.read_label(index)[rows, columns]
        except SceneError as error:
            if self._tolerant is None:
                raise
            raise UnreadableAnswerError(self._tolerant.fault(index, path, error)) from error
        return answer
