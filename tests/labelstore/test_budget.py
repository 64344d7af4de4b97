"""The budget account against an independent recount, and engines that would break it: refused when they commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripu import labels
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, LabelStoreError, TargetImage
from ripu.labelstore.errors import OverBudgetError, RevealedTwiceError

HEIGHT, WIDTH, NAMES = 24, 31, ("road", "car", "tree")
IMAGES = [TargetImage(f"city/{number}", HEIGHT, WIDTH) for number in range(3)]


def truth(image_id: str) -> np.ndarray:
    """(H, W) train ids with blobs of void."""
    rng = np.random.default_rng(int(image_id[-1]))
    coarse = rng.choice([0, 1, 2, 255], size=(6, 8), p=[0.4, 0.2, 0.2, 0.2])
    return np.kron(coarse, np.ones((4, 4), int))[:HEIGHT, :WIDTH].astype(np.uint8)


def square(pick: np.ndarray, radius: int) -> list[int]:
    """Flat pixels of a pick's square, clipped at the border; one by one."""
    return [
        row * WIDTH + column
        for row in range(pick[0] - radius, pick[0] + radius + 1)
        for column in range(pick[1] - radius, pick[1] + radius + 1)
        if 0 <= row < HEIGHT and 0 <= column < WIDTH
    ]


def recount(image_id: str, picks: np.ndarray, radius: int, *, has_answers: bool) -> dict[str, Any]:
    """The account of the picks of an image in a round, all answered or none."""
    ids = [truth(image_id).reshape(-1)[square(pick, radius)] for pick in picks]
    kinds = [set(one.tolist()) for one in ids] if has_answers else []
    pixels = np.concatenate([*ids, np.zeros(0, int)])
    known = pixels if has_answers else pixels[:0]
    return {
        "picks": len(picks),
        "answered_picks": len(picks) if has_answers else 0,
        "void_picks": sum(kind == {255} for kind in kinds),
        "clicks": sum(len(kind) for kind in kinds),
        "void_clicks": sum(255 in kind for kind in kinds),
        "asked_pixels": len(pixels),
        "answered_pixels": len(known),
        "missing_pixels": len(pixels) - len(known),
        "void_pixels": int((known == 255).sum()),
        "class_pixels": {name: int((known == number).sum()) for number, name in enumerate(NAMES)},
        "class_clicks": {name: sum(number in kind for kind in kinds) for number, name in enumerate(NAMES)},
    }


