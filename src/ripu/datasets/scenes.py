"""Scenes: the image and label files of a data set, with its classes and label decoder.

If a file cannot be read, the policy ``stop`` (``data.unreadable``) raises :class:`SceneError`. Under ``skip``, the
``require_*`` methods raise :class:`SkippedFileError`, and code that trains, selects or measures leaves the scene out;
code that only counts or draws calls the ``read_*`` methods, which return a black image or a void label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import Fault, SceneError, SkippedFileError
from ripu.datasets.image_files import ImageReader, as_rgb, naming_file, open_image, read_header, read_ids, resize_image
from ripu.datasets.proportions import Fit, fitted
from ripu.datasets.taxonomy import VOID, Taxonomy


@dataclass(frozen=True)
class Scene:
    """One image file with its label file, if it has one.

    ``image_id`` is unique and stable within the data set, e.g. ``aachen/aachen_000000_000019``. ``translated`` is the
    image in the style of the other domain, for methods that read it.
    """

    image_id: str
    image: Path
    label: Path | None
    translated: Path | None = None


@dataclass(frozen=True)
class SceneDataset:
    """Scenes of one split of one data set.

    Attributes:
        name: Name for messages and reports.
        scenes: The scenes in a stable order.
        taxonomy: The classes.
        decode_label: Reads a label file into (H, W) ids on disk.
        on_unreadable: Policy for files that cannot be read; see the top of this module.
        part: ``source``, ``target`` or ``val``, for the record of skipped files.
        image_reader: Reads an image file into (H, W, B) uint8.
        size_of_label: Returns (height, width) of a label file; None reads it from the header of an image.
        fit: Bring images to the size of the network by stretching, or keep their proportions; see :func:`fitted`.
        has_equal_sizes: Training refuses a label that has another size than its image.
    """

    name: str
    scenes: tuple[Scene, ...]
    taxonomy: Taxonomy
    decode_label: Callable[[Path], NDArray[np.integer]] = read_ids
    on_unreadable: Literal["stop", "skip"] = "stop"
    part: str = ""
    image_reader: ImageReader = field(default_factory=ImageReader)
    fit: Fit = "stretch"
    size_of_label: Callable[[Path], tuple[int, int]] | None = None
    has_equal_sizes: bool = False

    def __post_init__(self) -> None:
        counts = Counter(scene.image_id for scene in self.scenes)
        if len(counts) != len(self.scenes):
            twice = sorted(image_id for image_id, count in counts.items() if count > 1)
            raise SceneError(f"{self.name} has several scenes of the same name: {twice[:5]}; names must be unique")

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def is_labelled(self) -> bool:
        """True if every scene has a label file."""
        return all(scene.label is not None for scene in self.scenes)

    @property
    def skips_unreadable(self) -> bool:
        """True if scenes whose files cannot be read are left out."""
        return self.on_unreadable == "skip"

    @property
    def reading(self) -> str:
        """The way from label files to train ids, as a string that differs if the outcome may, for cache keys."""
        decode = self.decode_label
        name = getattr(decode, "__qualname__", None)  # functions; anything else is known by its repr
        how = f"{decode.__module__}.{name}" if name else repr(decode)
        if decode is read_ids:
            how = "ripu.datasets.scenes.decode_grey"  # its former name, so that existing caches stay valid
        return f"{how} {sorted(self.taxonomy.disk_to_train.items())} of {self.taxonomy.num_classes}"

    def without_labels(self) -> SceneDataset:
        """Return the same scenes with their labels out of reach, as training on an unlabelled domain gets them."""
        return replace(self, scenes=tuple(replace(scene, label=None) for scene in self.scenes))

    @cached_property
    def translations(self) -> SceneDataset | None:
        """The same scenes with their images in the style of the other domain, unlabelled; None if they have none."""
        found = [scene.translated for scene in self.scenes]
        if None in found:
            return None
        others = (replace(one, image=path, label=None) for one, path in zip(self.scenes, found, strict=True) if path)
        return replace(self, name=f"{self.name}, translated", scenes=tuple(others))

    def require_image(self, index: int) -> NDArray[np.uint8]:
        """Read the image of a scene, (H, W, B) uint8; see :class:`ripu.datasets.image_files.ImageReader`.

        Raises:
            SceneError: The file is missing, damaged or absurdly large; under ``skip``, a SkippedFileError.
        """
        path = self.scenes[index].image
        with self._following_policy(index, path):
            return self.image_reader(path)

    def require_sized_image(self, index: int, frame: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the image of a scene as a network of ``frame`` (height, width) sees it; errors of require_image."""
        image = self.require_image(index)
        return resize_image(image, fitted(image.shape, frame, self.fit))

    def require_label(self, index: int) -> NDArray[np.uint8]:
        """Read the label of a scene, (H, W) uint8 train ids, 255 for void.

        Raises:
            SceneError: The scene has no label, or as :meth:`require_image`.
        """
        scene = self.scenes[index]
        with self._following_policy(index, scene.label or scene.image):
            if scene.label is None:
                raise SceneError(f"{scene.image_id} of {self.name} has no label file, so it cannot be scored")
            return self.taxonomy.to_train_ids(self.decode_label(scene.label))

    def require_label_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of a scene's label, or of its image if it has none, from the file's header.

        Raises:
            SceneError: As :meth:`require_image`.
        """
        scene = self.scenes[index]
        if scene.label is None:
            return self._image_size(index)
        with self._following_policy(index, scene.label):
            return self.measure_label(scene.label)

    def measure_label(self, path: Path) -> tuple[int, int]:
        """Return (height, width) of a label file; it is not decoded."""
        if self.size_of_label is not None:
            return self.size_of_label(path)
        with open_image(path) as file:
            return file.height, file.width

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """Read the image of a scene as :meth:`require_image` does; under ``skip``, one that cannot be read is black."""
        try:
            return self.require_image(index)
        except SkippedFileError:
            return np.zeros((*self.label_size(index), self.image_reader.num_bands), dtype=np.uint8)

    def read_picture(self, index: int) -> NDArray[np.uint8]:
        """Read the image of a scene as (H, W, 3) uint8 RGB to look at: its first three bands, or the only one."""
        return as_rgb(self.read_image(index))

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """Read the label of a scene as :meth:`require_label` does; under ``skip``, one that cannot be read is void."""
        try:
            return self.require_label(index)
        except SkippedFileError:
            return np.full(self.label_size(index), VOID, dtype=np.uint8)

    def label_size(self, index: int) -> tuple[int, int]:
        """Return the size as :meth:`require_label_size` does.

        Under ``skip``, an unreadable label has the size of its image, else of the first scene with a readable size.
        """
        for read in (self.require_label_size, self._image_size):
            with suppress(SkippedFileError):
                return read(index)
        return self._usual_size

    def _image_size(self, index: int) -> tuple[int, int]:
        path = self.scenes[index].image
        with self._following_policy(index, path):
            return read_header(path).size

    @cached_property
    def _usual_size(self) -> tuple[int, int]:
        for index in range(len(self)):
            with suppress(SkippedFileError):
                return self.require_label_size(index)
        raise SceneError(f"{self.name}: none of its {len(self)} scenes can be read; restore the files")

    @contextmanager
    def _following_policy(self, index: int, path: Path) -> Iterator[None]:
        try:
            with naming_file(path):
                yield
        except SceneError as error:
            if not self.skips_unreadable:
                raise
            cause = str(error).replace("\n", " ")
            raise SkippedFileError(Fault(self.part, self.scenes[index].image_id, str(path), cause)) from error


@dataclass(frozen=True)
class Scenes:
    """The scenes of a run."""

    source: SceneDataset | None  # labelled; None if the run reads none
    target: SceneDataset  # with the labels that the oracle knows
    val: SceneDataset  # labelled target scenes that are reported on
    taxonomy: Taxonomy
