"""What every data set is read into: a list of scenes with their taxonomy and the way their files are decoded."""

from __future__ import annotations

import shlex
import struct
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from ripu.datasets.taxonomy import Taxonomy

MAX_PIXELS = 2**27
"""Images that claim more pixels are refused by their head: no camera makes them, a decompression bomb does."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Kinds of pictures that are opened; others of Pillow's readers start programs or have no use here."""

_PNG_EXIF = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
"""Where a PNG may say how it is to be turned."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""

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


def composed(name: str) -> str:
    """A name with its accents composed: macOS and archives made there write ``e`` and an accent for ``é``."""
    return unicodedata.normalize("NFC", name)


def orientation(file: Image.Image) -> int:
    """The EXIF orientation of an opened picture that is not decoded yet.

    Returns:
        1 for a picture that is stored upright, 5 to 8 where its sides change places. A PNG that says so behind its pixels,
        and data that are damaged, count as 1.
    """
    if file.format == "PNG" and not _PNG_EXIF & file.info.keys():  # else Pillow would decode it all to look for more
        return 1
    try:
        value = file.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, OSError, KeyError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def upright_size(file: Image.Image) -> tuple[int, int]:
    """(height, width) of what :func:`upright_rgb` would make of an opened picture, from its head alone."""
    width, height = file.size
    if isinstance(file, TiffImagePlugin.TiffImageFile):  # some versions of Pillow give the size as turned, others as stored
        width, height = file.tag_v2[ExifTags.Base.ImageWidth], file.tag_v2[ExifTags.Base.ImageLength]
    return (width, height) if orientation(file) >= 5 else (height, width)


def upright_rgb(file: Image.Image) -> NDArray[np.uint8]:
    """What an opened picture shows, as 8-bit RGB.

    Grey becomes RGB, transparency is left out, 16 bits become 8 (the most significant ones), and the turn that the EXIF
    data of a camera ask for is carried out: the image is upright, as viewers and labelling tools show it.

    Args:
        file: A picture, not yet decoded.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: It cannot be decoded.
    """
    turn = _TURNS.get(orientation(file))
    picture: Image.Image = file
    try:
        if isinstance(file, TiffImagePlugin.TiffImageFile):
            file.load()  # which turns it
        elif turn is not None:
            picture = file.transpose(turn)
    except (struct.error, TypeError, AttributeError) as error:  # of EXIF data with values of the wrong kind
        raise OSError(f"its EXIF data are damaged: {error}") from error
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _from_deep_grey(np.asarray(picture))
    return np.asarray(picture.convert("RGB"))


def _from_deep_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits: integers are taken for 16 bits, floats for 0..1 (or 0..255 where any exceeds 1)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values.astype(np.float64))
        scaled = finite * (255.0 if finite.max(initial=0.0) <= 1.0 else 1.0)
    else:
        scaled = values.astype(np.float64) / 257.0
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


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
            (H, W, 3) uint8 RGB; see :func:`upright_rgb`.

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
