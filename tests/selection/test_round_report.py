"""What a round revealed, against a store made by hand and against literal counting."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Regions, TargetImage, square_regions
from ripu.selection.rank_part import RoundTally
from ripu.selection.round_report import neighbourhood, report_round, round_overlap, true_class_pixels
from running import train_here
from trees import draw_label

HEIGHT, WIDTH = 20, 30
TALLY = SimpleNamespace(picks=2, impurity=1.0, uncertainty=3.0)


def fill(store: LabelStore, rounds: list[list[tuple[int, int]]], labels: np.ndarray) -> None:
    """Commit rounds of 3 x 3 squares in image "a"; image "b" is never asked about."""
    for index, picks in enumerate(rounds):
        spec = store.begin_round(index, 10 * (index + 1), 5, reveal_radius=1, suppress_radius=2)
        places = np.array(picks)
        pixels = square_regions(places, 1, HEIGHT, WIDTH).indices
        records = [ImagePicks("a", places), ImageAnswers("a", pixels, labels.reshape(-1)[pixels])]
        store.write_shard(spec, 0, records)
        store.commit_round(spec, 1)


def make(folder: Path) -> LabelStore:
    return LabelStore.create(folder, [TargetImage(one, HEIGHT, WIDTH) for one in "ab"], ("left", "right"))


def test_a_round_is_counted_alone_and_with_those_before(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[:, 10:] = 1
    labels[:, 25:] = 255
    with make(tmp_path) as store:
        fill(store, [[(5, 5), (5, 15)], [(5, 8), (15, 27)]], labels)
        first, second = (report_round(store, index, TALLY, 0.0) for index in range(2))
    assert first["class_pixels"] == first["new_class_pixels"] == {"left": 9, "right": 9}
    assert second["new_class_pixels"] == {"left": 9, "right": 0}
    assert second["class_pixels"] == {"left": 18, "right": 9}
    assert second["void_fraction"] == 9 / 36
    assert (first["clicks"], second["clicks"]) == (2, 4)  # one label a square, that of (15, 27) being void
    assert (first["labelled_pixels"], second["labelled_pixels"]) == (18, 36)
    assert second["labelled_fraction"] == 36 / (2 * HEIGHT * WIDTH)
    assert (second["mean_impurity"], second["mean_uncertainty"]) == (0.5, 1.5)
    assert (first["overlap"], first["overlap_by_chance"]) == (None, None)
    assert second["overlap"] == 0.5  # (5, 8) stands 3 from (5, 5), the other is far from both


@pytest.mark.parametrize(
    ("tally", "means"),
    [((0.0, 1.0, 2), (0.0, 0.5)), ((None, 1.0, 2), (None, 0.5)), ((0.0, 0.0, 0), (None, None))],
    ids=["pure windows", "a score without impurity", "no pick"],
)
def test_means_of_nothing_and_of_zeros_differ(
    tally: tuple[float | None, float, int], means: tuple[float | None, float | None], tmp_path: Path
) -> None:
    impurity, uncertainty, picks = tally
    with make(tmp_path) as store:
        fill(store, [[(5, 5)]], np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
        report = report_round(store, 0, RoundTally(picks=picks, impurity=impurity, uncertainty=uncertainty), 0.0)
    assert (report["mean_impurity"], report["mean_uncertainty"]) == means


def test_chance_is_the_share_of_open_pixels_that_are_near(tmp_path: Path) -> None:
    with make(tmp_path) as store:
        fill(store, [[(5, 5)], [(5, 8), (15, 27)]], np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
        near = open_pixels = 0
        for row in range(HEIGHT):
            for column in range(WIDTH):
                distance = max(abs(row - 5), abs(column - 5))
                open_pixels += distance > 2
                near += 2 < distance <= 6
        assert round_overlap(store, 1) == (0.5, pytest.approx(near / open_pixels))
        assert neighbourhood(store, store.images[0], 0).sum() == 12 * 12  # (-1 .. 11) clipped at 0, both ways


def test_regions_of_fixed_shape_are_neighbours_where_they_touch(tmp_path: Path) -> None:
    def region(*cells: int) -> ImagePicks:
        sets = [[row * WIDTH + 5 * cell + column for row in range(5) for column in range(5)] for cell in cells]
        return ImagePicks("a", np.array([[2, 5 * cell + 2] for cell in cells]), regions=Regions.from_sets(sets))

    with make(tmp_path) as store:
        for index, record in enumerate([region(0), region(1, 4)]):
            spec = store.begin_round(index, 10 * (index + 1), 5)
            store.write_shard(spec, 0, [record])
            store.commit_round(spec, 1)
        assert round_overlap(store, 1) == (0.5, None)


def test_the_truth_is_counted_over_all_labels(tmp_path: Path) -> None:
    from PIL import Image

    drawn = [draw_label(seed, CAMVID11) for seed in range(3)]
    for number, label in enumerate(drawn):
        Image.fromarray(label).save(tmp_path / f"{number}.png")
    scenes = [Scene(str(number), tmp_path / f"{number}.png", tmp_path / f"{number}.png") for number in range(3)]
    unlabelled = Scene("3", tmp_path / "0.png", None)
    counted = true_class_pixels(SceneDataset("some", (*scenes, unlabelled), CAMVID11))
    for train_id, name in enumerate(CAMVID11.class_names):
        assert counted is not None
        assert counted[name] == sum(int((label == train_id).sum()) for label in drawn)
    assert true_class_pixels(SceneDataset("none", (unlabelled,), CAMVID11)) is None


def test_results_hold_what_a_round_revealed_against_the_truth(data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", "budget=0.2")
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored["true_class_pixels"] == results["true_class_pixels"]
    first, second = stored["rounds"]
    assert first["overlap"] is None
    assert 0 <= second["overlap"] <= 1
    assert 0 < second["overlap_by_chance"] < 1
    for name, pixels in second["class_pixels"].items():
        assert pixels == first["new_class_pixels"][name] + second["new_class_pixels"][name]
        assert pixels <= stored["true_class_pixels"][name]
    written = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "al/overlap" in written
    assert "al/overlap_by_chance" in written
