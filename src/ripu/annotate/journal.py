"""The journal of answers: an SQLite file in ``RUN/annotation`` that one server process writes, a row for each answer.

An answer is on the disk when :meth:`Journal.add` returns. Rows never change, except that undoing an answer records
when. The file is opened exclusively, which keeps other processes out on a network file system, too.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.errors import AnnotationError
from ripu.io.writing import WriteError, writing

JOURNAL_FILE = "journal.sqlite"
VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
  id INTEGER PRIMARY KEY,
  client_id TEXT NOT NULL UNIQUE,
  round INTEGER NOT NULL,
  image INTEGER NOT NULL,
  pick INTEGER NOT NULL,
  annotator TEXT NOT NULL,
  labels BLOB,            -- uint8, one per pixel: a class, 255 void, 254 not given; NULL: unsure
  ms INTEGER,             -- time that the answer took; NULL: unknown
  suggestion TEXT,        -- accepted, shown, blind; NULL: there was none
  resolves INTEGER NOT NULL DEFAULT 0,  -- decides a conflict
  at REAL NOT NULL,
  undone REAL
);
CREATE INDEX IF NOT EXISTS by_question ON answers (round, image, pick);
CREATE TABLE IF NOT EXISTS leases (round INTEGER, block INTEGER, annotator TEXT, until REAL NOT NULL,
  PRIMARY KEY (round, block, annotator)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, kind TEXT NOT NULL,
  annotator TEXT NOT NULL, at REAL NOT NULL);
"""


@dataclass(frozen=True)
class Answer:
    """One answer of one person.

    Attributes:
        client_id: Name of the answer, chosen by the sender; a second answer of the same name is ignored.
        round, image, pick: The question.
        by: The annotator.
        labels: (M,) uint8, in the order of the question's pixels: classes, 255 void, 254 not given; None: unsure.
        ms: Milliseconds that the answer took; None if unknown.
        suggestion: ``accepted``, ``shown`` or ``blind``; None if there was no suggestion.
        resolves: Decides a conflict between other answers.
        at: Time of arrival, seconds since the epoch.
    """

    client_id: str
    round: int
    image: int
    pick: int
    by: str
    labels: NDArray[np.uint8] | None
    ms: int | None = None
    suggestion: str | None = None
    resolves: bool = False
    at: float = 0.0


