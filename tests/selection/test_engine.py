"""Rounds: exact budgets, who is asked what, what is revealed, and what a failure leaves behind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import rounds
from reference import picking
from ripu.acquisition import RandomScore, ripu_maps
from ripu.labelstore import LabelStore, TargetImage
from ripu.labelstore.predictions import PredictionFiles
from ripu.selection.engine import SelectionEngine
from ripu.selection.oracles import GroundTruthOracle
from ripu.selection.ranks import SelectionError
from ripu.selection.round_report import report_round
from rounds import IDS, LABEL, NUM_CLASSES, NUM_IMAGES, make_engine, make_store, run_round, store_bytes, truth

PIXELS: dict[str, Any] = {"pixel": True, "radius": 2, "suppress_radius": 2, "budget": 15}


class Counting:
    """Answers with the truth and counts how often every pixel was asked for."""

    def __init__(self) -> None:
        self.asked = {image_id: np.zeros(LABEL, dtype=int) for image_id in IDS}

    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        np.add.at(self.asked[image_id], (rows, columns), 1)
        return truth(image_id)[rows, columns]


class Nobody:
    def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        return None


def budget_of(engine: SelectionEngine) -> int:
    return engine.scorer.query.picks_per_round(LABEL, engine.scorer.train_size)


class People(Nobody):
    is_person = True


@pytest.mark.parametrize("query", [{}, PIXELS], ids=["regions", "pixels"])
def test_what_is_revealed_is_the_truth_of_what_was_asked_and_nothing_else(
    query: dict[str, Any], tmp_path: Path
) -> None:
    engine = make_engine(**query)
    budget, radius, suppress = budget_of(engine), engine.scorer.query.reveal_radius, engine.scorer.query.suppress_radius
    before = {image_id: np.zeros(LABEL, dtype=bool) for image_id in IDS}
    every: dict[str, list[list[int]]] = {image_id: [] for image_id in IDS}
    with make_store(tmp_path) as store:
        for index in range(3):
            tally = run_round(engine, store, index)
            assert (tally.images, tally.picks, tally.short) == (NUM_IMAGES, NUM_IMAGES * budget, {})
            for image_id in IDS:
                picks = store.picks(image_id, index).picks.tolist()
                assert len(picks) == budget
                every[image_id] += picks
                squares = np.zeros(LABEL, dtype=bool)
                for row, column in every[image_id]:
                    top, left = max(0, row - radius), max(0, column - radius)
                    squares[top : row + radius + 1, left : column + radius + 1] = True
                np.testing.assert_array_equal(store.asked_mask(image_id), squares)
                np.testing.assert_array_equal(store.revealed_label(image_id), np.where(squares, truth(image_id), 255))
                assert (squares | ~before[image_id]).all()  # it only grows
                before[image_id] = squares
                for place, (row, column) in enumerate(every[image_id]):
                    for other_row, other_column in every[image_id][:place]:
                        assert max(abs(row - other_row), abs(column - other_column)) > suppress


def test_picks_are_those_of_the_literal_loop_over_the_score(tmp_path: Path) -> None:
    engine = make_engine()
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        run_round(engine, store, 1)
        logits = rounds.network()(rounds.images())
        for number, image_id in enumerate(IDS):
            maps = ripu_maps(logits[number : number + 1], 1, LABEL, False)
            assert maps.tie_break is not None
            first = store.picks(image_id, 0).picks.tolist()
            free = np.ones(LABEL, dtype=bool)
            score, tie = maps.score[0].numpy(), maps.tie_break[0].numpy()
            assert first == picking.greedy_picks(score, budget_of(engine), 2, free, tie)
            for row, column in first:
                free[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = False
            assert store.picks(image_id, 1).picks.tolist() == picking.greedy_picks(
                score, budget_of(engine), 2, free, tie
            )


@settings(max_examples=15, deadline=None)
@given(budget=st.floats(0.01, 1.0), radius=st.integers(0, 3), num_rounds=st.integers(1, 3))
def test_budgets_are_exact_or_what_is_left_is_less(
    tmp_path_factory: pytest.TempPathFactory, budget: float, radius: int, num_rounds: int
) -> None:
    changes = {"budget": budget, "radius": radius, "suppress_radius": 2 * radius, "num_rounds": num_rounds}
    engine = make_engine(**changes)
    with make_store(tmp_path_factory.mktemp("store")) as store:
        for index in range(num_rounds):
            tally = run_round(engine, store, index)
            for image_id in IDS:
                count = len(store.picks(image_id, index).picks)
                if count < budget_of(engine):
                    assert store.suppressed(image_id).all()  # nothing is left
                    assert tally.short[image_id] == count
                else:
                    assert count == budget_of(engine)
                    assert image_id not in tally.short


def test_an_image_that_runs_out_of_places_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine(radius=3, suppress_radius=6, budget=1.0, num_rounds=1)
    with make_store(tmp_path) as store, caplog.at_level(logging.WARNING):
        tally = run_round(engine, store, 0)
    assert set(tally.short) == set(IDS)
    assert "7 images had fewer places left than the budget" in caplog.text
    assert IDS[0] in caplog.text


def test_truth_does_not_steer_what_is_asked_and_void_costs(tmp_path: Path) -> None:
    class Void:
        def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.full(len(rows), 255, dtype=np.uint8)

    with make_store(tmp_path / "true") as true, make_store(tmp_path / "void") as void:
        for index in range(3):
            run_round(make_engine(), true, index)
            tally = run_round(make_engine(oracle=Void()), void, index)
        for image_id in IDS:
            for index in range(3):
                assert np.array_equal(true.picks(image_id, index).picks, void.picks(image_id, index).picks)
            assert (void.revealed_label(image_id) == 255).all()
            np.testing.assert_array_equal(void.asked_mask(image_id), true.asked_mask(image_id))
        report = report_round(void, 2, tally, 0.0)
        assert report["void_fraction"] == 1.0
        assert report["picks"] == NUM_IMAGES * budget_of(make_engine())
        assert set(report["class_pixels"].values()) == {0}


def test_answers_survive_an_undone_round_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    oracle = Counting()
    engine = make_engine(oracle=oracle)
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        first = {image_id: store.revealed_label(image_id) for image_id in IDS}
        store.undo_round(0)
        assert all((store.revealed_label(image_id) == 255).all() for image_id in IDS)
        run_round(engine, store, 0)
        for image_id in IDS:
            np.testing.assert_array_equal(store.revealed_label(image_id), first[image_id])
            np.testing.assert_array_equal(oracle.asked[image_id] > 0, store.asked_mask(image_id))
            assert oracle.asked[image_id].max() == 1


def test_a_repeated_round_changes_nothing(tmp_path: Path) -> None:
    oracle = Counting()
    engine = make_engine(oracle=oracle)
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        run_round(engine, store, 1)
        before = store_bytes(tmp_path)
        run_round(engine, store, 0)
        run_round(engine, store, 1)
    assert store_bytes(tmp_path) == before
    assert max(counts.max() for counts in oracle.asked.values()) == 1


def test_nobody_answers_the_rounds_go_on(tmp_path: Path) -> None:
    engine = make_engine(oracle=Nobody())
    with make_store(tmp_path) as store:
        for index in range(2):
            assert run_round(engine, store, index).picks == NUM_IMAGES * budget_of(engine)
        for image_id in IDS:
            assert (store.revealed_label(image_id) == 255).all()
            assert len(store.unanswered(image_id)) == store.asked_mask(image_id).sum() > 0
        assert report_round(store, 1, run_round(engine, store, 1), 0.0)["labelled_fraction"] > 0


@pytest.mark.parametrize(
    "query", [{}, {"radius": 2, "suppress_radius": 4}, PIXELS], ids=["regions", "larger regions", "pixels"]
)
def test_a_static_mask_is_not_asked_about(query: dict[str, Any], tmp_path: Path) -> None:
    def excluded(index: int) -> NDArray[np.bool_]:
        mask = np.zeros(LABEL, dtype=bool)
        mask[: 10 + index] = True
        return mask

    with make_store(tmp_path) as store:
        for index in range(3):
            run_round(make_engine(excluded=excluded, **query), store, index)
        for number, image_id in enumerate(IDS):
            asked = store.asked_mask(image_id)
            assert asked.any()
            assert not (asked & excluded(number)).any()
            assert (store.revealed_round(image_id)[excluded(number)] == 255).all()


def test_people_see_the_label_of_the_nearest_logits(tmp_path: Path) -> None:
    """Corners lie on corners, as in the up-sampling of the score."""

    def network(image: Tensor) -> Tensor:
        return rounds.network()(image)[:, :, ::2, ::3]

    predicted = network(rounds.images()).argmax(dim=1).numpy()

    def nearest(place: int, length: int, new_length: int) -> int:
        return min(range(new_length), key=lambda other: abs(place / (length - 1) - other / (new_length - 1)))

    with make_store(tmp_path / "labels") as store:
        run_round(make_engine(oracle=People()), store, 0, network=network, with_features=None)
        files = PredictionFiles(tmp_path / "annotation", store, 0)
        for number, image_id in enumerate(IDS):
            wanted = []
            for pixel in store.asked(image_id, 0).indices.tolist():
                row, column = divmod(pixel, LABEL[1])
                at = nearest(row, LABEL[0], predicted.shape[1]), nearest(column, LABEL[1], predicted.shape[2])
                wanted.append(predicted[number][at])
            assert np.concatenate(files.read(number)).tolist() == wanted


def test_a_whole_image_counts_by_the_mean_of_its_open_pixels(tmp_path: Path) -> None:
    mask = np.zeros(LABEL, dtype=bool)
    mask[:9, 4:] = True
    engine = make_engine(whole_image=True, budget_per="dataset", budget=0.7, excluded=lambda index: mask)
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        records = {image_id: store.picks(image_id, 0) for image_id in IDS}
        means = {}
        for image_id, image in zip(IDS, rounds.images(), strict=True):
            score = ripu_maps(rounds.network()(image[None]), 1, LABEL, pixel=False).score[0].double().numpy()
            means[image_id] = sum(score[i, j] for i, j in np.argwhere(~mask).tolist()) / int((~mask).sum())
            assert (store.asked_mask(image_id) == (~mask if len(records[image_id].picks) else False)).all()
        asked = {image_id for image_id in IDS if len(records[image_id].picks)}
        assert asked == set(sorted(IDS, key=lambda image_id: -means[image_id])[:2])
        for image_id in asked:
            assert records[image_id].picks.tolist() == [[0, 0]]
            assert records[image_id].scores == pytest.approx([means[image_id]], rel=1e-6)


def test_offers_of_whole_images_do_not_hold_their_pixels(tmp_path: Path) -> None:
    engine = make_engine(whole_image=True, budget_per="dataset")
    logits = rounds.network()(rounds.images())
    with make_store(tmp_path) as store:
        spec = store.begin_round(0, 10, 1)
        offers = [engine.scorer.candidates(store, spec, at, logits[at : at + 1], None) for at in range(NUM_IMAGES)]
        for index, offer in enumerate(offers):
            held = [value.nbytes for value in vars(offer).values() if isinstance(value, np.ndarray)]
            assert offer.regions is None
            assert 0 < sum(held) < 100
            assert engine.scorer.open_pixels(store, 0, index).tolist() == list(range(LABEL[0] * LABEL[1]))


def test_random_picks_depend_on_seed_round_and_image_alone(tmp_path: Path) -> None:
    def picks(name: str, seed: int, **changes: Any) -> list[list[list[int]]]:
        with make_store(tmp_path / name) as store:
            for index in range(2):
                run_round(make_engine(acquisition=RandomScore(), seed=seed), store, index, **changes)
            return [store.picks(image_id, index).picks.tolist() for image_id in IDS for index in range(2)]

    def other_network(image: Tensor) -> Tensor:
        return torch.zeros(len(image), NUM_CLASSES, 5, 5)

    first = picks("first", 5)
    assert first == picks("again", 5)
    assert first == picks("network", 5, network=other_network)
    assert first == picks("batch", 5, pool=lambda indices: rounds.pool(indices, batch_size=3))
    assert first != picks("seed", 6)
    assert len({tuple(map(tuple, one)) for one in first}) == len(first)


@pytest.mark.parametrize("where", ["network", "oracle", "loader"])
def test_a_failure_inside_a_round_commits_nothing(where: str, tmp_path: Path) -> None:
    class Broken(Counting):
        def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
            if image_id == IDS[4]:
                raise OSError("the annotator left")
            return super().answer(image_id, rows, columns)

    calls = []

    def broken_network(image: Tensor) -> Tensor:
        calls.append(len(image))
        if len(calls) == 3:
            raise FloatingPointError("not today")
        return rounds.network()(image)

    def broken_pool(indices: list[int]) -> Any:
        return rounds.pool([*indices[:3], 99])

    engine = make_engine(**({"oracle": Broken()} if where == "oracle" else {}))
    changes = {"network": {"network": broken_network}, "loader": {"pool": broken_pool}}.get(where, {})
    with make_store(tmp_path / "broken") as store, make_store(tmp_path / "whole") as whole:
        run_round(make_engine(), store, 0)
        run_round(make_engine(), whole, 0)
        with pytest.raises(SelectionError, match="round 1 at step 20 was not committed"):
            run_round(engine, store, 1, **changes)
        assert store.num_rounds == LabelStore.open(tmp_path / "broken").num_rounds == 1
        for image_id in IDS:
            np.testing.assert_array_equal(store.revealed_label(image_id), whole.revealed_label(image_id))
        run_round(make_engine(), store, 1)  # and it can be tried again
        run_round(make_engine(), whole, 1)
        for image_id in IDS:
            np.testing.assert_array_equal(store.revealed_label(image_id), whole.revealed_label(image_id))


def test_logits_that_are_not_finite_name_the_image(tmp_path: Path) -> None:
    def network(image: Tensor) -> Tensor:
        logits = rounds.network()(image)
        logits[0, 0, 0, 0] = float("nan")
        return logits

    with make_store(tmp_path) as store, pytest.raises(SelectionError, match="scene/0"):
        run_round(make_engine(), store, 0, network=network)


def test_sizes_may_differ_between_images(tmp_path: Path) -> None:
    sizes = tuple((20 + 3 * number, 44 - 2 * number) for number in range(NUM_IMAGES))

    class Zero:
        def answer(self, image_id: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.zeros(len(rows), dtype=np.uint8)

    engine = make_engine(label_sizes=sizes, oracle=Zero())
    images = [TargetImage(image_id, *size) for image_id, size in zip(IDS, sizes, strict=True)]
    with LabelStore.create(tmp_path / "labels", images, ["a"] * NUM_CLASSES) as store:
        run_round(engine, store, 0)
        for image_id, size in zip(IDS, sizes, strict=True):
            assert len(store.picks(image_id, 0).picks) == engine.scorer.query.picks_per_round(
                size, engine.scorer.train_size
            )


def test_ground_truth_answers_what_stands_in_the_file(data_root: Path) -> None:
    from ripu.datasets.cityscapes import load_cityscapes

    scenes = load_cityscapes(data_root / "cityscapes", "train")
    oracle, rows, columns = GroundTruthOracle(scenes), np.array([0, 63, 40]), np.array([0, 95, 3])
    for index, scene in enumerate(scenes.scenes):
        answer = oracle.answer(scene.image_id, rows, columns)
        np.testing.assert_array_equal(answer, scenes.read_label(index)[rows, columns])  # type: ignore[arg-type]
    assert GroundTruthOracle(scenes.without_labels()).answer(scenes.scenes[0].image_id, rows, columns) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_picks_where_the_cpu_picks(tmp_path: Path) -> None:
    device = torch.device("cuda")
    network = rounds.network()
    with make_store(tmp_path / "cpu") as cpu, make_store(tmp_path / "gpu") as gpu:
        engine = make_engine(acquisition=RandomScore())
        run_round(engine, cpu, 0)
        run_round(engine, gpu, 0, device=device, network=lambda image: network(image.cpu()).to(device))
        for image_id in IDS:
            assert np.array_equal(cpu.picks(image_id, 0).picks, gpu.picks(image_id, 0).picks)


def test_a_committed_round_that_is_taken_again_stands_and_asks_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that does not repeat its arithmetic picks otherwise; a person is not asked about that."""

    class NeverAgain:
        def answer(self, *_: Any) -> None:
            raise AssertionError("asked again")

    with make_store(tmp_path / "labels") as store:
        run_round(make_engine(), store, 0)
        first = run_round(make_engine(), store, 1)
        before = store_bytes(tmp_path / "labels")
        again = run_round(make_engine(oracle=NeverAgain()), store, 1)
        assert again == first
        other = rounds.network()
        with caplog.at_level("WARNING"):
            run_round(make_engine(oracle=NeverAgain()), store, 1, network=lambda image: other(image).flip(1).square())
        assert "round 2 is committed, but this device now computes other picks on 7 images" in caplog.text
        with pytest.raises(SelectionError, match="round 1 is committed already with other settings"):
            run_round(make_engine(suppress_radius=4), store, 1)
        assert store_bytes(tmp_path / "labels") == before
