"""Pictures of single questions: the queried pixels and their surroundings, enlarged, and masks painted on them.

Legend: (h, w) pixels of a window at label resolution, s pixels of its picture per pixel and side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.masks import Mask
from ripu.annotate.codecs.reading import MalformedError
from ripu.annotate.images import encoded
from ripu.annotate.questions import Question
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes
from ripu.labelstore import TargetImage

png = partial(encoded, ".png", png_level=3)
"""Encodes (H, W) or (H, W, 3) uint8 RGB as PNG."""

MARGIN_PX = 32
SCALE = 16
MOST_SIDE = 2304
"""Regions whose picture would be larger are enlarged less."""


@dataclass(frozen=True)
class Window:
    """The part of an image that the picture of a question shows.

    Attributes:
        top, left: Its first row and column.
        height, width: Rows and columns.
        scale: Pixels of the picture per pixel and side.
    """

    top: int
    left: int
    height: int
    width: int
    scale: int

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.height * self.scale, self.width * self.scale


def window_of(question: Question, image: TargetImage) -> Window:
    """Return the window of a question: its pixels and ``MARGIN_PX`` around them, clipped at the border of the image."""
    top, left = np.maximum(question.pixels.min(axis=0) - MARGIN_PX, 0).tolist()
    ends = np.minimum(question.pixels.max(axis=0) + MARGIN_PX + 1, (image.height, image.width)).tolist()
    height, width = ends[0] - top, ends[1] - left
    return Window(top, left, height, width, max(1, min(SCALE, MOST_SIDE // max(height, width))))


def write_crops(asked: Asked, folder: Path) -> Iterator[tuple[Question, Window]]:
    """Write ``QID.png`` for each question of a round, image by image, and yield the question with its window."""
    for number, image in enumerate(asked.questions.store.images):
        if not asked.questions.count(number):
            continue
        pixels = asked.read_image(number)
        for question in asked.questions.of_image(number):
            window = window_of(question, image)
            write_bytes(folder / f"{question.qid}.png", png(_picture(pixels, question, window)))
            yield question, window


def _picture(image: NDArray[np.uint8], question: Question, window: Window) -> NDArray[np.uint8]:
    """Return a window without smoothing, with a white and a black line around the queried pixels, never on them."""
    part = image[window.top : window.top + window.height, window.left : window.left + window.width]
    picture = enlarge(part, window.scale)
    asked = np.zeros((window.height, window.width), dtype=np.uint8)
    asked[question.pixels[:, 0] - window.top, question.pixels[:, 1] - window.left] = 1
    asked = enlarge(asked, window.scale)
    thick = max(1, window.scale // 8)
    for lines, color in ((2, 0), (1, 255)):
        side = 2 * lines * thick + 1
        picture[(cv2.dilate(asked, np.ones((side, side), np.uint8)) > 0) & (asked == 0)] = color
    return picture


def enlarge(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return pixels as squares of side ``scale``: (h, w, ...) -> (h * s, w * s, ...)."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def to_masks(question: Question, labels: NDArray[np.uint8], window: Window) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each label of an answer with its mask on the picture, (h * s, w * s) uint8 of 0 and 1."""
    for label in np.unique(labels[labels != NOT_ANSWERED]).tolist():
        mask = np.zeros((window.height, window.width), dtype=np.uint8)
        rows, columns = question.pixels[labels == label].T
        mask[rows - window.top, columns - window.left] = 1
        yield label, enlarge(mask, window.scale)


class Painting:
    """The answers given on the picture of a question."""

    def __init__(self, answers: Answers, question: Question) -> None:
        """Begin without answers; :meth:`finish` adds them to ``answers``."""
        self._answers, self._question = answers, question
        self.window = window_of(question, answers.store.images[question.number])
        self._masks: dict[int, Mask] = {}

    def check_size(self, height: object, width: object, where: str) -> None:
        """Refuse a file with another picture than the exported one.

        Raises:
            MalformedError: Its size differs from that of the exported picture.
        """
        size = self.window.picture_size
        if [str(height), str(width)] != [str(side) for side in size]:
            raise MalformedError(
                f"{where} does not have the {size[0]} x {size[1]} pixels of its crop",
                "label the crops as they were exported",
            )

    def fill(self, label: int) -> None:
        """Answer for all pixels of the question."""
        self._answers.add(self._question, np.full(len(self._question.pixels), label, dtype=np.uint8))

    def paint(self, label: int, mask: Mask) -> None:
        """Answer for the pixels that a mask covers by more than half, (h * s, w * s) bool."""
        self._masks[label] = self._masks[label] | mask if label in self._masks else mask

    def finish(self) -> None:
        """Add what is painted."""
        height, width, scale = self.window.height, self.window.width, self.window.scale
        shape = (height, scale, width, scale)
        covered = {label: mask.reshape(shape).sum(axis=(1, 3)) for label, mask in self._masks.items()}
        masks = [(label, 2 * count > scale * scale) for label, count in covered.items()]
        self._answers.add_window(self._question, masks, (self.window.top, self.window.left), (height, width))
