"""What every data set is read into: a list of scenes with their taxonomy and the way their files are decoded."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ripu.datasets.taxonomy import Taxonomy
from ripu.datasets.upright import upright_rgb, upright_size

MAX_PIXELS = 2**27
"""Images that claim more pixels are refused by their head: no camera makes them, a decompression bomb does."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Kinds of pictures that are opened; others of Pillow's readers start programs or have no use here."""

_OF_THE_DATA = ("dataset", "paths.", "resume", "start.", "data.cache", "model.checkpoint", "model.weights", "hydra")
"""Beginnings of words of a command that make no sense for other data."""


class DatasetNotFoundError(ValueError):
    """A data set is not where it was looked for; says what must be there, where to get it and what to do instead."""

    def __init__(
        self,
        name: str,
        folder: Path,
        contents: str,
        where: str,
        *,
        there: str = "",
        stand_in: str = "streets",
        words: Sequence[str] = (),
    ) -> None:
        """Compose the message.

        Args:
            name: Name of the data set as it is known in the field.
            folder: The folder that was looked for.
            contents: What must be in it.
            where: Where to register or download.
            there: What is in the folder, where it is something else.
            stand_in: The ``dataset=`` of generated scenes with the same classes.
            words: Further words of the command that runs the same experiment on them.
        """
        self.facts: dict[str, Any] = {
            "name": name,
            "folder": folder,
            "contents": contents,
            "where": where,
            "there": there,
            "stand_in": stand_in,
        }
        also = f"  what is there:      {there}\n" if there else ""
        command = shlex.join(["python", "-m", "ripu.train", f"dataset={stand_in}", *words])
        super().__init__(
            f"{name} was not found: there is no usable data in {folder}\n"
            f"  what must be there: {contents}\n{also}"
            f"  where to get it:    {where}\n"
            "  other place:        paths.data_root=FOLDER, the parent of the data sets' folders\n"
            f"  without the data:   {command}   (generated street scenes)"
        )

    def for_command(self, words: Sequence[str]) -> DatasetNotFoundError:
        """The same error, naming the command that does on generated data what the user's command would have done.

        Args:
            words: The words of the user's command, ``key=value``; those that name data or files are left out.
        """
        kept = [word for word in words if not word.lstrip("+~").startswith(_OF_THE_DATA)]
        return DatasetNotFoundError(**self.facts, words=kept)


class SceneError(ValueError):
    """A file of a data set cannot be used; names the file, the cause and the remedy."""


@dataclass(frozen=True)
class Scene:
    """One image with its label.

    Attributes:
        image_id: Name of the scene, unique and stable within its data set, e.g. ``aachen/aachen_000000_000019``.
        image: The image file.
        label: The label file; None where nobody has labelled the scene.
    """

    image_id: str
    image: Path
    label: Path | None


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture of one of :data:`FORMATS`, and refuse one of absurd size before it is decoded.

    Args:
        path: The file.

    Raises:
        SceneError: It claims more than :data:`MAX_PIXELS`.
        OSError: It cannot be read.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise SceneError(f"{path} is no regular file; put the picture itself there, or take the scene out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is the one below
            file = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise SceneError(f"{path} claims far more than {MAX_PIXELS} pixels; it is not decoded. Remove it") from error
    with file:
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise SceneError(
                f"{path} claims {width} x {height} pixels, more than {MAX_PIXELS}; it is not decoded. Remove it"
            )
        yield file


def decode_grey(path: Path) -> NDArray[np.integer]:
    """Read an 8- or 16-bit single-channel or palette PNG as (H, W) ids."""
    with open_picture(path) as file:
        if file.mode not in ("L", "P", "I;16", "I"):
            raise SceneError(
                f"{path} holds a {file.mode} picture, not one id a pixel; give the id images, not the colour ones"
            )
        ids: NDArray[np.integer] = np.asarray(file)
    return ids


def read_picture(path: Path, decode: Callable[[Image.Image], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Open an image file, refuse one of absurd size, and decode it.

    Args:
        path: The file.
        decode: Makes an array of the opened file.

    Raises:
        SceneError: The file is missing, damaged or absurdly large.
    """
    with reading(path):
        with open_picture(path) as file:
            return decode(file)


@dataclass(frozen=True)
class SceneDataset:
    """Scenes of one split of one data set.

    Attributes:
        name: Name for messages and reports.
        scenes: The scenes in a stable order.
        taxonomy: Classes, and how ids on disk become train ids.
        decode_label: Reads a label file into (H, W) ids on disk.
    """

    name: str
    scenes: tuple[Scene, ...]
    taxonomy: Taxonomy
    decode_label: Callable[[Path], NDArray[np.integer]] = decode_grey

    def __post_init__(self) -> None:
        ids = [scene.image_id for scene in self.scenes]
        if len(set(ids)) != len(ids):
            twice = sorted({image_id for image_id in ids if ids.count(image_id) > 1})
            raise SceneError(f"{self.name} has scenes of the same name: {twice[:5]}; names must be unique")

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def is_labelled(self) -> bool:
        """Whether every scene has a label file."""
        return all(scene.label is not None for scene in self.scenes)

    @property
    def reading(self) -> str:
        """How label files become train ids, as a text that differs where the outcome may: for keys of caches."""
        decode: object = self.decode_label
        name = getattr(decode, "__qualname__", None)  # functions; anything else is known by its repr
        how = f"{self.decode_label.__module__}.{name}" if name else repr(decode)
        return f"{how} {sorted(self.taxonomy.disk_to_train.items())} of {self.taxonomy.num_classes}"

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The image of a scene, upright.

        Args:
            index: Position of the scene.

        Returns:
            (H, W, 3) uint8 RGB; see :func:`ripu.datasets.upright.upright_rgb`.

        Raises:
            SceneError: The file is missing, damaged or absurdly large.
        """
        return read_picture(self.scenes[index].image, upright_rgb)

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of a scene in train ids.

        Args:
            index: Position of the scene.

        Returns:
            (H, W) uint8: 0..C-1, 255 for void.

        Raises:
            SceneError: The scene has no label, or its file is missing, damaged or absurdly large.
        """
        scene = self.scenes[index]
        if scene.label is None:
            raise SceneError(f"{scene.image_id} of {self.name} has no label file; it can be asked about, not scored")
        with reading(scene.label):
            return self.taxonomy.to_train_ids(self.decode_label(scene.label))

    def label_size(self, index: int) -> tuple[int, int]:
        """(height, width) of a scene's label (of its image where it has none), from the file's head alone."""
        scene = self.scenes[index]
        path = scene.label or scene.image
        with reading(path):
            with open_picture(path) as file:
                return upright_size(file) if scene.label is None else (file.height, file.width)

    def without_labels(self) -> SceneDataset:
        """The same scenes with the labels out of reach: what training on an unlabelled domain is given."""
        return replace(self, scenes=tuple(replace(scene, label=None) for scene in self.scenes))


class reading:
    """Turn the errors of image libraries into one that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SceneError) or error is None:
            return
        if isinstance(error, FileNotFoundError):
            raise SceneError(f"{self.path} does not exist; restore it or take the scene out of the data set") from error
        if isinstance(error, (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)):
            raise SceneError(
                f"{self.path} cannot be read as an image ({error}); copy or download it again, or remove it"
            ) from error


@dataclass(frozen=True)
class Scenes:
    """The scenes of a run: labelled source (None where none is read), target (with the labels that the oracle knows)
    and validation."""

    source: SceneDataset | None
    target: SceneDataset
    val: SceneDataset
    taxonomy: Taxonomy
