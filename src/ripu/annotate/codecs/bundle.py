"""A bundle of tables and pictures: for people who have a spreadsheet and an image viewer.

``questions.csv`` lists the questions with their pixels and ``crops/QID.png`` shows each of them. Answers go into the
column ``labels`` of ``answers.csv``: the name of a class for all pixels, or a name for each pixel in the order of
``questions.csv``, separated by spaces, with ``_`` for the spaces inside a name. ``void`` stands for a pixel without a
class, ``?`` for one without an answer, ``unsure`` for a question that cannot be answered. An empty cell means no
answer.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.crops import write_crops
from ripu.annotate.codecs.masks import Labels
from ripu.annotate.codecs.names import ClassNames, short, stem_of
from ripu.annotate.codecs.reading import MalformedError, read_document
from ripu.annotate.codecs.spreadsheet import plain_cell, read_table, table_bytes
from ripu.annotate.questions import QID
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes

UNSURE = "unsure"
_NUMBER = re.compile(r"([0-9]+)[.,]0+")


def write_bundle(asked: Asked, out: Path) -> None:
    """Write the questions of a round as tables and pictures; see the top of this module."""
    words = {label: word for word, label in _words(asked.names).items()}
    table = [["qid", "image", "round", "rows", "columns", "crop", "height", "width"]]
    answers = [["qid", "labels", "crop"]]
    for question, _ in write_crops(asked, out / "crops"):
        image, crop = asked.questions.store.images[question.number], f"crops/{question.qid}.png"
        rows, columns = (" ".join(map(str, values)) for values in question.pixels.T.tolist())
        size = [str(image.height), str(image.width)]
        table.append([question.qid, image.image_id, str(question.round), rows, columns, crop, *size])
        labels = asked.final_labels(question)
        parts = [] if labels is None else [words[label] for label in labels.tolist()]
        answers.append([question.qid, parts[0] if len(set(parts)) == 1 else " ".join(parts), crop])
    write_bytes(out / "questions.csv", table_bytes(table))
    write_bytes(out / "answers.csv", table_bytes(answers))


def read_bundle(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read ``answers.csv``, even if a spreadsheet saved it.

    Raises:
        MalformedError: The file is damaged, a row names no question, or the labels of a row are not as many as the
            pixels of its question.
    """
    words = _words(names)
    for number, row in read_table(read_document(path, "answers.csv"), ("qid", "labels")):
        cell = row.get("labels", "").strip()
        question = answers.question(_qid(row, number)) if cell else None
        if question is None:
            continue
        if plain_cell(cell).casefold() == UNSURE:
            answers.add_unsure(question)
        elif (labels := _labels(cell, len(question.pixels), words, names, number)) is not None:
            answers.add(question, labels)


def _words(names: ClassNames) -> dict[str, int]:
    """Return a word without spaces for each label, void and "no answer" included."""
    words = {"?": NOT_ANSWERED}
    for label, name in sorted(names.names.items(), reverse=True):  # void first
        word = "_".join(name.split())
        while word in words or word.casefold() == UNSURE:
            word += f"#{label}"
        words[word] = label
    return words


def _qid(row: dict[str, str], number: int) -> str:
    """Return the name of a row's question, from the name of its picture if a spreadsheet has spoilt it."""
    qid, crop = plain_cell(row.get("qid", "")), stem_of(plain_cell(row.get("crop", "")))
    named = {one for one in (qid, crop) if QID.fullmatch(one)}
    if len(named) != 1:
        raise MalformedError(
            f"row {number}: {short(qid)!r} and the crop {short(crop)!r} do not name one question (to a spreadsheet, "
            "0-1-2 is a date)",
            "import the columns as text, or copy them from questions.csv",
        )
    return named.pop()


def _labels(cell: str, count: int, words: dict[str, int], names: ClassNames, number: int) -> Labels | None:
    """Return the labels of a cell; None for unknown names, which ``names`` reports."""

    def find(text: str) -> int | None:
        return words.get(text, names.find(text))

    text = plain_cell(cell)
    parts = text.split()
    found: list[int | None] = [find(part) for part in parts]
    if len(parts) != count or None in found:  # a name for all pixels, which may contain spaces
        match = _NUMBER.fullmatch(text)  # a spreadsheet writes 1 as 1.0
        wholes = [find(text), find(cell), find(match[1]) if match else None]
        whole = next((label for label in wholes if label is not None), None)
        found = found if whole is None else [whole] * count
    if None in found:
        for part in parts if any(label is not None for label in found) else [text]:
            if find(part) is None:
                names.label(part, f"row {number}")
        return None
    if len(found) != count:
        raise MalformedError(
            f"row {number}: {len(found)} labels for {count} pixels (spreadsheets cut cells at 32,767 characters)",
            "give one for all, or one for each",
        )
    return np.asarray(found, dtype=np.uint8)
