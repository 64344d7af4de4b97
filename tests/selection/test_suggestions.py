"""Labels of the network are kept for the people who answer once it has seen a label, those of the round alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripu.labelstore import LabelReader
from ripu.labelstore.predictions import PredictionFiles
from ripu.selection.ranks import SelectionError
from rounds import IDS, Truth, make_engine, make_store, run_ranks, run_round


class People:
    is_person = True

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        return None


class Void:
    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.full(len(rows), 255, dtype=np.uint8)


NO_SOURCE: dict[str, Any] = {"source": None}


@pytest.mark.parametrize(
    ("begins_trained", "step", "changes", "known", "is_kept"),
    [
        (False, 0, {}, None, False),
        (True, 0, NO_SOURCE, None, True),
        (False, 10, {}, None, True),
        (False, 10, NO_SOURCE, None, False),
        (False, 10, NO_SOURCE, Truth(), True),
        (False, 10, NO_SOURCE, Void(), False),
    ],
    ids=["untrained", "trained before", "source", "nothing to learn from", "labels", "void alone"],
)
def test_they_are_kept_once_the_network_has_seen_a_label(
    begins_trained: bool, step: int, changes: dict[str, Any], known: Any, is_kept: bool, tmp_path: Path
) -> None:
    engine = replace(make_engine(oracle=People()), begins_trained=begins_trained)
    with make_store(tmp_path / "labels") as store:
        if known is not None:
            run_round(make_engine(oracle=known), store, 0, step=5)
        index = store.num_rounds
        run_round(engine, store, index, step=step, **changes)
        files = PredictionFiles(tmp_path / "annotation", store, index)
        assert [len(files.read(number)) > 0 for number in range(len(IDS))] == [is_kept] * len(IDS)


def test_those_of_an_undone_round_are_gone_when_it_is_asked_anew(tmp_path: Path) -> None:
    folder = tmp_path / "annotation"
    with make_store(tmp_path / "labels") as store:
        assert run_ranks(make_engine(oracle=People()), store, 0, 2)[1].picks
        assert len(list(folder.glob("predictions-000-*.dat"))) == 2
        store.undo_round(0)
        run_round(make_engine(oracle=People()), store, 0, **NO_SOURCE)
        assert not list(folder.glob("predictions-*"))


def test_ranks_fail_together_if_one_cannot_read_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_store(tmp_path / "labels") as store:
        read = LabelReader.revealed_label

        def broken(self: LabelReader, image_id: str, num_rounds: int | None = None) -> NDArray[np.uint8]:
            if self is not store:
                raise OSError("stale file handle")
            return read(self, image_id, num_rounds)

        monkeypatch.setattr(LabelReader, "revealed_label", broken)
        found = run_ranks(make_engine(oracle=People()), store, 0, 2, **NO_SOURCE)
        assert [type(one) for one in found] == [SelectionError, SelectionError]
        assert store.num_rounds == 0
