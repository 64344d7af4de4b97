from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripu.selection import Query


def query(**changes: Any) -> Query:
    return Query(**({"pixel": False, "radius": 1, "suppress_radius": 2, "budget": 0.022, "num_rounds": 5} | changes))


def test_published_numbers() -> None:
    full, train = (1024, 2048), (640, 1280)
    assert query().picks_per_round(full, train) == 1026
    assert query(budget=0.05).picks_per_round(full, train) == 2331
    pixels = query(pixel=True, radius=32, suppress_radius=32, budget=40)
    assert pixels.picks_per_round(full, train) == 21
    assert pixels.picks_per_round(train, train) == 8
    assert (query().reveal_radius, pixels.reveal_radius) == (1, 0)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10), st.integers(1, 10), st.integers(1, 1000))
def test_a_round_gets_its_share_rounded_up(height: int, width: int, radius: int, rounds: int, thousandths: int) -> None:
    one = query(radius=radius, suppress_radius=2 * radius, budget=thousandths / 1000, num_rounds=rounds)
    picks = one.picks_per_round((height, width), (32, 32))
    numerator, denominator = height * width * thousandths, 1000 * rounds * (2 * radius + 1) ** 2
    assert picks == -(-numerator // denominator)


def test_no_pick_too_many_by_rounding() -> None:
    assert query(radius=0, suppress_radius=0, budget=0.05).picks_per_round((10, 10), (32, 32)) == 1  # 0.05 * 100 / 5
    assert query(budget=1e-12).picks_per_round((10, 10), (32, 32)) == 1
    assert query(pixel=True, budget=15, num_rounds=5).picks_per_round((32, 32), (32, 32)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": -1}, r"mode\.radius=-1"),
        ({"suppress_radius": -1}, r"mode\.suppress_radius=-1"),
        ({"suppress_radius": 1}, r"regions of radius 1 overlap.*give 2 or more"),
        ({"budget": 0.0}, r"budget=0\.0 is not a share"),
        ({"budget": 1.01}, r"budget=1\.01 is not a share"),
        ({"budget": math.nan}, r"budget=nan is not a share"),
        ({"pixel": True, "budget": 0.022}, r"budget=0\.022 is not a number of pixels"),
        ({"pixel": True, "budget": 2.5}, r"budget=2\.5 is not a number of pixels"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        query(**changes)


def test_pixels_may_be_suppressed_by_less_than_their_window() -> None:
    assert query(pixel=True, radius=32, suppress_radius=0, budget=1).suppress_radius == 0