class Journal:
    """The journal of a run; other processes cannot open it before :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        """Open the journal, or create it.

        Args:
            folder: ``RUN/annotation``; made if it is missing.

        Raises:
            AnnotationError: Another process has it open, it is damaged, or it was written by a newer version.
            WriteError: The disk is full, or the folder cannot be written to.
        """
        self.path = folder / JOURNAL_FILE
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            with self._explained():
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode=WAL")  # exclusive: needs no memory shared with other processes
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT OR IGNORE INTO about VALUES ('version', ?)", (str(VERSION),))
                self._db.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (secrets.token_hex(8),))
                self._db.execute("COMMIT")
                version = self.about("version")
            if version != str(VERSION):
                raise AnnotationError(
                    f"{self.path}: written by another version of the package (format {version}, here {VERSION}); use "
                    "that version"
                )
        except BaseException:
            self._db.close()
            raise

    @property
    def num_changes(self) -> int:
        """A number that grows with each change."""
        return self._db.total_changes

    def close(self) -> None:
        """Close the file, so that other processes can open it."""
        self._db.close()

    def about(self, key: str) -> str | None:
        """Return a fact about the journal."""
        row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def remember(self, key: str, value: str) -> None:
        """Write a fact about the journal, in place of an earlier one."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    def know_round(self, round_index: int, asked: str) -> None:
        """Note what a round asks. Answers to another round of this number, which was undone, count as undone.

        Args:
            round_index: The round.
            asked: Its digest in the label store.

        Raises:
            WriteError: The disk is full; nothing is written.
        """
        key = f"round {round_index}"
        known = self.about(key)
        if known == asked:
            return
        with self._transaction():
            if known is not None:
                now = time.time()
                self._db.execute("UPDATE answers SET undone = ? WHERE round = ? AND undone IS NULL", (now, round_index))
                self._db.execute("DELETE FROM leases WHERE round = ?", (round_index,))
                self._db.execute(
                    "INSERT INTO events (round, kind, annotator, at) VALUES (?, 'asked again', '', ?)",
                    (round_index, now),
                )
            self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, asked))

    def add(self, answers: Sequence[Answer]) -> list[bool]:
        """Write answers: all of them or none.

        Args:
            answers: The answers; :attr:`Answer.at` is not used.

        Returns:
            For each, True if it is new, False if an answer of the same name existed.

        Raises:
            WriteError: The disk is full; nothing is written.
        """
        now = time.time()
        is_new = []
        with self._transaction():
            for one in answers:
                labels = None if one.labels is None else one.labels.tobytes()
                row = (one.client_id, one.round, one.image, one.pick, one.by, labels, one.ms, one.suggestion)
                found = self._db.execute(
                    "INSERT OR IGNORE INTO answers (client_id, round, image, pick, annotator, labels, ms, suggestion,"
                    " resolves, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, int(one.resolves), now),
                )
                is_new.append(found.rowcount == 1)
        return is_new

    def has(self, client_id: str) -> bool:
        """Return whether an answer of this name was written, undone or not."""
        with self._explained():
            found = self._db.execute("SELECT 1 FROM answers WHERE client_id = ?", (client_id,)).fetchone()
        return found is not None

    def undo(self, by: str, client_id: str, round_index: int) -> Answer | None:
        """Mark an answer to a round as undone.

        Returns:
            The answer; None if this annotator gave none of this name, or undid it before.
        """
        with self._transaction():
            changed = self._db.execute(
                "UPDATE answers SET undone = ? WHERE client_id = ? AND annotator = ? AND round = ? AND undone IS NULL",
                (time.time(), client_id, by, round_index),
            )
        if changed.rowcount != 1:
            return None
        return next(self._select("client_id = ?", client_id, live=False))

    def lease(self, round_index: int, block: int, by: str, until: float) -> None:
        """Reserve a block of questions for an annotator until a time (seconds since the epoch)."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (round_index, block, by, until))

    def leases(self, round_index: int, after: float) -> Iterator[tuple[int, str, float]]:
        """Yield (block, annotator, until) for leases that end after a time."""
        with self._explained():
            yield from self._db.execute(
                "SELECT block, annotator, until FROM leases WHERE round = ? AND until > ?", (round_index, after)
            )

    def note(self, round_index: int, kind: str, by: str) -> None:
        """Record that a round was closed or opened again."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO events (round, kind, annotator, at) VALUES (?, ?, ?, ?)",
                (round_index, kind, by, time.time()),
            )

    def last_event(self, round_index: int) -> str | None:
        """Return the last note on a round: ``closed``, ``reopened`` or ``asked again``; None if there is none."""
        with self._explained():
            row = self._db.execute(
                "SELECT kind FROM events WHERE round = ? ORDER BY id DESC LIMIT 1", (round_index,)
            ).fetchone()
        return None if row is None else str(row[0])

    def answers(self, round_index: int) -> Iterator[Answer]:
        """Yield the answers to a round that are not undone, question by question, each in the order of arrival."""
        return self._select("round = ?", round_index)

    def answers_about(self, round_index: int, image: int) -> list[Answer]:
        """Return the answers to a round's questions about one image, as :meth:`answers` does."""
        return list(self._select("round = ? AND image = ?", round_index, image))

    def answers_to(self, round_index: int, image: int, pick: int) -> list[Answer]:
        """Return the answers to one question that are not undone, in the order of arrival."""
        return list(self._select("round = ? AND image = ? AND pick = ?", round_index, image, pick))

    def rounds(self) -> list[int]:
        """Return the rounds that have answers."""
        with self._explained():
            return [int(row[0]) for row in self._db.execute("SELECT DISTINCT round FROM answers ORDER BY round")]

    def _select(self, condition: str, *values: object, live: bool = True) -> Iterator[Answer]:
        with self._explained():
            rows = self._db.execute(
                "SELECT client_id, round, image, pick, annotator, labels, ms, suggestion, resolves, at FROM answers "  # noqa: S608
                f"WHERE {condition} {'AND undone IS NULL ' if live else ''}ORDER BY round, image, pick, id",
                values,
            )
            for client_id, round_index, image, pick, by, labels, ms, suggestion, resolves, at in rows:
                found = None if labels is None else np.frombuffer(labels, dtype=np.uint8)
                yield Answer(client_id, round_index, image, pick, by, found, ms, suggestion, bool(resolves), at)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            said = str(error)
            if "locked" in said or "busy" in said:
                raise AnnotationError(f"{self.path}: another process has it open; stop that one first") from error
            raise WriteError(f"{self.path} cannot be written: {said}; free some space on its disk") from error
        except sqlite3.DatabaseError as error:
            raise AnnotationError(
                f"{self.path}: damaged ({error}); restore it from a backup, or move it away: closed rounds are kept in "
                "the cut files beside it"
            ) from error
