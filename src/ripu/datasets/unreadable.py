"""Scenes that go on where a file cannot be read: the policy ``data.unreadable=skip``.

Whoever trains, selects or measures reads :attr:`TolerantScenes.strict` and leaves out what fails; whoever only counts or
pictures reads the tolerant scenes, where what cannot be read is black and void.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset, SceneError

POLICIES = ("stop", "skip")
"""What ``data.unreadable`` may be."""


class Fault(NamedTuple):
    """A file that could not be read.

    Attributes:
        part: ``source``, ``target`` or ``val``.
        image_id: The scene.
        file: Path of the file.
        cause: What the reader said.
    """

    part: str
    image_id: str
    file: str
    cause: str

    def to_json(self) -> dict[str, str]:
        """The fault as a JSON object."""
        return self._asdict()


@dataclass(frozen=True)
class TolerantScenes(SceneDataset):
    """Scenes whose files may be unreadable: such an image is black, such a label void.

    Attributes:
        part: ``source``, ``target`` or ``val``.
    """

    part: str = ""

    @cached_property
    def strict(self) -> SceneDataset:
        """The same scenes; reading them raises :class:`SceneError` where a file cannot be read."""
        return SceneDataset(**{one.name: getattr(self, one.name) for one in fields(SceneDataset)})

    @property
    def reading(self) -> str:
        """See :attr:`SceneDataset.reading`; labels that are void because of a fault are not those of a sound file."""
        return f"{super().reading}, void where unreadable"

    def fault(self, index: int, path: Path | None, error: SceneError) -> Fault:
        """What is told of a file of a scene that could not be read."""
        scene = self.scenes[index]
        return Fault(self.part, scene.image_id, str(path or scene.image), str(error).replace("\n", " "))

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The image of a scene, (H, W, 3) uint8 RGB; black where it cannot be read."""
        try:
            return self.strict.read_image(index)
        except SceneError:
            return np.zeros((*self.label_size(index), 3), dtype=np.uint8)

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of a scene, (H, W) uint8 train ids; void where it cannot be read."""
        try:
            return self.strict.read_label(index)
        except SceneError:
            return np.full(self.label_size(index), 255, dtype=np.uint8)

    def label_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the label, else of the image, else of the first scene whose file has a head."""
        for scenes in (self.strict, self.strict.without_labels()):
            try:
                return scenes.label_size(index)
            except SceneError:
                continue
        return self._usual_size

    @cached_property
    def _usual_size(self) -> tuple[int, int]:
        for index in range(len(self)):
            try:
                return self.strict.label_size(index)
            except SceneError:
                continue
        raise SceneError(f"{self.name}: not one of its {len(self)} scenes can be read; restore the files")


def tolerant(scenes: SceneDataset, part: str) -> TolerantScenes:
    """The same scenes under the policy ``skip``.

    Args:
        scenes: Any scenes.
        part: ``source``, ``target`` or ``val``, for what is told of faults.
    """
    return TolerantScenes(**{one.name: getattr(scenes, one.name) for one in fields(SceneDataset)}, part=part)


def strict(scenes: SceneDataset) -> SceneDataset:
    """The scenes to train, select and measure with: reading them raises where a file cannot be read."""
    return scenes.strict if isinstance(scenes, TolerantScenes) else scenes
