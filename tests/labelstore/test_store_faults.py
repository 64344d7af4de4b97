"""Crashes at every point, full disks, flipped bytes, truncated and missing files."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ledger
from ledger import IMAGES, begin, check_labels, contents, make, records
from ripu.io.writing import AtomicFile
from ripu.labelstore import (
    Carried,
    CorruptStoreError,
    ImageAnswers,
    ImagePicks,
    LabelStore,
    LabelStoreError,
    TargetImage,
    mask_round,
    square_regions,
)
from ripu.labelstore.errors import StoreLockedError, StoreWriteError
from ripu.labelstore.files import RecordFile

A = IMAGES[0].image_id


class Stop(BaseException):
    """Like a KeyboardInterrupt: not an error that anybody handles."""


class Points:
    """Counts the operations that touch the disk and interrupts the n-th one, before or half-way through.

    Args:
        monkeypatch: Undone by the caller.
        stop_at: Number of the operation, None to count only.
        interrupt: Called at that operation; does not return.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int | None, interrupt: Callable[[], None]) -> None:
        self.count = 0
        self._stop_at = stop_at
        self._interrupt = interrupt
        monkeypatch.setattr(os, "replace", self._guarded(os.replace))
        monkeypatch.setattr(os, "fsync", self._guarded(os.fsync))
        monkeypatch.setattr(Path, "unlink", self._guarded(Path.unlink))
        write = AtomicFile.write

        def torn_write(file: AtomicFile, data: bytes) -> int:
            if self._is_reached():
                write(file, data[: len(data) // 2])
                assert file._handle is not None
                file._handle.flush()
                with file._explained():
                    self._interrupt()
            return write(file, data)

        monkeypatch.setattr(AtomicFile, "write", torn_write)

    def _is_reached(self) -> bool:
        self.count += 1
        return self.count == self._stop_at + 1 if self._stop_at is not None else False

    def _guarded(self, operation: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            if self._is_reached():
                self._interrupt()
            return operation(*args, **kwargs)

        return call


def commit(store: LabelStore) -> None:
    store.add_round(begin(store, 1), records(1))


def append(store: LabelStore) -> None:
    indices = np.arange(24 * 31)
    known = store.is_committed(A, indices)
    store.append_answers([ImageAnswers(A, indices[~known], ledger.truth(0)[~known])])


def undo(store: LabelStore) -> None:
    store.undo_round(0)


def num_points(tmp_path: Path, work: Callable[[LabelStore], None]) -> int:
    with pytest.MonkeyPatch.context() as patch, make(tmp_path / "count", 1) as store:
        points = Points(patch, None, lambda: None)
        work(store)
        return points.count


def check_old_or_new(folder: Path, old: Path, new: Path, work: Callable[[LabelStore], None]) -> str:
    """The reader sees the one state or the other; a writer cleans up, can repeat the work and ends in the new one."""
    with LabelStore.open(old) as before, LabelStore.open(new) as after, LabelStore.open(folder) as store:
        assert store.verify() == []
        state = "old" if store.log == before.log else "new"
        assert store.log == (before if state == "old" else after).log
        for one in (before, after):
            if store.num_rounds == one.num_rounds and work is commit:
                check_labels(store, one.num_rounds)
        asked_before = before.answered(A, ledger.asked(0, 0))
    with LabelStore.open(folder, write=True) as store:
        assert store.verify() == []
        files = {name for name in contents(folder) if not name.startswith("held-")}
        assert files == {"store.json", "manifest.json", *store.log.files}
        labels, known = store.answered(A, ledger.asked(0, 0))
        assert known.all()
        np.testing.assert_array_equal(labels, asked_before[0])
        if work is not undo or store.num_rounds:
            work(store)
        assert store.verify() == []
        with LabelStore.open(new) as after:
            assert store.rounds == after.rounds
            for image in IMAGES:
                np.testing.assert_array_equal(
                    store.revealed_label(image.image_id), after.revealed_label(image.image_id)
                )
                for found, expected in zip(store.answers(image.image_id), after.answers(image.image_id), strict=True):
                    np.testing.assert_array_equal(found, expected)
    assert contents(folder) == contents(new)
    return state


@pytest.mark.parametrize("work", [commit, append, undo])
@pytest.mark.parametrize("how", ["exit", "interrupt", "error"])
def test_a_crash_at_any_point_leaves_the_old_or_the_new_state(tmp_path: Path, work: Callable, how: str) -> None:
    make(tmp_path / "old", 1).close()
    with make(tmp_path / "new", 1) as store:
        work(store)
    count = num_points(tmp_path, work)
    assert count >= 4
    states = []
    for point in range(count):
        folder = tmp_path / f"run{point}"
        shutil.copytree(tmp_path / "old", folder)

        def crash(folder: Path = folder, point: int = point) -> int:
            def interrupt() -> None:
                if how == "exit":
                    os._exit(7)
                raise Stop if how == "interrupt" else OSError(errno.EIO, "the cable is loose")

            with LabelStore.open(folder, write=True) as store, pytest.MonkeyPatch.context() as patch:
                Points(patch, point, interrupt)
                try:
                    work(store)
                except (Stop, StoreWriteError):
                    return 7
                return 0

        status = ledger.run_and_die(crash) if how == "exit" else crash()
        state = check_old_or_new(folder, tmp_path / "old", tmp_path / "new", work)
        if status == 7:
            states.append(state)
        else:  # a temporary file that cannot be removed is no failure
            assert how == "error"
            assert state == "new"
    assert states == sorted(states, key=["old", "new"].index)  # one point of no return
    assert states[0] == "old"
    assert states[-1] == "new"


def test_a_crash_while_creating_leaves_nothing_or_a_store(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        points = Points(patch, None, lambda: None)
        make(tmp_path / "count").close()
    for point in range(points.count):
        folder = tmp_path / f"run{point}"

        def crash(folder: Path = folder, point: int = point) -> int:
            Points(pytest.MonkeyPatch(), point, lambda: os._exit(7))
            make(folder)
            return 0

        assert ledger.run_and_die(crash) == 7
        with LabelStore.create(folder, IMAGES, ledger.CLASSES, {"seed": 3}, planned_picks=18, exist_ok=True) as store:
            commit_first(store)
            assert store.verify() == []


def commit_first(store: LabelStore) -> None:
    store.add_round(begin(store, 0), records(0))
    check_labels(store, 1)


def test_answers_of_a_crashed_round_are_not_asked_again(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()

    def crash() -> int:
        store = LabelStore.open(folder, write=True)
        store.write_shard(begin(store, 1), 0, records(1))
        os._exit(7)

    assert ledger.run_and_die(crash) == 7
    with LabelStore.open(folder, write=True) as store:
        for number in range(3):
            labels, known = store.answered(IMAGES[number].image_id, ledger.asked(number, 1))
            assert known.all()
            np.testing.assert_array_equal(labels, ledger.truth(number)[ledger.asked(number, 1)])


def crash_before_the_manifest(folder: Path) -> None:
    """Die in round 1's commit when all but the manifest is written."""

    def crash() -> int:
        replace = os.replace

        def stop(source: Path, target: Path) -> None:
            if Path(target).name == "manifest.json":
                os._exit(7)
            replace(source, target)

        store = LabelStore.open(folder, write=True)
        pytest.MonkeyPatch().setattr(os, "replace", stop)
        store.add_round(begin(store, 1), records(1))
        return 0

    assert ledger.run_and_die(crash) == 7


def test_held_answers_are_known_but_reveal_nothing_until_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()
    crash_before_the_manifest(folder)
    with LabelStore.open(folder, write=True) as store:
        manifest = (folder / "manifest.json").read_bytes()
        held = [name for name in contents(folder) if name.startswith("held-")]
        assert held
        assert store.verify() == []
        check_labels(store, 1)
        indices = ledger.asked(0, 1)
        labels, known = store.answered(A, indices)
        assert known.all()
        assert not store.is_committed(A, indices).any()
        np.testing.assert_array_equal(labels, ledger.truth(0)[indices])
        assert set(indices) <= set(store.answers(A)[0].tolist())
        with pytest.raises(LabelStoreError, match="was answered"):
            store.append_answers([ImageAnswers(A, indices[:1], (labels[:1] + 1) % 3)])
        # Another round than the one that crashed: what it shares is known, the rest stays held.
        assert store.add_round(begin(store, 1), records(1, [0], answered=False))
        np.testing.assert_array_equal(store.revealed_label(A), ledger.expected_label(0, 2))
        assert [name for name in contents(folder) if name.startswith("held-")] == held
        assert store.answered(IMAGES[1].image_id, ledger.asked(1, 1))[1].all()
        assert (folder / "manifest.json").read_bytes() != manifest
    with LabelStore.open(folder, write=True) as store:
        assert store.verify() == []
        rest = [
            ImageAnswers(IMAGES[n].image_id, ledger.asked(n, 1), ledger.truth(n)[ledger.asked(n, 1)]) for n in (1, 2)
        ]
        assert store.append_answers(rest) == sum(len(one.indices) for one in rest)
        assert not [name for name in contents(folder) if name.startswith("held-")]


def test_answers_that_a_live_round_waits_for_are_committed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    with make(folder) as store:
        store.add_round(begin(store, 0), records(0, answered=False))
    given = [ImageAnswers(A, ledger.asked(0, 0), ledger.truth(0)[ledger.asked(0, 0)])]

    def crash() -> int:
        store = LabelStore.open(folder, write=True)
        patch = pytest.MonkeyPatch()
        patch.setattr("ripu.labelstore.store.write_log", lambda *arguments: os._exit(7))
        store.append_answers(given)
        return 0

    assert ledger.run_and_die(crash) == 7
    with LabelStore.open(folder, write=True) as store:
        np.testing.assert_array_equal(store.revealed_label(A), ledger.expected_label(0, 1))
        assert set(contents(folder)) == {"store.json", "manifest.json", *store.log.files}


def test_damage_in_held_answers_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()
    crash_before_the_manifest(folder)
    LabelStore.open(folder, write=True).close()
    path = next(folder.glob("held-*.dat"))
    data = path.read_bytes()
    for offset in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x20]) + data[offset + 1 :])
        assert any(path.name in problem for problem in LabelStore.open(folder).verify())
        check_labels(LabelStore.open(folder), 1)  # what is committed does not depend on it
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptStoreError, match=path.name):
        LabelStore.open(folder, write=True)
    path.unlink()
    with LabelStore.open(folder, write=True) as store:
        assert not store.answered(A, ledger.asked(0, 1))[1].all()


def carry(store: LabelStore, pixels: list[int], label: int) -> None:
    """Begin with a mask that knows some pixels of the first image."""
    nothing, none = np.zeros((0, 2), int), np.zeros(0, int)
    some = Carried(
        (ImagePicks(A, np.array([[0, pixels[0]]]), regions=ledger.regions([pixels])),),
        ImageAnswers(A, np.array(pixels), np.full(len(pixels), label)),
    )
    rest = [Carried((ImagePicks(one.image_id, nothing),), ImageAnswers(one.image_id, none, none)) for one in IMAGES[1:]]
    store.carry([mask_round(0, {"ids": "train", "sha256": "0"})], [some, *rest])


def crash_while_carrying(folder: Path, pixels: list[int], label: int) -> bytes:
    """Die when all but the manifest is written; the file of answers that is held from then on."""
    with make(folder) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ripu.labelstore.store.write_log", stop)
        with pytest.raises(Stop):
            carry(store, pixels, label)
    LabelStore.open(folder, write=True).close()
    (held,) = folder.glob("held-*.dat")
    return held.read_bytes()


def stop(*arguments: object) -> None:
    raise Stop


def held_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("held-*.dat")]


