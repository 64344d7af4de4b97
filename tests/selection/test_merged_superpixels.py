"""Superpixels joined by predictions: against a literal loop, and in rounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rounds
from ripu.io.errors import ConfigError
from ripu.regions import Rectangles
from ripu.regions.merged_superpixels import describe, jensen_shannon, touching

pytest.importorskip("skimage")

from ripu.regions import MergedSuperpixels

SIZE = (12, 18)
NOTHING = np.zeros(SIZE, dtype=np.bool_)


def predictions(seed: int, height: int = 6, width: int = 9, num_classes: int = 3) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(num_classes, height, width)) * 2
    return (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


def literal(
    partition: np.ndarray, probs: np.ndarray, asked: np.ndarray, threshold: float, most: int
) -> list[frozenset[int]]:
    """Join sets of pieces one pair at a time; return the sets of more than one piece."""
    (height, width), (h, w) = partition.shape, probs.shape[1:]
    pixels: dict[int, list[tuple[int, int]]] = {}
    for row in range(height):
        for column in range(width):
            if partition[row, column] >= 0:
                pixels.setdefault(int(partition[row, column]), []).append((row, column))
    mean = {
        number: [
            math.fsum(float(probs[kind, row * h // height, column * w // width]) for row, column in places)
            / len(places)
            for kind in range(len(probs))
        ]
        for number, places in pixels.items()
    }

    def entropy(values: list[float]) -> float:
        return -sum(value * math.log(value) for value in values if value > 0)

    pairs = []
    for one in pixels:
        for other in pixels:
            near = any(
                abs(row - below) + abs(column - right) == 1
                for row, column in pixels[one]
                for below, right in pixels[other]
            )
            if one < other and near and not any(asked[place] for number in (one, other) for place in pixels[number]):
                middle = [(a + b) / 2 for a, b in zip(mean[one], mean[other], strict=True)]
                pairs.append((entropy(middle) - (entropy(mean[one]) + entropy(mean[other])) / 2, one, other))
    sets = {number: frozenset([number]) for number in pixels}
    for divergence, one, other in sorted(pairs):
        joined = sets[one] | sets[other]
        if (
            divergence <= threshold
            and sets[one] != sets[other]
            and sum(len(pixels[number]) for number in joined) <= most
        ):
            for number in joined:
                sets[number] = joined
    return sorted({one for one in sets.values() if len(one) > 1}, key=sorted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("threshold", "pieces"), [(0.0, 8), (0.02, 3), (0.1, 2), (0.6, 100)])
def test_it_is_the_literal_loop(seed: int, threshold: float, pieces: int) -> None:
    partition = Rectangles(3, 3).partition(SIZE)
    partition[:2, :2] = -1
    asked = NOTHING.copy()
    asked[4, 4] = True
    probs = predictions(seed, 5, 7)
    shape = MergedSuperpixels(9, threshold=threshold, most_pieces=pieces)
    merged = shape.merge(partition, probs, asked)
    assert merged.dtype == np.int32
    assert ((merged < 0) == (partition < 0)).all()
    found = [frozenset(np.unique(partition[merged == number]).tolist()) for number in np.unique(merged[merged >= 0])]
    expected = literal(partition, probs, asked, threshold, 9 * pieces)
    assert sorted((one for one in found if len(one) > 1), key=sorted) == expected
    assert sum(len(one) for one in found) == len(np.unique(partition[partition >= 0]))


def test_divergence_and_description() -> None:
    same = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    assert jensen_shannon(same, same).tolist() == [0.0, 0.0, 0.0]
    assert jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0] == pytest.approx(math.log(2))
    counts, means = describe(np.array([[0, 0, 2], [-1, 2, 2]], dtype=np.int32), predictions(0, 2, 3))
    assert counts.tolist() == [2, 0, 3]
    assert means.sum(1) == pytest.approx([1.0, 0.0, 1.0])


def test_one_piece_and_no_piece() -> None:
    shape = MergedSuperpixels(4)
    for partition in (np.zeros((2, 3), dtype=np.int32), np.full((2, 3), -1, dtype=np.int32)):
        assert np.array_equal(shape.merge(partition, predictions(0), np.zeros((2, 3), dtype=bool)), partition)
    assert [len(one) for one in touching(np.zeros((2, 3), dtype=np.int32))] == [0, 0]


def test_rounds_spend_whole_regions_and_never_ask_twice(tmp_path: Path) -> None:
    engine = rounds.make_engine(region=MergedSuperpixels(12, threshold=0.3, most_pieces=3))
    larger = 0
    with rounds.make_store(tmp_path) as store:
        for index in range(3):
            rounds.run_round(engine, store, index)
            for image_id in rounds.IDS:
                regions = store.picks(image_id, index).regions
                assert regions is not None
                sizes = np.diff(regions.offsets)
                larger += int((sizes > 24).sum())
                asked = store.asked_mask(image_id, index).reshape(-1)
                assert not asked[regions.indices].any()
                assert len(np.unique(regions.indices)) == len(regions.indices)
                spent = int(store.asked_mask(image_id, index + 1).sum())
                assert spent <= engine.scorer.query.pixels_until(rounds.LABEL, index)
    assert larger


def test_ranks_agree(tmp_path: Path) -> None:
    found = []
    for world_size in (1, 2):
        engine = rounds.make_engine(region=MergedSuperpixels(12, threshold=0.3))
        with rounds.make_store(tmp_path / str(world_size)) as store:
            for index in range(2):
                assert not [
                    one for one in rounds.run_ranks(engine, store, index, world_size) if isinstance(one, Exception)
                ]
        found.append(rounds.store_bytes(tmp_path / str(world_size)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"threshold": -0.1}, "threshold"), ({"threshold": 0.7}, "threshold"), ({"most_pieces": 0}, "most_pieces")],
)
def test_impossible_values_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"region\.{named}="):
        MergedSuperpixels(9, **wrong)
