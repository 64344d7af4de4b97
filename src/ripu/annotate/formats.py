"""Exchange formats by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ripu.annotate.session import ImportReport, Session

FORMATS: Mapping[str, str] = {
    "bundle": "questions.csv, crops and answers.csv, for a spreadsheet",
    "cvat": "CVAT for images 1.1, tags and masks on crops",
    "label-studio": "Label Studio JSON, choices and brush labels on crops",
    "coco": "COCO JSON with RLE masks on whole images",
    "png": "label images, or a folder of masks for each class",
}


def _codec(name: str) -> Any:
    module = {"label-studio": "label_studio", "png": "png_folder"}.get(name, name)
    return importlib.import_module(f"ripu.annotate.codecs.{module}")


def export_questions(name: str, session: Session, read_image: Callable[[int], NDArray[Any]], out: Path) -> int:
    """Write the questions of the newest round in a format of :data:`FORMATS`; return their number."""
    write = _codec(name).export
    count: int = write(session.questions, session.classes, read_image, out, session.final_labels)
    return count


def import_answers(name: str, session: Session, by: str, path: Path) -> ImportReport:
    """Read answers in a format of :data:`FORMATS` into the journal.

    Args:
        name: The format.
        session: The session.
        by: The name under which the answers are kept.
        path: The file or folder.

    Returns:
        The outcome of reading and keeping them.
    """
    answers, found = _codec(name).read(path, session.store, session.questions_of, session.classes)
    report = session.import_answers(by, answers)
    report.dropped_pixels += found.dropped_pixels
    report.conflicts += found.conflicts
    report.unknown_questions += found.unknown_questions
    report.unknown_images += found.unknown_images
    return report