def test_labels_that_are_carried_again_after_a_crash_leave_no_trace_of_it(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    crash_while_carrying(tmp_path / "labels", [0, 1], 0)
    with LabelStore.open(tmp_path / "labels", write=True) as store, make(tmp_path / "whole") as whole:
        carry(store, [0, 1], 0)
        carry(whole, [0, 1], 0)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")
    assert not recwarn.list


def test_labels_that_were_corrected_after_a_crash_stand_and_what_was_held_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    held = crash_while_carrying(folder, [0, 1, 2], 0)
    with LabelStore.open(folder, write=True) as store:
        with pytest.warns(
            UserWarning, match=r"held-\w+\.dat: left in place; it contradicts known answers.* answered 1 and now 0"
        ):
            carry(store, [0, 1], 1)
        assert held_bytes(folder) == [held]
        assert store.revealed_label(A).reshape(-1)[:3].tolist() == [1, 1, 255]
        assert store.answered(A, [0, 1, 2])[0].tolist() == [1, 1, 0]
        # A round that asks for what is held beside the contradiction.
        records = [ImagePicks(A, np.array([[0, 2]])), ImageAnswers(A, np.array([2]), np.array([0]))]
        with pytest.warns(UserWarning, match="left in place"):
            store.add_round(store.begin_round(0, 1, 1), records)
        with pytest.warns(UserWarning, match="left in place"):
            store.append_answers([ImageAnswers(A, np.array([3]), np.array([2]))])
    with pytest.warns(UserWarning, match="left in place"):
        store = LabelStore.open(folder, write=True)
    with store:
        assert store.revealed_label(A).reshape(-1)[:3].tolist() == [1, 1, 0]
        assert held_bytes(folder) == [held]
        assert any("contradicts" in problem for problem in store.verify())
        next(folder.glob("held-*.dat")).unlink()
        store.look_again()
        assert store.verify() == []


def test_a_round_that_nobody_answered_yet_takes_what_is_held_beside_a_contradiction(tmp_path: Path) -> None:
    crash_while_carrying(tmp_path / "labels", [0, 1, 2], 0)
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        with pytest.warns(UserWarning, match="left in place"):
            carry(store, [0, 1], 1)
        with pytest.warns(UserWarning, match="left in place"):
            store.add_round(store.begin_round(0, 1, 1), [ImagePicks(A, np.array([[0, 2]]))])
        assert store.revealed_label(A).reshape(-1)[:3].tolist() == [1, 1, 0]


def test_answers_beside_those_that_are_carried_are_kept_and_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    held = crash_while_carrying(folder, [0, 1, 2], 0)
    with LabelStore.open(folder, write=True) as store:
        with pytest.warns(
            UserWarning, match=r"held-\w+\.dat: kept; it has answers from before the labels were carried over"
        ):
            carry(store, [0, 1], 0)
        assert held_bytes(folder) == [held]
        assert store.answered(A, [0, 1, 2])[1].all()
        assert store.verify() == []


def test_two_answers_that_a_round_waits_for_and_that_contradict_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    with make(folder) as store:
        store.add_round(begin(store, 0), records(0, answered=False))
        with pytest.MonkeyPatch.context() as patch:  # neither gets into the manifest
            patch.setattr("ripu.labelstore.store.write_log", stop)
            for label in (0, 1):
                with pytest.raises(Stop):
                    store.append_answers([ImageAnswers(A, ledger.asked(0, 0)[:1], np.array([label]))])
        first, second = sorted(path.name for path in folder.glob("answers-*.dat"))
    with pytest.warns(UserWarning, match=f"{second}: left in place"):
        store = LabelStore.open(folder, write=True)
    with store:
        assert set(store.log.files) > {first}
        assert second not in store.log.files
        assert (folder / second).exists()
        assert store.answered(A, ledger.asked(0, 0)[:1])[1].all()


def test_a_manifest_that_another_process_wrote_is_not_written_over(tmp_path: Path) -> None:
    """Where locks do not work (some network file systems), the manifest itself tells."""
    from ripu.labelstore.log import Log, write_log

    folder = tmp_path / "labels"
    with make(folder, 2) as store:
        write_log(folder, store.header.sha256, Log(store.log.events[:2]))
        before = contents(folder)
        with pytest.raises(StoreLockedError, match=r"manifest\.json: was changed by another process"):
            store.undo_round(0)
        assert contents(folder) == before


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_writing_continues_after_one_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused_with(code))
    folder = tmp_path / "labels"
    store = make(folder, 1)
    assert [message.partition("; ")[0] for message in caplog.messages] == [
        f"{folder / 'lock'}: this file system has no locks ({os.strerror(code)}), so other writers are not kept out"
    ]
    with pytest.raises(StoreLockedError, match="this process"):
        LabelStore.open(folder, write=True)

    def other_process() -> None:
        with LabelStore.open(folder, write=True) as other:
            other.undo_round(0)

    assert ledger.run_and_die(other_process) == 0
    with pytest.raises(StoreLockedError, match=r"manifest\.json: was changed by another process"):
        append(store)
    store.close()
    with LabelStore.open(folder, write=True) as store:
        commit_first(store)
    assert len(caplog.messages) == 1


