"""Whole images of a round, for tools that label images, not questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.crops import png
from ripu.annotate.codecs.masks import Labels
from ripu.annotate.codecs.reading import MalformedError
from ripu.annotate.settled import NOT_ANSWERED
from ripu.datasets.image_files import read_stored
from ripu.io.writing import write_bytes
from ripu.labelstore import TargetImage, export_name


@dataclass(frozen=True)
class Frame:
    """An image with the answers to its questions.

    Attributes:
        number: Number of the image in the label store.
        file: Name of its file.
        label: (H, W) uint8 labels, 254 for no answer.
    """

    number: int
    file: str
    label: Labels


def write_frames(asked: Asked, out: Path) -> Iterator[Frame]:
    """Write ``images/NAME.png`` and ``asked/NAME.png`` (255 at queried pixels, else 0), and yield the answers."""
    for number, image in enumerate(asked.questions.store.images):
        if not asked.questions.count(number):
            continue
        label = np.full((image.height, image.width), NOT_ANSWERED, dtype=np.uint8)
        queried = np.zeros_like(label)
        for question in asked.questions.of_image(number):
            rows, columns = question.pixels.T
            queried[rows, columns] = 255
            labels = asked.final_labels(question)
            if labels is not None:
                label[rows, columns] = labels
        file = f"{export_name(number, image.image_id)}.png"
        write_bytes(out / "images" / file, png(asked.read_image(number)))
        write_bytes(out / "asked" / file, png(queried))
        yield Frame(number, file, label)


def frame_files(folder: Path, answers: Answers) -> Iterator[tuple[Path, int]]:
    """Yield the PNG files of a folder with the numbers of their images; other files are noted as unknown images."""
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.suffix.lower() != ".png":
            answers.skip_image(file.name)
        elif (number := answers.image(file.name)) is not None:
            yield file, number


def read_frame(file: Path, image: TargetImage) -> Labels:
    """Read an image with one number per pixel, (H, W) uint8.

    Raises:
        MalformedError: It has another size or kind.
        SceneError: It is missing, damaged or absurdly large.
    """
    label = read_stored(file)
    if label.dtype == np.bool_:
        label = label.astype(np.uint8)
    if label.dtype != np.uint8 or label.shape != (image.height, image.width):
        raise MalformedError(
            f"{file.name} is {label.dtype} of shape {label.shape}, not 8-bit of {image.height} x {image.width}",
            "save one number per pixel, at the size of the exported image",
        )
    return label
