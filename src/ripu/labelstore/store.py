"""Writing a label store: atomic rounds that can be repeated, answers that are never lost, one writing process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ripu.io.lock import FileLock, LockedError
from ripu.io.writing import WriteError, writing
from ripu.labelstore.accounts import StoreStats, store_stats
from ripu.labelstore.audit import verify_store
from ripu.labelstore.carried import Carried, write_carried
from ripu.labelstore.commits import Shards, squares_of, write_answers, write_shard
from ripu.labelstore.errors import (
    LabelStoreError,
    RoundConflictError,
    RoundOrderError,
    StoreExistsError,
    StoreLockedError,
    StoreWriteError,
)
from ripu.labelstore.files import StoreFile, canonical_json, write_document
from ripu.labelstore.log import (
    LOCK_FILE,
    MANIFEST_FILE,
    STORE_FILE,
    Event,
    Log,
    UndoEvent,
    check_header,
    check_json,
    header_body,
    other_images,
    write_log,
)
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import ImageAnswers, ImagePicks, Pixels, Round, TargetImage, check_answers
from ripu.labelstore.recovery import asked_answers, check_never_used, release, tidy, warn_of_held

_MAX_ROUNDS = 254


class LabelStore(LabelReader):
    """The label ledger of a run: rounds of picks and the answers to them, on disk.

    Make one with :meth:`create` or :meth:`open`. Only one process writes (rank 0 of a job); every rank may
    :meth:`write_shard`. Use as a context manager or call :meth:`close` to give the writer's lock back.

    Methods that commit raise :class:`StoreLockedError` if the store is not open for writing, and
    :class:`StoreWriteError` if the disk is full. After any error, nothing is committed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> images = [TargetImage("aachen/0", 4, 6)]
        >>> with LabelStore.create(tempfile.mkdtemp(), images, ["road", "car"]) as store:
        ...     spec = store.begin_round(0, step=10, budget=1, reveal_radius=0, suppress_radius=2)
        ...     picks = ImagePicks("aachen/0", np.array([[1, 2]]))
        ...     answers = ImageAnswers("aachen/0", np.array([1 * 6 + 2]), np.array([1]))
        ...     store.add_round(spec, [picks, answers])
        ...     int(store.revealed_label("aachen/0")[1, 2])
        True
        1
    """

    _lock: FileLock | None = None
    _own_events: tuple[Event, ...] = ()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        images: Iterable[TargetImage],
        class_names: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        planned_picks: int | None = None,
        exist_ok: bool = False,
    ) -> LabelStore:
        """Create an empty store and open it for writing.

        Args:
            path: The folder; made if it is missing.
            images: The target images; their order numbers them.
            class_names: Names in train-id order, at most 254.
            metadata: Free JSON object.
            planned_picks: Picks per image over all rounds that the run plans to spend: no commit goes beyond them.
            exist_ok: Open an existing store of the same images, classes, metadata and plan instead of failing.

        Raises:
            LabelStoreError: An image id occurs twice, or a size, the class names or the metadata cannot be used.
            CorruptStoreError: The folder contains rounds or answers, and the manifest that lists them is gone.
            StoreExistsError: There is a store already, and ``exist_ok`` is False or it differs.
            StoreLockedError: Another process writes to it.
        """
        folder = Path(path)
        body = header_body(images, class_names, metadata or {}, planned_picks)
        check_header(folder, body)
        with _writing(folder) as lock:
            if not (folder / MANIFEST_FILE).exists():
                check_never_used(folder)
                digest = write_document(folder / STORE_FILE, body)
                write_log(folder, digest, Log(()))
            elif not exist_ok:
                raise StoreExistsError(f"{folder}: already contains a label store; open it, or choose another folder")
            store = cls(folder)
            if store.header.sha256 != hashlib.sha256(canonical_json(body)).hexdigest():
                mine = header_body(store.images, store.class_names, store.header.metadata, store.planned_picks)
                names = ", ".join(key for key in body if body[key] != mine[key])
                raise StoreExistsError(
                    f"{folder}: contains a label store with other {names}{other_images(mine, body)}; continue the run "
                    "with the settings and images that it was started with, or choose another output folder"
                )
            store._hold(lock)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = False) -> LabelStore:
        """Open the store in a folder.

        With ``write``, take the writer's lock, remove leftovers of a crash and save the answers among them. Otherwise
        the store is for reading and :meth:`write_shard`, nothing is locked, and opening costs one ``stat``.

        Raises:
            StoreMissingError: There is none.
            StoreLockedError: Another process writes to it, and ``write`` is given.
        """
        store = cls(path)
        if write:
            with _writing(store.path) as lock:
                store._hold(lock)
        return store

    def close(self) -> None:
        """Give the writer's lock back; the store can still be read."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def is_writable(self) -> bool:
        """True if this process holds the lock and so may commit."""
        return self._lock is not None and self._lock.is_held

    def begin_round(
        self,
        index: int,
        step: int,
        budget: int,
        *,
        reveal_radius: int = 0,
        suppress_radius: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> Round:
        """Describe a round. This touches no file: every rank calls it with the same values.

        Args:
            index: :attr:`num_rounds`, or an earlier round to repeat a commit.
            step: Training step; above that of the round before.
            budget, reveal_radius, suppress_radius: See :class:`Round`.
            info: Free JSON object that is part of the round's content (no times, no host names).

        Raises:
            RoundOrderError: Index or step are out of order.
            LabelStoreError: A number is negative, or ``info`` is not JSON.
        """
        numbers = (index, step, budget, reveal_radius, suppress_radius)
        for name, value in zip(Round.__dataclass_fields__, numbers, strict=False):
            if not 0 <= value < 2**31 or int(value) != value:
                raise LabelStoreError(f"round {index}: {name} is {value!r}; give an integer of at least 0")
        spec = Round(int(index), int(step), int(budget), int(reveal_radius), int(suppress_radius), dict(info or {}))
        check_json(spec.info, f"round {index}: info")
        self._check_order(spec)
        return spec

    def write_shard(self, spec: Round, rank: int, records: Iterable[ImagePicks | ImageAnswers]) -> None:
        """Write one rank's part of a round, without a lock, in place of an earlier shard of this rank.

        Rank 0 must have opened the store for writing before any rank gets here (opening removes stale shards). Each
        image belongs to one rank. Answers are more compact when they follow the picks of their image.

        Raises:
            RoundOrderError: The round is out of order.
            UnknownImageError, BadPickError, OverBudgetError, RevealedTwiceError: Picks are bad.
            BadLabelError, AnswerConflictError: Answers are bad.
            RoundConflictError: An image has two records of one kind.
            StoreWriteError: The disk is full.
        """
        self._check_order(spec)
        write_shard(self, spec, rank, records)

    def commit_round(self, spec: Round, world_size: int = 1) -> bool:
        """Merge the shards of all ranks into the round and commit it together with their answers.

        Call on rank 0, after a barrier behind :meth:`write_shard`. The committed bytes depend on neither the world size
        nor the order of the records. A crash before the end leaves the store as it was.

        Returns:
            True if the round is new, False if it was committed before with the same content.

        Raises:
            ShardMissingError: A rank has written none.
            RoundConflictError: The round exists with other content, or shards contradict each other.
            RoundOrderError, RevealedTwiceError, OverBudgetError, AnswerConflictError: An invariant would break.
        """
        self._require_lock()
        self._check_order(spec)
        shards = Shards(self, spec, world_size)
        with StoreFile(self.path / "picks") as file:
            event = shards.merge_picks(file)
            is_new = spec.index == len(self._rounds)
            if not is_new and self._rounds[spec.index].content_sha256 != event.content_sha256:
                raise RoundConflictError(
                    f"{self.path}: round {spec.index} is already committed with other content; undo it first"
                )
            events: list[Event] = [*write_answers(self, shards.answers())[0]]
            if is_new:
                file.publish(event.file.name)
                events.append(event)
        self._append(events)
        shards.remove()
        release(self)
        return is_new

    def add_round(self, spec: Round, records: Iterable[ImagePicks | ImageAnswers]) -> bool:
        """Write and commit a round in a single-process job; see :meth:`write_shard` and :meth:`commit_round`."""
        self._require_lock()
        self.write_shard(spec, 0, records)
        return self.commit_round(spec, 1)

    def undo_round(self, index: int) -> Round:
        """Take the last round back and return it: readers no longer see it, its answers stay, its index is free again.

        Raises:
            RoundOrderError: It is not the last committed round.
        """
        self._require_lock()
        event = self._round(index)
        if index != len(self._rounds) - 1:
            raise RoundOrderError(
                f"{self.path}: round {index} is not the last one; undo round {len(self._rounds) - 1} first"
            )
        self._append([UndoEvent(index)])
        return event.spec

    def carry(self, rounds: Sequence[Round], images: Iterable[Carried]) -> None:
        """Commit what was asked and answered before the run began, in one step and before its first round.

        It is revealed from the start, keeps later picks away as the rounds of this store do, and is not part of this
        run's budget. It stands if it contradicts answers that a crash left (see :mod:`ripu.labelstore.recovery`);
        their file stays beside it, with a warning.
        :func:`ripu.labelstore.carried_rounds`, ``mask_round`` and ``carried_images`` make the arguments.

        Raises:
            RoundOrderError: There is anything in the store already.
            BadPickError, OverBudgetError, RevealedTwiceError, BadLabelError: A record breaks an invariant.
        """
        self._require_lock()
        if self.log.events:
            raise RoundOrderError(
                f"{self.path}: has rounds or answers already; labels are carried over before the first"
            )
        self._append(write_carried(self, rounds, images))
        release(self)
        warn_of_held(self)

    def append_answers(self, answers: Iterable[ImageAnswers]) -> int:
        """Commit answers, whenever they come; known ones that agree are skipped.

        Several records for one image are allowed, and pixels need not be queried.

        Returns:
            Number of pixels that were not answered before.

        Raises:
            BadLabelError, UnknownImageError: A record is bad.
            AnswerConflictError: A pixel already has another answer.
        """
        self._require_lock()
        batches: dict[int, list[Pixels]] = {}
        for record in answers:
            number = self.number(record.image_id)
            checked = check_answers(record, len(self.class_names), self.images[number])
            batches.setdefault(number, []).append(checked)
        num_pixels = self._commit_answers(batches)
        release(self)
        return num_pixels

    def stats(self, num_rounds: int | None = None) -> StoreStats:
        """Return the budget account as of the first rounds, all for None; what was carried over always counts."""
        return store_stats(self, num_rounds)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Check everything; return a line per fault. ``progress`` gets the number of images checked and of all."""
        return verify_store(self, progress)

    def _hold(self, lock: FileLock) -> None:
        """Keep the lock, remove what a crash left behind and keep the answers in it."""
        self._lock = lock
        self._own_events = self.log.events
        weakref.finalize(self, lock.release)
        self._commit_answers(asked_answers(self))
        tidy(self)

    def _require_lock(self) -> None:
        if not self.is_writable:
            raise StoreLockedError(f"{self.path}: opened for reading; open it with write=True in one process (rank 0)")

    def _check_order(self, spec: Round) -> None:
        self._refresh()
        if spec.index > len(self._rounds):
            raise RoundOrderError(
                f"{self.path}: round {spec.index} comes too early, round {len(self._rounds)} is the next one"
            )
        if spec.index >= _MAX_ROUNDS:
            raise RoundOrderError(
                f"{self.path}: round {spec.index} is beyond the {_MAX_ROUNDS} rounds that a store contains"
            )
        if spec.index and spec.step <= self._rounds[spec.index - 1].spec.step:
            raise RoundOrderError(
                f"{self.path}: round {spec.index} at step {spec.step} does not come after round {spec.index - 1} "
                f"at step {self._rounds[spec.index - 1].spec.step}; steps have to increase"
            )

    def _commit_answers(self, batches: Mapping[int, list[Pixels]]) -> int:
        if not batches:
            return 0
        answers = (
            (number, parts, squares_of(self.picks_as_of(self.images[number].image_id)))
            for number, parts in sorted(batches.items())
        )
        events, num_pixels = write_answers(self, answers)
        self._append(events)
        return num_pixels

    def _append(self, events: Sequence[Event]) -> None:
        if events:
            self._require_lock()
            self._refresh()
            if self._log.events != self._own_events:
                raise StoreLockedError(
                    f"{self.path / MANIFEST_FILE}: was changed by another process while this one held the lock (pid "
                    f"{os.getpid()}); nothing was committed: stop the other one, run `python -m ripu.labels verify`, "
                    "and open the store again"
                )
            try:
                write_log(self.path, self.header.sha256, Log((*self._own_events, *events)))
            finally:  # written or not
                self._refresh()
                self._own_events = self._log.events


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[FileLock]:
    """Make the folder if it is missing and take the writer's lock; give it back if the body fails."""
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
    except LockedError as error:
        raise StoreLockedError(str(error)) from error
    except WriteError as error:
        raise StoreWriteError(str(error)) from error
    try:
        yield lock
    except BaseException:
        lock.release()
        raise
