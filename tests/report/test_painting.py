"""Painted queries: those of the label store, in the colours of their rounds, large enough to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ripu.inference import palette
from ripu.labelstore import BEFORE, LabelStore
from ripu.report.painting import class_table, dimmed, enlarged, paint, queried_map, round_table


def test_the_map_agrees_with_the_store(run: Path) -> None:
    store = LabelStore.open(run / "labels")
    for image in store.images:
        revealed, label = store.revealed_round(image.image_id), store.revealed_label(image.image_id)
        queried = queried_map(store, image.image_id, (image.height, image.width))
        np.testing.assert_array_equal(queried[..., 0], np.where(revealed == 255, 0, revealed + 1))
        np.testing.assert_array_equal(queried[..., 1], np.where(revealed == 255, 0, label))


def test_a_smaller_map_loses_no_query(run: Path) -> None:
    store = LabelStore.open(run / "labels")
    image = store.images[0]
    small = queried_map(store, image.image_id, (image.height // 3, image.width // 3))
    rows, columns = np.nonzero(store.asked_mask(image.image_id))
    assert (small[rows * (image.height // 3) // image.height, columns * (image.width // 3) // image.width, 0] > 0).all()


def test_pixels_get_the_colour_of_their_round() -> None:
    image = np.full((8, 9, 3), 100, dtype=np.uint8)
    rounds = np.full((8, 9), 255, dtype=np.uint8)
    rounds[:2], rounds[2:4], rounds[4:6] = 0, 9, BEFORE
    painted = paint(dimmed(image), rounds, rounds != 255, round_table())
    assert (painted[:2] == palette.round_color(0)).all()
    assert (painted[2:4] == palette.round_color(9)).all()
    assert (painted[4:6] == palette.GRID).all()
    assert (painted[6:] == 50).all()
    assert class_table([(1, 2, 3)])[[0, 1, 255]].tolist() == [[1, 2, 3], [0, 0, 0], [0, 0, 0]]


def test_lone_pixels_are_enlarged_and_dense_ones_are_not() -> None:
    values = np.zeros((40, 600), dtype=np.uint8)
    is_queried = np.zeros((40, 600), dtype=np.bool_)
    values[0, 0], values[20, 300] = 1, 2
    is_queried[0, 0] = is_queried[20, 300] = True
    grown, is_grown = enlarged(values, is_queried)
    assert is_grown.sum() == 3 * 3 + 5 * 5  # a reach of 600 // 250, clipped at the corner
    assert (grown[18:23, 298:303] == 2).all()
    is_queried[:10] = True
    same, is_same = enlarged(values, is_queried)
    assert same is values
    assert is_same is is_queried
    nothing = enlarged(values, np.zeros_like(is_queried))
    assert not nothing[1].any()
