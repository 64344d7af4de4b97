"""Flipped bytes, truncated and missing files, and logs that cannot be: each is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ledger
from ledger import IMAGES, A, check_labels, make
from ripu.labelstore import CorruptStoreError, LabelStore, LabelStoreError
from ripu.labelstore.files import RecordFile


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
    with pytest.raises(LabelStoreError, match=f"{path.name}.*missing") as caught:
        check_labels(LabelStore.open(folder), 2)
    # Undoing a round reads the two documents, so it helps with none of them
    assert ("undo the round" in str(caught.value)) == (path.suffix != ".json")


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
