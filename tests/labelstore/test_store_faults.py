"""Crashes at every point, full disks, and the order in which files are written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ledger
from ledger import IMAGES, A, Stop, append, begin, check_labels, commit_first, contents, make, records
from ripu.io.writing import AtomicFile
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, TargetImage, square_regions
from ripu.labelstore.errors import StoreWriteError


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
