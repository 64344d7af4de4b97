"""The leftovers of a crash in a store's folder, and their treatment.

Half-written files are removed. Answers in whole ones are kept, since somebody gave them. Those that a live round asks
for are committed. Those that nobody asks for yet (their round was not committed) are *held* in files of their own,
which :meth:`LabelReader.answered` knows. When the round is asked again, they become part of its commit, so the store
has the bytes that it would have had without the crash.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path

from ripu.io.writing import TMP_PREFIX, publish, sync
from ripu.labelstore.commits import check_agrees, merge, read_unlisted
from ripu.labelstore.errors import AnswerConflictError, CorruptStoreError
from ripu.labelstore.files import file_digest
from ripu.labelstore.log import MANIFEST_FILE, held_files, held_name
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import Pixels

_OWN_FILE = re.compile(
    r"((round|carried)-\d{3}-[0-9a-f]{16}|answers-[0-9a-f]{16}|shard-\d{3}-\d{5}-(picks|answers))\.dat"
)


def check_never_used(folder: Path) -> None:
    """Refuse to make a store in a folder with rounds or answers: the manifest came before them, so it was lost."""
    found = sorted(path.name for path in folder.iterdir() if _OWN_FILE.fullmatch(path.name))
    if found or held_files(folder):
        raise CorruptStoreError(
            f"{folder / MANIFEST_FILE}: the file is missing, but {(found or ['answers'])[0]} exists; restore it from "
            "a copy of the run: it lists the rounds"
        )


def asked_answers(store: LabelReader) -> dict[int, list[Pixels]]:
    """Return the answers in unlisted and held files that live rounds wait for, by image number."""
    batches: dict[int, list[Pixels]] = {}
    for path in [*_unlisted(store), *held_files(store.path)]:
        try:
            answers = _answers_in(store, path)
            if not _is_awaited(store, answers):
                continue
            for number, pixels in answers:
                merge([*batches.get(number, ()), pixels], store.images[number])
        except AnswerConflictError:  # tidy warns of it
            continue
        for number, pixels in answers:
            batches.setdefault(number, []).append(pixels)
    return batches


def tidy(store: LabelReader) -> None:
    """Hold the answers in unlisted files that nobody asks for yet, and remove every other leftover.

    The awaited answers (:func:`asked_answers`) must be committed already.
    """
    for path in sorted(store.path.glob(f"{TMP_PREFIX}*")):
        _remove(path)
    _keep_news(store, _unlisted(store))
    release(store)


def release(store: LabelReader) -> None:
    """Remove the held files whose every answer is committed by now.

    One that contradicts what is committed stays, with a warning: labels that were carried over may do so.
    """
    _keep_news(store, held_files(store.path))


def _keep_news(store: LabelReader, paths: list[Path]) -> None:
    """Hold the files with answers that are not committed, and remove the others."""
    for path in paths:
        try:
            answers = _answers_in(store, path)
        except AnswerConflictError as error:
            warnings.warn(
                f"{path}: left in place; it contradicts known answers, which stand ({error}); if they are "
                "right, move the file away",
                stacklevel=5,
            )
            continue
        is_committed = [
            store.is_committed(store.images[number].image_id, pixels[0]).all() for number, pixels in answers
        ]
        if all(is_committed):
            _remove(path)
        elif _is_held(path):
            continue
        else:
            publish(path, store.path / held_name(file_digest(path)))
            sync(store.path)
        store.look_again()


def warn_of_held(store: LabelReader) -> None:
    """Warn about held answers other than those that a store starts with; :func:`release` warns about contradictions."""
    for path in held_files(store.path):
        with contextlib.suppress(AnswerConflictError):
            _answers_in(store, path)
            warnings.warn(
                f"{path}: kept; it has answers from before the labels were carried over, and somebody may have given "
                "them; if they come from labels that were corrected since, move the file away",
                stacklevel=4,
            )


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it goes when a writer opens the store again
        path.unlink()


def _unlisted(store: LabelReader) -> list[Path]:
    listed = store.log.files
    return [path for path in sorted(store.path.iterdir()) if _OWN_FILE.fullmatch(path.name) and path.name not in listed]


def _is_held(path: Path) -> bool:
    return path.name.startswith("held-")


def _answers_in(store: LabelReader, path: Path) -> list[tuple[int, Pixels]]:
    """Read the answers in a file; :class:`AnswerConflictError` if they contradict what is known."""
    if not _is_held(path) and "answers" not in path.name:
        return []
    try:
        answers = list(read_unlisted(store, path))
    except CorruptStoreError:
        if _is_held(path):
            raise  # it was whole once
        return []  # a crash cut it off: these answers were never acknowledged
    for number, pixels in answers:
        check_agrees(store, store.images[number], pixels)
    return answers


def _is_awaited(store: LabelReader, answers: list[tuple[int, Pixels]]) -> bool:
    for number, (indices, _) in answers:
        image_id = store.images[number].image_id
        is_asked = store.asked_mask(image_id).reshape(-1)[indices]
        if (is_asked & ~store.is_committed(image_id, indices)).any():
            return True
    return False
