"""Closed rounds: the answers of people that a run takes into its label store, frozen when a round is closed.

The folder ``RUN/annotation`` contains a file ``cut-NNN.dat`` for each closed round. Whoever closes the round writes it,
whole or not at all. The run marks the file as taken (``taken-NNN``) before reading it; from then on, the round cannot
be opened again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ripu.io.console import command_line
from ripu.io.errors import RipuError
from ripu.io.writing import AtomicFile, publish, sync, write_bytes, writing
from ripu.labelstore.commits import file_header, squares_of
from ripu.labelstore.encoding import decode_answers, encode_answers
from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import RecordFile, RecordWriter
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import ImageAnswers, Pixels
from ripu.labelstore.store import LabelStore

FOLDER = "annotation"
"""Name of the folder of annotation, inside the folder of a run."""


class WaitingForAnswers(RipuError):
    """A run has asked its questions and cannot continue before the round is closed."""

    def __init__(self, run: Path, round_index: int) -> None:
        """Name the command for answering.

        Args:
            run: The folder of the run.
            round_index: The round.
        """
        super().__init__(f"round {round_index + 1} waits for answers: {command_line('annotate', [str(run)])}")
        self.round_index = round_index


def cut_file(folder: Path, round_index: int) -> Path:
    """Return the file of a closed round."""
    return folder / f"cut-{round_index:03d}.dat"


def _marker(folder: Path, round_index: int) -> Path:
    return folder / f"taken-{round_index:03d}"


def is_closed(folder: Path, round_index: int) -> bool:
    """Return whether a round is closed."""
    return cut_file(folder, round_index).exists()


def is_taken(folder: Path, round_index: int) -> bool:
    """Return whether the run has begun to use the answers of a round."""
    return _marker(folder, round_index).exists()


def write_cut(
    folder: Path,
    store: LabelReader,
    round_index: int,
    facts: Mapping[str, Any],
    answers: Iterable[tuple[int, Pixels]],
) -> None:
    """Close a round: write its file, image by image.

    Args:
        folder: ``RUN/annotation``.
        store: The label store with the round.
        round_index: The round.
        facts: Free JSON object about the round: questions, answered, unsure, seconds, ...
        answers: Image numbers, ascending, with flat indices, ascending, and labels.

    Raises:
        WriteError: The disk is full; the round stays open.
    """
    spec = store.rounds_as_of(round_index + 1)[-1]
    with AtomicFile(cut_file(folder, round_index)) as file:
        header = file_header(store, "answers", spec)
        out = RecordWriter(file, {**header, "facts": dict(facts)})
        for number, (indices, labels) in answers:
            image = store.images[number]
            squares = squares_of([(spec, store.picks(image.image_id, round_index))])
            out.add(number, encode_answers(indices, labels, image, squares))
        out.finish("cut")
        file.publish(durable=True)


class Cut:
    """A closed round, read image by image.

    Attributes:
        round: Number of the round.
        facts: Free JSON object about the round.
    """

    def __init__(self, folder: Path, store: LabelReader, round_index: int) -> None:
        """Open the file of a closed round.

        Raises:
            FileNotFoundError: The round is not closed.
            CorruptStoreError: The file is damaged.
            LabelStoreError: Its answers belong to another label store, or to another round of it.
        """
        path = cut_file(folder, round_index)
        if not path.exists():
            raise FileNotFoundError(path)
        self._file, self._store, self.round = RecordFile(path), store, round_index
        header = dict(self._file.header)
        self.facts: dict[str, Any] = dict(header.pop("facts", None) or {})
        if header != file_header(store, "answers", store.rounds_as_of(round_index + 1)[-1]):
            raise LabelStoreError(
                f"{path}: contains answers to another round or label store; restore the file of this run, or move it "
                "away and close the round again"
            )

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        for number in self._file.images:
            payload = self._file.read(number)
            if payload is None or number >= len(self._store.images):
                raise CorruptStoreError(f"{self._file.path}: has no image {number}; restore the file")
            yield number, decode_answers(payload, self._store.images[number])


def take_cut(store: LabelStore, folder: Path, round_index: int) -> Cut | None:
    """Append the answers of a closed round to the label store, once, in one batch sorted by image.

    Args:
        store: The label store of the run, open for writing.
        folder: ``RUN/annotation``.
        round_index: The round.

    Returns:
        The answers; None if the round is not closed.

    Raises:
        LabelStoreError: The answers belong to another label store, or contradict it.
        CorruptStoreError: The file is damaged.
        WriteError: The disk is full.
    """
    if not is_closed(folder, round_index):
        return None
    was_taken = is_taken(folder, round_index)
    write_bytes(_marker(folder, round_index), b"", durable=True)
    try:
        cut = Cut(folder, store, round_index)
    except FileNotFoundError:  # opened again just now
        if not was_taken:
            _marker(folder, round_index).unlink(missing_ok=True)
        return None
    store.append_answers(
        ImageAnswers(store.images[number].image_id, indices, labels) for number, (indices, labels) in cut
    )
    return cut


def reopen(folder: Path, round_index: int) -> bool:
    """Open a closed round again, unless the run has begun to use its answers.

    Returns:
        True if it is open now.
    """
    path = cut_file(folder, round_index)
    aside = path.with_name(f"reopened-{round_index:03d}.dat")
    with writing(path):
        with contextlib.suppress(FileNotFoundError):
            publish(path, aside)
        if is_taken(folder, round_index):
            if aside.exists():
                publish(aside, path)
            return False
        aside.unlink(missing_ok=True)
        sync(folder)
    return True


def set_aside(folder: Path, round_index: int) -> None:
    """Open a round that is about to be asked, perhaps again: a closing of an undone round of its number is over.

    The old file stays as ``undone-NNN.dat``. What a run has taken is in its label store.
    """
    path = cut_file(folder, round_index)
    with writing(path):
        with contextlib.suppress(FileNotFoundError):
            publish(path, path.with_name(f"undone-{round_index:03d}.dat"))
        _marker(folder, round_index).unlink(missing_ok=True)


def waiting_round(num_rounds: int, folder: Path, steps: Sequence[int], step: int) -> int | None:
    """Return the round whose answers a run waits for; None if it waits for none.

    Args:
        num_rounds: Committed rounds of the label store.
        folder: ``RUN/annotation``.
        steps: The steps of the rounds.
        step: The step that the run has reached, or resumes from.
    """
    if step not in steps:
        return None
    index = list(steps).index(step)
    return index if index < num_rounds and not is_closed(folder, index) else None