def test_without_locks_a_holder_that_may_still_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused_with(errno.ENOLCK))
    (tmp_path / "lock").write_text("pid 12 on elsewhere\n")
    make(tmp_path).close()
    assert "the file names pid 12 on elsewhere" in caplog.text


@pytest.mark.parametrize("code", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_another_process_holds_is_an_error(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path).close()
    (tmp_path / "lock").write_text("pid 12 on elsewhere\n")
    monkeypatch.setattr(fcntl, "flock", refused_with(code))
    with pytest.raises(StoreLockedError, match="locked by pid 12 on elsewhere"):
        LabelStore.open(tmp_path, write=True)


def refused_with(code: int) -> Callable[..., None]:
    def flock(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return flock


def test_the_memory_of_a_commit_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    size, radius = 120, 5

    def peak(count: int) -> int:
        images = [TargetImage(str(number), size, size) for number in range(count)]
        rows, columns = np.meshgrid(np.arange(5, size, 11), np.arange(5, size, 11), indexing="ij")
        picks = np.stack([rows.ravel(), columns.ravel()], axis=1)
        pixels = square_regions(picks, radius, size, size).indices
        labels = np.zeros(len(pixels), np.uint8)
        with LabelStore.create(tmp_path / str(count), images, ["road"]) as store:
            spec = store.begin_round(0, 1, len(picks), reveal_radius=radius, suppress_radius=2 * radius)
            both = [(ImagePicks(one.image_id, picks), ImageAnswers(one.image_id, pixels, labels)) for one in images]
            store.write_shard(spec, 0, [record for records in both for record in records])
            tracemalloc.start()
            try:
                store.commit_round(spec)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(1)
    assert peak(40) < 2 * peak(2)


def test_a_closed_store_has_the_same_bytes_wherever_it_was_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, 2).close()
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert files[0]["lock"] == b""


def no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: AtomicFile, data: bytes) -> int:
        with file._explained():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AtomicFile, "write", full)


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "labels", 1)
    before = contents(store.path)
    with monkeypatch.context() as patch:
        no_space(patch)
        for work in (commit, append, undo):
            with pytest.raises(StoreWriteError, match=r"is full; free some space; what was committed before is intact"):
                work(store)
            assert contents(store.path) == before
            check_labels(store, 1)
    commit(store)
    check_labels(store, 2)


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()
    before = contents(folder)

    def work() -> int:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = LabelStore.open(folder, write=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        try:
            commit(store)
        except StoreWriteError as error:
            return 3 if "full" in str(error) else 4
        return 5

    assert ledger.run_and_die(work) == 3
    assert contents(folder) == before


def test_errors_of_the_data_are_not_taken_for_errors_of_the_disk(tmp_path: Path) -> None:
    store = make(tmp_path / "labels", 1)
    before = contents(store.path)

    def broken() -> Iterator:
        yield from records(1, [0])
        raise FileNotFoundError("image.png")

    with pytest.raises(FileNotFoundError, match=r"image\.png"):
        store.add_round(begin(store, 1), broken())
    assert contents(store.path) == before


@pytest.mark.parametrize("prefix", ["round-000", "round-001", "answers", "manifest", "store"])
def test_every_flipped_byte_is_found(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "labels"
    make(folder, 2).close()
    path = next(path for path in sorted(folder.iterdir()) if path.name.startswith(prefix))
    data = path.read_bytes()
    read_failures = 0
    offsets = range(0, len(data), max(1, len(data) // 150))
    for offset in offsets:
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x20]) + data[offset + 1 :])
        problems = LabelStore.open(folder).verify()
        assert problems
        assert any(path.name in problem for problem in problems)
        reader = LabelStore.open(folder)
        try:  # what is read is right, or it is an error
            check_labels(reader, 2)
        except CorruptStoreError as error:
            read_failures += path.name in str(error)
    # Every byte of these is read for one image or another: the front, a record, the index or the footer.
    assert read_failures == len(offsets)
    path.write_bytes(data)
    assert LabelStore.open(folder).verify() == []


@pytest.mark.parametrize("prefix", ["round-000", "answers", "manifest", "store"])
def test_truncated_and_missing_files(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "labels"
    make(folder, 2).close()
    path = next(path for path in sorted(folder.iterdir()) if path.name.startswith(prefix))
    data = path.read_bytes()
    for size in (0, 1, 30, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptStoreError, match=path.name):
            check_labels(LabelStore.open(folder), 2)
        assert any(path.name in problem for problem in LabelStore.open(folder).verify())
    path.write_bytes(data + b"\n")
    assert LabelStore.open(folder).verify()
    path.unlink()
    with pytest.raises(LabelStoreError, match=f"{path.name}.*missing"):
        check_labels(LabelStore.open(folder), 2)


def test_damage_in_one_image_leaves_the_others_readable(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    make(folder, 1).close()
    store = LabelStore.open(folder)
    name = store.log.rounds[0].file.name
    row = RecordFile(folder / name)._rows[0]
    data = bytearray((folder / name).read_bytes())
    data[row["offset"]] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CorruptStoreError, match=f"{name}: the record of image number 0"):
        store.revealed_label(A)
    np.testing.assert_array_equal(store.revealed_label(IMAGES[1].image_id), ledger.expected_label(1, 1))
    problems = store.verify()
    assert sum("image number 0" in problem for problem in problems) == 1


def test_verify_finds_what_checksums_cannot(tmp_path: Path) -> None:
    from ripu.labelstore.log import AnswersEvent, Log, UndoEvent, write_log

    folder = tmp_path / "labels"
    make(folder, 2).close()
    store = LabelStore.open(folder)
    events = store.log.events
    first, second = (event for event in events if not isinstance(event, (AnswersEvent, UndoEvent)))

    def problems(*log: object) -> str:
        write_log(folder, store.header.sha256, Log(log))  # type: ignore[arg-type]
        return "\n".join(LabelStore.open(folder).verify())

    assert "is round 1 where round 0 is due" in problems(second, first)
    assert "step 100 does not come after step 200" in problems(second, first)
    assert "undoes round 0, which is not the last one" in problems(*events, UndoEvent(0))
    assert "undoes round 4" in problems(UndoEvent(4))
    assert "asked about again" in problems(first, first)
    assert "answered in two batches" in problems(*events, *(e for e in events if isinstance(e, AnswersEvent)))
    answers = next(event for event in events if isinstance(event, AnswersEvent))
    assert "its header belongs to another store or round" in problems(AnswersEvent(first.file), answers)
    assert problems(*events) == ""


def test_files_are_synced_before_they_are_renamed_and_the_manifest_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "labels", 1)
    calls: list[str] = []
    replace = os.replace

    def spy_sync(fd: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        calls.append("sync folder" if name == "labels" else "sync file")

    def spy_replace(source: Path, target: Path) -> None:
        calls.append(Path(target).name.split("-")[0])
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(os, "replace", spy_replace)
    commit(store)
    names = ["shard", "shard", "answers", "round", "manifest.json"]
    assert calls == [call for name in names for call in ("sync file", name, "sync folder")]
