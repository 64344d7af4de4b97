"""Answers that a crash left behind: they are known, and held back until a round asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import ledger
from ledger import IMAGES, A, Stop, begin, check_labels, contents, make, records
from ripu.labelstore import (
    Carried,
    CorruptStoreError,
    ImageAnswers,
    ImagePicks,
    LabelStore,
    LabelStoreError,
    mask_round,
)


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
