"""Writing a label store: atomic, idempotent rounds; answers that are never lost; one writing process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ripu.io.lock import FileLock, LockedError
from ripu.io.writing import WriteError, writing
from ripu.labelstore.accounts import StoreStats, store_stats
from ripu.labelstore.answers import (
    Pixels,
    check_agrees,
    file_header,
    fresh_answers,
    live_squares,
    write_answers,
)
from ripu.labelstore.audit import verify_store
from ripu.labelstore.carried import Carried, write_carried
from ripu.labelstore.encoding import decode_answers, decode_picks, encode_answers, encode_picks
from ripu.labelstore.errors import (
    LabelStoreError,
    OverBudgetError,
    RoundConflictError,
    RoundOrderError,
    ShardMissingError,
    StoreExistsError,
    StoreLockedError,
    StoreWriteError,
)
from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile, canonical_json, write_document
from ripu.labelstore.log import (
    LOCK_FILE,
    MANIFEST_FILE,
    STORE_FILE,
    AnswersEvent,
    Event,
    Log,
    RoundEvent,
    UndoEvent,
    check_header,
    check_json,
    header_body,
    with_int_sizes,
    write_log,
)
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    ImagePicks,
    IntArray,
    Round,
    TargetImage,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    regions_of,
)
from ripu.labelstore.recovery import asked_answers, check_never_used, release, tidy, warn_of_held

MAX_ROUNDS = 254


class LabelStore(LabelReader):
    """The label ledger of a run: rounds of picks and the answers to them, on disk.

    Make one with :meth:`create` or :meth:`open`. Only one process writes (rank 0 of a job); every rank may
    :meth:`write_shard`. Use as a context manager or call :meth:`close` to give the writer's lock back.

    Example:
        >>> import tempfile
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

    # ---- making and closing

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
            path: The folder; made where it is missing.
            images: The target images; their order is kept.
            class_names: Names in train-id order, at most 254.
            metadata: Free JSON object.
            planned_picks: Picks per image over all rounds that the run means to spend: no commit goes beyond them.
            exist_ok: Open an existing store of the same images, classes, metadata and plan instead of failing.

        Returns:
            The store; this process holds the writer's lock.

        Raises:
            LabelStoreError: If an image id occurs twice, or a size, the class names or the metadata are not usable.
            CorruptStoreError: If the folder holds rounds or answers, and the manifest that lists them is gone.
            StoreExistsError: If there is a store already and ``exist_ok`` is False or it differs.
            StoreLockedError: If another process writes to it.
        """
        folder = Path(path)
        body = header_body(with_int_sizes(images), tuple(class_names), metadata or {}, planned_picks)
        check_header(folder, body)
        lock = _lock(folder)
        try:
            if not (folder / MANIFEST_FILE).exists():
                check_never_used(folder)
                digest = write_document(folder / STORE_FILE, body)
                write_log(folder, digest, Log(()))
            elif not exist_ok:
                raise StoreExistsError(f"{folder}: holds a label store already; open it, or choose another folder")
            store = cls(folder)
            if store.header.sha256 != hashlib.sha256(canonical_json(body)).hexdigest():
                mine = header_body(store.images, store.class_names, store.metadata, store.planned_picks)
                names = ", ".join(key for key in body if body[key] != mine[key])
                raise StoreExistsError(
                    f"{folder}: holds a label store with other {names}; continue the run with the settings that it was "
                    "started with, or choose another output folder"
                )
            store._hold(lock)
            store._clean()
        except BaseException:
            lock.release()
            raise
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = False) -> LabelStore:
        """Open a store.

        Args:
            path: Its folder.
            write: Take the writer's lock, remove leftovers of a crash and save the answers among them. Without, the
                store is for reading and :meth:`write_shard`, nothing is locked, and opening costs one ``stat``.

        Raises:
            StoreMissingError: If there is none.
            StoreLockedError: If ``write`` and another process writes to it.
        """
        store = cls(path)
        if write:
            lock = _lock(store.path)
            try:
                store._hold(lock)
                store._clean()
            except BaseException:
                lock.release()
                raise
        return store

    def close(self) -> None:
        """Give the writer's lock back; reading goes on."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def is_writable(self) -> bool:
        """Whether this process may commit (it holds the lock)."""
        return self._lock is not None and self._lock.is_held

    # ---- rounds

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
        """Describe a round; touches no file, so that every rank can call it with the same values.

        Args:
            index: :attr:`num_rounds`, or an earlier round to repeat a commit.
            step: Training step; above that of the round before.
            budget: Most picks per image.
            reveal_radius: See :class:`Round`.
            suppress_radius: See :class:`Round`.
            info: Free JSON object that is part of the round's content (no times, no host names).

        Returns:
            The description for :meth:`write_shard` and :meth:`commit_round`.

        Raises:
            RoundOrderError: If index or step are out of order.
            LabelStoreError: If a number is negative or ``info`` is not JSON.
        """
        for name, value in (
            ("index", index),
            ("step", step),
            ("budget", budget),
            ("reveal_radius", reveal_radius),
            ("suppress_radius", suppress_radius),
        ):
            if not 0 <= value < 2**31 or int(value) != value:
                raise LabelStoreError(f"round {index}: {name} is {value!r}; give an integer of at least 0")
        spec = Round(int(index), int(step), int(budget), int(reveal_radius), int(suppress_radius), dict(info or {}))
        check_json(spec.info, f"round {index}: info")
        self._check_order(spec)
        return spec

    def write_shard(self, spec: Round, rank: int, records: Iterable[ImagePicks | ImageAnswers]) -> None:
        """Write one rank's part of a round; needs no lock and replaces an earlier shard of this rank.

        Rank 0 must have opened the store for writing before any rank gets here (opening removes stale shards). Each
        image belongs to one rank. Answers are more compact when they follow the picks of their image.

        Args:
            spec: From :meth:`begin_round`.
            rank: 0 .. world size - 1.
            records: Picks, and answers where there are any already; may be a generator.

        Raises:
            RoundOrderError: If the round is out of order.
            UnknownImageError, BadPickError, OverBudgetError, RevealedTwiceError: On bad picks.
            BadLabelError, AnswerConflictError: On bad answers.
            RoundConflictError: If an image has two records of one kind.
            StoreWriteError: If the disk is full.
        """
        self._check_order(spec)
        squares: dict[int, IntArray] = {}
        done: set[tuple[type, int]] = set()
        with StoreFile(self.path / "picks") as picks_file, StoreFile(self.path / "answers") as answers_file:
            picks_out = RecordWriter(picks_file, file_header(self, "picks", spec))
            answers_out = RecordWriter(answers_file, file_header(self, "answers", None))
            for record in records:
                number = self._number(record.image_id)
                if (type(record), number) in done:
                    raise RoundConflictError(
                        f"round {spec.index}: two records of one kind for image {record.image_id!r}; give one"
                    )
                done.add((type(record), number))
                if isinstance(record, ImagePicks):
                    checked = self._checked(record, spec)
                    if checked.regions is None:
                        squares[number] = checked.picks.astype(np.int64)
                    picks_out.add(number, encode_picks(checked))
                else:
                    image = self.images[number]
                    indices, labels = check_answers(record, len(self.class_names), image)
                    check_agrees(self, image, indices, labels)
                    hint = (squares[number], spec.reveal_radius) if number in squares else None
                    answers_out.add(number, encode_answers(indices, labels, image, hint))
            picks_out.finish("shard")
            answers_out.finish("shard")
            # Answers first: where there are picks, the shard is complete.
            answers_file.publish(self._shard(spec.index, rank, "answers").name)
            picks_file.publish(self._shard(spec.index, rank, "picks").name)

    def commit_round(self, spec: Round, world_size: int = 1) -> bool:
        """Merge the shards of all ranks into the round and commit it together with their answers.

        Call on rank 0, after a barrier behind :meth:`write_shard`. The committed bytes depend on neither the world
        size nor the order of the records. A crash before the end leaves the store as it was.

        Args:
            spec: From :meth:`begin_round`.
            world_size: Number of shards.

        Returns:
            True if the round is new, False if it was committed before with the same content.

        Raises:
            ShardMissingError: If a rank has written none.
            RoundConflictError: If the round exists with other content, or shards contradict each other.
            RoundOrderError, RevealedTwiceError, OverBudgetError, AnswerConflictError: If an invariant would break.
            StoreLockedError: If this store was not opened for writing.
            StoreWriteError: If the disk is full.
        """
        self._require_lock()
        self._check_order(spec)
        picks_in = [self._open_shard(spec, rank, "picks") for rank in range(world_size)]
        answers_in = [self._open_shard(spec, rank, "answers") for rank in range(world_size)]
        content = content_digest(spec)
        squares: dict[int, IntArray] = {}
        events: list[Event] = []
        with StoreFile(self.path / "picks") as target:
            out = RecordWriter(target, file_header(self, "picks", spec))
            for number in sorted({number for file in picks_in for number in file.images}):
                payloads = _payloads(picks_in, number)
                image_id = self.images[number].image_id
                if len(set(payloads)) > 1:
                    raise RoundConflictError(
                        f"round {spec.index}: two ranks bring different picks for image {image_id!r}; "
                        "give each image to one rank"
                    )
                payload = payloads[0]
                record = self._checked(decode_picks(payload, image_id), spec)
                if record.regions is None:
                    squares[number] = record.picks.astype(np.int64)
                content.update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
                out.add(number, payload)
            entry = out.finish(f"round-{spec.index:03d}")
            event = RoundEvent(spec, content.hexdigest(), entry)
            is_new = spec.index == len(self._rounds)
            if not is_new and self._rounds[spec.index].content_sha256 != event.content_sha256:
                raise RoundConflictError(
                    f"{self.path}: round {spec.index} is committed already with other content; "
                    "undo it first if it shall be replaced"
                )
            hints = {number: (picks, spec.reveal_radius) for number, picks in squares.items()}
            given = self._given(spec, picks_in, answers_in)
            answers_entry, _ = write_answers(self, fresh_answers(self, given), hints.get)
            if answers_entry is not None:
                events.append(AnswersEvent(answers_entry))
            if is_new:
                target.publish(entry.name)
                events.append(event)
        self._append(events)
        for file in (*picks_in, *answers_in):
            with contextlib.suppress(OSError):  # the round is committed; a leftover goes when a writer opens
                file.path.unlink()
        release(self)
        return is_new

    def add_round(self, spec: Round, records: Iterable[ImagePicks | ImageAnswers]) -> bool:
        """:meth:`write_shard` and :meth:`commit_round` for a job of one process."""
        self._require_lock()
        self.write_shard(spec, 0, records)
        return self.commit_round(spec, 1)

    def undo_round(self, index: int) -> Round:
        """Take the last round back: readers no longer see it, its answers stay, its index is free again.

        Returns:
            The round that was undone.

        Raises:
            RoundOrderError: If it is not the last committed round.
            StoreLockedError: If this store was not opened for writing.
        """
        self._require_lock()
        event = self._round(index)
        if index != len(self._rounds) - 1:
            raise RoundOrderError(
                f"{self.path}: round {index} is not the last one; undo round {len(self._rounds) - 1} first"
            )
        self._append([UndoEvent(index)])
        return event.spec

    # ---- what was asked before

    def carry(self, rounds: Sequence[Round], images: Iterable[Carried]) -> None:
        """Commit what was asked and answered before the run began, in one step and before its first round.

        It is revealed from the start, keeps later picks away as the rounds of this store do, and is not part of the
        budget of this run. Where it contradicts answers that a crash left (see :mod:`ripu.labelstore.recovery`), it
        stands; their file stays beside it, with a warning.

        Args:
            rounds: See :func:`ripu.labelstore.carried.carried_rounds` and :func:`ripu.labelstore.carried.mask_round`.
            images: Every image of the store, in its order.

        Raises:
            RoundOrderError: If there is anything in the store already.
            BadPickError, OverBudgetError, RevealedTwiceError, BadLabelError: If a record breaks an invariant; nothing
            is
                committed.
            StoreLockedError: If this store was not opened for writing.
            StoreWriteError: If the disk is full.
        """
        self._require_lock()
        if self.log.events:
            raise RoundOrderError(
                f"{self.path}: has rounds or answers already; labels are carried over before the first"
            )
        for spec in rounds:
            check_json(spec.info, f"carried round {spec.index}: info")
        self._append(write_carried(self, rounds, images))
        release(self)
        warn_of_held(self)

    # ---- answers

    def append_answers(self, answers: Iterable[ImageAnswers]) -> int:
        """Commit answers, whenever they come; what is known already and agrees is skipped.

        Args:
            answers: Any number of records, several for one image allowed; pixels need not be asked for.

        Returns:
            Number of pixels that were not answered before.

        Raises:
            BadLabelError, UnknownImageError: On a bad record; nothing is committed.
            AnswerConflictError: If a pixel has another answer already; nothing is committed.
            StoreLockedError: If this store was not opened for writing.
            StoreWriteError: If the disk is full.
        """
        self._require_lock()
        batches: dict[int, list[Pixels]] = {}
        for record in answers:
            number = self._number(record.image_id)
            checked = check_answers(record, len(self.class_names), self.images[number])
            batches.setdefault(number, []).append(checked)
        num_pixels = self._commit_answers(batches)
        release(self)
        return num_pixels

    # ---- accounts

    def stats(self, num_rounds: int | None = None) -> StoreStats:
        """Budget account per image, round and class; see :func:`ripu.labelstore.audit.store_stats`."""
        return store_stats(self, num_rounds)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Check every checksum and invariant; see :func:`ripu.labelstore.audit.verify_store`.

        Args:
            progress: Called with images checked and images.

        Returns:
            One line per fault; empty if all is well.
        """
        return verify_store(self, progress)

    # ---- inside

    def _hold(self, lock: FileLock) -> None:
        self._lock = lock
        self._refresh()
        self._own_events = self._log.events
        weakref.finalize(self, lock.release)

    def _require_lock(self) -> None:
        if not self.is_writable:
            raise StoreLockedError(f"{self.path}: opened for reading; open it with write=True in one process (rank 0)")

    def _check_order(self, spec: Round) -> None:
        self._refresh()
        if spec.index > len(self._rounds):
            raise RoundOrderError(
                f"{self.path}: round {spec.index} comes too early, round {len(self._rounds)} is the next one"
            )
        if spec.index >= MAX_ROUNDS:
            raise RoundOrderError(
                f"{self.path}: round {spec.index} is beyond the {MAX_ROUNDS} rounds that a store holds"
            )
        if spec.index and spec.step <= self._rounds[spec.index - 1].spec.step:
            raise RoundOrderError(
                f"{self.path}: round {spec.index} at step {spec.step} does not come after round {spec.index - 1} "
                f"at step {self._rounds[spec.index - 1].spec.step}; steps have to increase"
            )

    def _checked(self, record: ImagePicks, spec: Round) -> ImagePicks:
        """Every invariant of a record: form, budget, and nothing asked for twice."""
        image = self.image(record.image_id)
        checked = check_picks(record, spec, image)
        asked = self.asked_mask(image.image_id, spec.index).reshape(-1)
        where = f"round {spec.index}, image {image.image_id!r}"
        planned = self.planned_picks
        # Images that share a budget, and regions of sizes of their own, have no plan for each image.
        if planned is not None and checked.regions is None and "budget_per" not in spec.info and len(checked.picks):
            spent = sum(len(self.picks(image.image_id, earlier).picks) for earlier in range(spec.index))
            if spent + len(checked.picks) > planned:
                raise OverBudgetError(
                    f"{where}: {len(checked.picks)} picks after {spent} in earlier rounds are more than the run "
                    f"planned for an image (planned_picks={planned})"
                )
        check_disjoint(regions_of(checked, spec, image).indices, asked, where, image.width)
        return checked

    def _commit_answers(self, batches: Mapping[int, list[Pixels]]) -> int:
        if not batches:
            return 0
        fresh = fresh_answers(self, sorted(batches.items()))
        entry, num_pixels = write_answers(self, fresh, lambda number: live_squares(self, number))
        if entry is not None:
            self._append([AnswersEvent(entry)])
        return num_pixels

    def _append(self, events: Sequence[Event]) -> None:
        if events:
            self._require_lock()
            self._refresh()
            if self._log.events != self._own_events:
                raise StoreLockedError(
                    f"{self.path / MANIFEST_FILE}: was changed by another process while this one held the lock (pid "
                    f"{os.getpid()}); nothing was committed: stop the other one, look at `python -m ripu.labels "
                    "verify`, and open the store again"
                )
            try:
                write_log(self.path, self.header.sha256, Log((*self._own_events, *events)))
            finally:  # written or not
                self._refresh()
                self._own_events = self._log.events

    def _given(
        self, spec: Round, picks_in: Sequence[RecordFile], answers_in: Sequence[RecordFile]
    ) -> Iterator[tuple[int, list[Pixels]]]:
        """Yield the answers of a round, from its shards and from those held, image by image in ascending order."""
        for number in sorted({number for file in (*picks_in, *answers_in) for number in file.images}):
            image = self.images[number]
            parts = [decode_answers(payload, image) for payload in _payloads(answers_in, number)]
            for payload in _payloads(picks_in, number)[:1] if self._held_batches(number) else ():
                asked = regions_of(decode_picks(payload, image.image_id), spec, image).indices
                labels, is_known = self.answered(image.image_id, asked)
                is_held = is_known & ~self.is_committed(image.image_id, asked)
                if is_held.any():
                    parts.append((asked[is_held], labels[is_held]))
            if parts:
                yield number, parts

    def _shard(self, index: int, rank: int, kind: str) -> Path:
        return self.path / f"shard-{index:03d}-{rank:05d}-{kind}.dat"

    def _open_shard(self, spec: Round, rank: int, kind: str) -> RecordFile:
        path = self._shard(spec.index, rank, kind)
        if not path.exists():
            raise ShardMissingError(f"{path}: rank {rank} has not written its part of round {spec.index}; wait for it")
        file = RecordFile(path)
        if file.header != file_header(self, kind, spec if kind == "picks" else None):
            raise RoundConflictError(
                f"{path}: written for another round or store; begin_round with the same values on all ranks"
            )
        return file

    def _clean(self) -> None:
        """Remove what a crash left behind, and keep the answers in it."""
        self._refresh()
        self._commit_answers(asked_answers(self))
        tidy(self)


def _lock(folder: Path) -> FileLock:
    """Make the folder where it is missing and take the writer's lock."""
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK_FILE)
    except LockedError as error:
        raise StoreLockedError(str(error)) from error
    except WriteError as error:
        raise StoreWriteError(str(error)) from error


def _payloads(files: Sequence[RecordFile], number: int) -> list[bytes]:
    """The records of an image in several files."""
    return [payload for file in files if (payload := file.read(number)) is not None]