def added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of accounts."""
    total: dict[str, Any] = {}
    for key, first in counts[0].items():
        values = [one[key] for one in counts]
        total[key] = (
            {name: sum(one[name] for one in values) for name in first} if isinstance(first, dict) else sum(values)
        )
    return total


def test_the_account_is_that_of_an_independent_recount(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rounds of squares; the second leaves an image without picks and one without answers."""
    radius, budget = 1, 4
    rng = np.random.default_rng(0)
    grid = np.array([[row, column] for row in range(0, HEIGHT, 4) for column in range(0, WIDTH, 4)])
    asked: dict[tuple[str, int], np.ndarray] = {}
    answered: set[tuple[str, int]] = set()
    with LabelStore.create(tmp_path / "labels", IMAGES, NAMES, planned_picks=2 * budget) as store:
        places = {image.image_id: rng.permutation(grid) for image in IMAGES}
        for index in (0, 1):
            spec = store.begin_round(index, 10 * (index + 1), budget, reveal_radius=radius, suppress_radius=2 * radius)
            records: list[Any] = []
            for number, image in enumerate(IMAGES):
                if index == 1 and number == 0:
                    continue
                count = budget - number  # one spends less than it may
                picks = places[image.image_id][index * budget : index * budget + count]
                asked[image.image_id, index] = picks
                records.append(ImagePicks(image.image_id, picks))
                if index == 1 and number == 2:
                    continue
                pixels = np.array(sorted({pixel for pick in picks for pixel in square(pick, radius)}))
                answered.add((image.image_id, index))
                records.append(ImageAnswers(image.image_id, pixels, truth(image.image_id).reshape(-1)[pixels]))
            store.add_round(spec, records)
    assert labels.main(["stats", str(tmp_path), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)

    nothing = np.zeros((0, 2), int)
    cells = {
        cell: recount(cell[0], asked.get(cell, nothing), radius, has_answers=cell in answered)
        for cell in ((image.image_id, index) for image in IMAGES for index in (0, 1))
    }
    assert stats["total"] == added(list(cells.values()))
    for index, one in enumerate(stats["rounds"]):
        mine = added([cells[image.image_id, index] for image in IMAGES])
        assert {key: one[key] for key in mine} == mine
        assert one["left_picks"] == budget * len(IMAGES) - mine["picks"]
    for image in IMAGES:
        mine = added([cells[image.image_id, index] for index in (0, 1)])
        assert {key: stats["images"][image.image_id][key] for key in mine} == mine
        assert stats["images"][image.image_id]["left_picks"] == 2 * budget - mine["picks"]
    spent = sum(len(picks) for picks in asked.values())
    assert (stats["planned_picks"], stats["left_picks"]) == (2 * budget * 3, 2 * budget * 3 - spent)
    assert stats["left_pixels"] == (2 * budget * 3 - spent) * 9

    assert labels.main(["stats", str(tmp_path), "--images"]) == 0
    printed = capsys.readouterr().out
    for word in ("answered", "void", "left", "clicks", "px missing", "px void", "class", "round 1", "city/2"):
        assert word in printed
    assert "planned 24" in printed
    assert f"spent {spent}, left {24 - spent}" in printed


def faulty(kind: str) -> Iterator[Any]:
    """What an engine with a bug would commit as the second round (budget of 2 squares of radius 1)."""
    first = "city/0"
    if kind == "over the budget":
        yield ImagePicks(first, np.array([[1, 1], [1, 10], [1, 20]]))
    elif kind == "again":
        yield ImagePicks(first, np.array([[12, 12]]))
    elif kind == "overlapping an earlier one":
        yield ImagePicks(first, np.array([[13, 13]]))
    elif kind == "overlapping each other":
        yield ImagePicks(first, np.array([[1, 1], [2, 2]]))
    elif kind == "outside":
        yield ImagePicks(first, np.array([[HEIGHT, 0]]))
    elif kind == "twice the same image":
        yield ImagePicks(first, np.array([[1, 1]]))
        yield ImagePicks(first, np.array([[1, 10]]))
    elif kind == "another answer":
        yield ImageAnswers(first, np.array([12 * WIDTH + 12]), np.array([2]))
    elif kind == "no class":
        yield ImageAnswers(first, np.array([0]), np.array([3]))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("over the budget", OverBudgetError),
        ("again", RevealedTwiceError),
        ("overlapping an earlier one", RevealedTwiceError),
        ("overlapping each other", RevealedTwiceError),
        ("outside", LabelStoreError),
        ("twice the same image", LabelStoreError),
        ("another answer", LabelStoreError),
        ("no class", LabelStoreError),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_faulty_engine_commits_nothing(kind: str, error: type[Exception], ranks: int, tmp_path: Path) -> None:
    with LabelStore.create(tmp_path, IMAGES, NAMES, planned_picks=4) as store:
        spec = store.begin_round(0, 10, 2, reveal_radius=1, suppress_radius=2)
        store.add_round(
            spec,
            [
                ImagePicks("city/0", np.array([[12, 12]])),
                ImageAnswers("city/0", np.array(square(np.array([12, 12]), 1)), np.ones(9, int)),
            ],
        )
        before, revealed = store.log, store.revealed_label("city/0")
        spec = store.begin_round(1, 20, 2, reveal_radius=1, suppress_radius=2)

        def commit() -> None:
            for rank in range(ranks):
                store.write_shard(spec, rank, faulty(kind))
            store.commit_round(spec, ranks)

        with pytest.raises(error):
            commit()
        assert store.log == before
        assert store.verify() == []
        np.testing.assert_array_equal(store.revealed_label("city/0"), revealed)


def test_two_ranks_cannot_share_an_image(tmp_path: Path) -> None:
    """Each alone keeps the budget; together they would not."""
    with LabelStore.create(tmp_path, IMAGES, NAMES, planned_picks=4) as store:
        spec = store.begin_round(0, 10, 2, reveal_radius=1, suppress_radius=2)
        store.write_shard(spec, 0, [ImagePicks("city/0", np.array([[2, 2], [2, 9]]))])
        store.write_shard(spec, 1, [ImagePicks("city/0", np.array([[9, 2], [9, 9]]))])
        with pytest.raises(LabelStoreError, match="two ranks wrote different picks"):
            store.commit_round(spec, 2)
        assert store.num_rounds == 0


def test_rounds_together_keep_the_plan(tmp_path: Path) -> None:
    with LabelStore.create(tmp_path, IMAGES, NAMES, planned_picks=3) as store:
        store.add_round(store.begin_round(0, 1, 2), [ImagePicks("city/0", np.array([[0, 0], [0, 5]]))])
        with pytest.raises(OverBudgetError, match="planned_picks"):
            store.add_round(store.begin_round(1, 2, 2), [ImagePicks("city/0", np.array([[5, 0], [5, 5]]))])
        assert store.num_rounds == 1
        store.add_round(store.begin_round(1, 2, 2), [ImagePicks("city/0", np.array([[5, 0]]))])
        assert store.stats().left_picks_per_image == {"city/0": 0, "city/1": 3, "city/2": 3}


@pytest.mark.parametrize("grid", [False, True], ids=["label", "training grid"])
def test_what_is_left_is_not_said_where_images_differ_in_size(
    grid: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan is that of the largest image, but on the training grid, where all have the same."""
    images = [TargetImage("large", 24, 30), TargetImage("small", 12, 15)]
    counts = {"large": 4, "small": 4 if grid else 1}
    info = {"grid": {"name": "training", "suppress_radius": 1}} if grid else None
    with LabelStore.create(tmp_path / "labels", images, NAMES, planned_picks=2 * 4) as store:
        for index in range(2):
            spec = store.begin_round(index, index + 1, 4, info=info)
            rows = {name: np.arange(count) for name, count in counts.items()}
            store.add_round(
                spec, [ImagePicks(name, np.stack([one, np.full_like(one, index)], 1)) for name, one in rows.items()]
            )
            stats = store.stats()
            done = index + 1
            assert stats.planned_picks == (16 if grid else None)
            assert stats.left_picks == stats.left_pixels == (16 - 8 * done if grid else None)
            assert [one.left_picks for one in stats.rounds] == [0 if grid else None] * done
            assert stats.left_picks_per_image == ({"large": 8 - 4 * done, "small": 8 - 4 * done} if grid else None)
    assert labels.main(["stats", str(tmp_path), "--images"]) == 0
    assert ("planned" in capsys.readouterr().out) == grid
