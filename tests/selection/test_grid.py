"""Picks on the training grid: exactly the pixels that training sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ripu.acquisition import RipuScore
from ripu.datasets.image_files import resize_label
from ripu.selection import Query
from ripu.selection.grid import TrainingGrid
from rounds import IDS, INPUT, LABEL, images, make_engine, make_store, network, run_round, truth

PIXELS = {"pixel": True, "radius": 3, "suppress_radius": 2, "budget": 12, "grid": "training"}


def test_a_picture_too_small_for_the_grid_is_asked_about_nothing() -> None:
    engine = make_engine(**PIXELS)
    assert engine.scorer.would_ask(torch.rand(1, 5, *INPUT), None, (INPUT[0] - 1, INPUT[1])).size == 0


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_grid_is_what_resizing_reads(height: int, width: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    grid = TrainingGrid.between((height, width), size)
    label = np.random.default_rng(0).integers(0, 255, (height, width)).astype(np.uint8)
    np.testing.assert_array_equal(label[np.ix_(grid.rows, grid.columns)], resize_label(label, size))
    assert (np.diff(grid.rows) > 0).all()
    assert (np.diff(grid.columns) > 0).all()


def test_published_sizes() -> None:
    grid = TrainingGrid.between((1024, 2048), (640, 1280))
    assert (grid.rows[:5].tolist(), len(grid.rows), len(grid.columns)) == ([0, 2, 4, 5, 7], 640, 1280)
    assert grid.label_radius(64, (1024, 2048)) == 102
    query = Query(pixel=True, radius=32, suppress_radius=64, budget=40, num_rounds=5, grid="training")
    assert query.picks_per_round((1024, 2048), (640, 1280)) == 8


def test_labels_smaller_than_the_training_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"protocol\.pixel_grid=training .*data\.target_size=\[15, 22\]"):
        make_engine(**PIXELS, label_sizes=((30, 44), (10, 44)))
    with pytest.raises(ValueError, match=r"protocol\.pixel_grid=training"):
        Query(pixel=False, radius=1, suppress_radius=2, budget=0.1, num_rounds=2, grid="training")


def test_the_budget_is_what_training_sees(tmp_path: Path) -> None:
    engine = make_engine(**PIXELS)
    grid = TrainingGrid.between(LABEL, INPUT)
    with make_store(tmp_path) as store:
        for index in range(3):
            run_round(engine, store, index)
            for image_id in IDS:
                asked = store.asked_mask(image_id)
                assert asked.sum() == 4 * (index + 1)
                seen = resize_label(asked.astype(np.uint8), INPUT).astype(bool)
                assert seen.sum() == 4 * (index + 1)
                revealed = resize_label(store.revealed_label(image_id), INPUT)
                np.testing.assert_array_equal(revealed[seen], resize_label(truth(image_id), INPUT)[seen])
                rows, columns = np.nonzero(seen)
                far = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
                assert (far[~np.eye(len(rows), dtype=bool)] > 2).all()
        assert not store.verify()
        assert [spec.suppress_radius for spec in store.rounds] == [4, 4, 4]
        picks = store.picks(IDS[0], 0).picks
    logits = network()(images()[:1])
    score = RipuScore(radius=3, pixel=True)(logits, INPUT, [0]).score[0]
    best = np.unravel_index(int(score.argmax()), INPUT)
    assert picks[0].tolist() == [grid.rows[best[0]], grid.columns[best[1]]]
    assert sorted(engine.scorer.would_ask(logits, None, LABEL).tolist()) == sorted((picks @ [LABEL[1], 1]).tolist())


def test_masked_pixels_are_not_asked_on_the_grid_either(tmp_path: Path) -> None:
    mask = np.zeros(LABEL, dtype=bool)
    mask[:, 20:] = True
    with make_store(tmp_path) as store:
        run_round(make_engine(**PIXELS, excluded=lambda index: mask), store, 0)
        assert not any(store.asked_mask(image_id)[mask].any() for image_id in IDS)
        assert torch.tensor([store.asked_mask(image_id).sum() for image_id in IDS]).max() == 4
