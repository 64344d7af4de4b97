"""Folders of PNG files: a label image for each image.

Label images contain train ids, 255 for void and 254 for no answer. ``classes.json`` says so, and without it nothing is
read: in other software 255 often means "not labelled". ``asked/`` shows which pixels of ``images/`` are asked about.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.crops import png
from ripu.annotate.codecs.frames import frame_files, read_frame, write_frames
from ripu.annotate.codecs.masks import split
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import MalformedError, read_json
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes, write_json

_TABLE = "classes.json"


def write_png(asked: Asked, out: Path) -> None:
    """Write ``images/``, ``asked/`` and ``labels/`` with a PNG for each image of a round, and ``classes.json``."""
    write_json(out / _TABLE, _meanings(asked.names))
    for frame in write_frames(asked, out):
        write_bytes(out / "labels" / frame.file, png(frame.label))


def read_png(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read a folder with ``labels/`` and ``classes.json``.

    Raises:
        MalformedError: A file is damaged or of another size, contains ids without a meaning, or ``classes.json`` lists
            other classes.
    """
    meanings = _meanings(names)
    if read_json(path / _TABLE, _TABLE) != meanings:
        raise MalformedError(f"{_TABLE} has other classes or ids than the run", "export the round again")
    for file, number in frame_files(path / "labels", answers):
        label = read_frame(file, answers.store.images[number])
        strange = sorted(set(np.unique(label).tolist()) - {int(value) for value in meanings})
        if strange:
            raise MalformedError(f"{file.name} contains the unknown ids {strange[:10]}", f"use the ids of {_TABLE}")
        answers.add_image(number, split(label))


def _meanings(names: ClassNames) -> dict[str, str]:
    """Return the meaning of each number in a label image."""
    meanings = {NOT_ANSWERED: "(no answer)", **names.names}
    return {str(label): meanings[label] for label in sorted(meanings)}
