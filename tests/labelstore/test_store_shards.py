"""The parts of a round that several ranks write, and their merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ledger
from ledger import BUDGET, IMAGES, begin, check_labels, contents, make, records
from ripu.labelstore import (
    ImagePicks,
    LabelStore,
    RoundConflictError,
)
from ripu.labelstore.errors import (
    RevealedTwiceError,
    ShardMissingError,
)

A, B, C, EMPTY = (image.image_id for image in IMAGES)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_bytes_do_not_depend_on_the_shards(tmp_path: Path, world_size: int) -> None:
    make(tmp_path / "one", 2).close()
    store = make(tmp_path / "many")
    for index in range(2):
        spec = begin(store, index)
        for rank in reversed(range(world_size)):  # and not on the order inside a shard
            LabelStore.open(tmp_path / "many").write_shard(
                spec, rank, records(index, list(range(rank, 3, world_size))[::-1])
            )
        assert store.commit_round(spec, world_size)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_an_image_in_two_shards(folder: Path) -> None:
    store = make(folder)
    spec = begin(store, 0)
    store.write_shard(spec, 0, records(0, [0, 1]))
    store.write_shard(spec, 1, records(0, [1, 2]))  # a sampler that pads: the same record twice is one record
    assert store.commit_round(spec, 2)
    check_labels(store, 1)
    spec = begin(store, 1)
    store.write_shard(spec, 0, records(1))
    store.write_shard(spec, 1, [ImagePicks(A, np.array([[0, 0]]))])
    with pytest.raises((RoundConflictError, RevealedTwiceError)):
        store.commit_round(spec, 2)
    assert store.num_rounds == 1


def test_a_missing_or_foreign_shard(folder: Path) -> None:
    store = make(folder, 1)
    spec = begin(store, 1)
    store.write_shard(spec, 0, records(1))
    with pytest.raises(ShardMissingError, match="rank 1 has not written"):
        store.commit_round(spec, 2)
    other = store.begin_round(1, 201, BUDGET, reveal_radius=1, suppress_radius=2)
    store.write_shard(other, 1, [])
    with pytest.raises(RoundConflictError, match="written for another round"):
        store.commit_round(spec, 2)
    with pytest.raises(RoundConflictError, match="two records of the same kind"):
        store.write_shard(spec, 1, [*records(1, [0]), *records(1, [0])])
    check_labels(store, 1)


def test_opening_a_writer_saves_the_answers_of_stale_shards(folder: Path) -> None:
    store = make(folder, 1)
    before = contents(folder)
    store.write_shard(begin(store, 1), 0, records(1))
    store.close()
    (folder / ".tmp-picks-0").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    with LabelStore.open(folder, write=True) as again:
        assert again.num_rounds == 1
        assert again.answered(A, ledger.asked(0, 1))[1].all()
        names = set(contents(folder))
        assert {name[:5] for name in names - set(before)} == {
            "held-",
            "notes",
        }  # the saved answers and what is not ours
        assert "notes.txt" in names
        again.add_round(begin(again, 1), records(1, answered=False))
        check_labels(again, 2)
        assert again.verify() == []
