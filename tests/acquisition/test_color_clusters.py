"""Clusters of colours and places: k-means against a literal loop, and what the picks of a first round look like."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from reference import clustering
from ripu.acquisition import ColorClusters
from ripu.acquisition.color_clusters import k_means
from ripu.selection.picks import fair_picks


@pytest.mark.parametrize("num_points", [1, 2, 7, 60])
@pytest.mark.parametrize("num_clusters", [1, 3, 9])
@pytest.mark.parametrize("key", [0, 2**64 - 1])
def test_k_means_is_the_literal_loop(num_points: int, num_clusters: int, key: int) -> None:
    points = np.random.default_rng(num_points).normal(size=(num_points, 5)).round(2) * 50
    assert k_means(points, num_clusters, key).tolist() == clustering.k_means(points.tolist(), num_clusters, key, 20)


def test_equal_points_are_one_cluster() -> None:
    assert not k_means(np.ones((5, 2)), 4, 0).any()
    assert len(np.unique(k_means(np.repeat(np.eye(3), 4, axis=0), 8, 5))) == 3


def _striped() -> np.ndarray:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[:, :70], image[:, 70:90], image[:, 90:] = (200, 30, 30), (30, 30, 200), (30, 200, 30)
    return image


def test_a_rare_colour_gets_the_same_share_of_the_picks() -> None:
    image = _striped()
    score = ColorClusters(num_clusters=3, position_weight=0.0)
    maps = score(torch.zeros(1, 4, 8, 12), (128, 192), [11], images=torch.from_numpy(image)[None])
    assert maps.group is not None
    picks = fair_picks(maps.score[0], maps.group[0], 30, 2)
    columns = picks[:, 1] // 2
    assert [int(((columns >= a) & (columns < b)).sum()) for a, b in ((0, 70), (70, 90), (90, 96))] == [10, 10, 10]


def test_places_part_one_colour() -> None:
    image = np.full((60, 90, 3), 128, dtype=np.uint8)
    assert len(np.unique(ColorClusters(6, 0.0).clusters(image, 1))) == 1
    groups = ColorClusters(6, 0.5).clusters(image, 1)
    assert np.unique(groups, return_counts=True)[1].min() > 60 * 90 / 30


def test_the_key_decides_and_large_images_are_made_small() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
    groups = ColorClusters(8).clusters(image, 3)
    assert groups.size <= 8192
    assert np.array_equal(groups, ColorClusters(8).clusters(image, 3))
    assert not np.array_equal(groups, ColorClusters(8).clusters(image, 4))


@pytest.mark.parametrize(
    ("values", "named"), [((0,), "num_clusters"), ((257,), "num_clusters"), ((4, -1.0), "position_weight")]
)
def test_bad_parameters_are_refused(values: tuple[float, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ColorClusters(*values)  # type: ignore[arg-type]


def test_k_means_holds_no_distance_by_feature() -> None:
    points = np.random.default_rng(0).standard_normal((40, 5000))
    tracemalloc.start()
    k_means(points, 20, 0)
    assert (
        tracemalloc.get_traced_memory()[1] < 6 * points.nbytes
    )  # the distances by feature alone have 20 times as much
    tracemalloc.stop()
