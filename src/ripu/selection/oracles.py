"""Oracles: who answers. Label files stand in for a person, or people answer on a page."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset


class Oracle(Protocol):
    """A source of labels; one whose answers come after the round is committed has ``is_person = True``."""

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

    is_person = False

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


class HumanOracle:
    """People who answer on the page of ``python -m ripu.annotate``; see :class:`ripu.config.parts.PersonSpec`."""

    is_person = True

    def __init__(self, scenes: SceneDataset, **settings: object) -> None:
        """Ask about the images of a data set; the settings are those of the page and of the wait."""
        del scenes, settings

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Return None: nobody has answered yet; see :class:`Oracle`."""
