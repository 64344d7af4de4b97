"""The outcome of an import of answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ImportedAnswer = tuple[str, NDArray[np.uint8] | None]
"""Name of a question and a label for each of its pixels (a train id, 255 for void, 254 for no answer); None: unsure."""


@dataclass
class ImportReport:
    """The outcome of an import; the format and the session each fill their part.

    Attributes:
        new: Questions answered by it.
        known: Questions that already had the same answer.
        conflicts: Questions that have another answer, or two of them in the file.
        unknown_questions: Names of questions that the run does not have.
        unknown_images: Names of files that belong to no image of the run.
        dropped_pixels: Labelled pixels that were not asked about.
        incomplete: Questions with pixels that the import left out.
        unsure: Questions that somebody was unsure about, and nobody has answered.
    """

    new: int = 0
    known: int = 0
    conflicts: list[str] = field(default_factory=list)
    unknown_questions: list[str] = field(default_factory=list)
    unknown_images: list[str] = field(default_factory=list)
    dropped_pixels: int = 0
    incomplete: int = 0
    unsure: list[str] = field(default_factory=list)
