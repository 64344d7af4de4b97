"""The size at which the network sees an image, and images whose proportions would change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripu.datasets.proportions import fitted, squashed

SIDES = st.integers(32, 4000)


@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES)
def test_a_fitted_image_keeps_its_proportions_and_touches_the_frame(
    height: int, width: int, rows: int, columns: int
) -> None:
    found = fitted((height, width), (rows, columns), "pad")
    assert found[0] <= rows
    assert found[1] <= columns
    assert found[0] == rows or found[1] == columns
    scale = min(rows / height, columns / width)
    assert abs(found[0] - height * scale) <= 0.5 or found[0] == 1
    assert abs(found[1] - width * scale) <= 0.5 or found[1] == 1
    assert fitted((height, width), (rows, columns), "stretch") == (rows, columns)


@pytest.mark.parametrize(
    ("size", "frame"), [((360, 480), (192, 256)), ((1024, 2048), (640, 1280)), ((181, 240), (60, 80))]
)
def test_the_same_proportions_give_the_frame_itself(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert fitted(size, frame, "pad") == frame


def test_squashed_images_are_found() -> None:
    assert squashed([(24, 32), (32, 24), (24, 32)], (48, 64)) == [1]
    assert squashed([(32, 24)] * 2, (48, 64)) == [0, 1]
    assert squashed([(1052, 1914), (1046, 1914)], (720, 1280)) == []  # 2.3 %, chosen for the whole data set
    assert squashed([(1052, 1914), (24, 32)], (720, 1280)) == [0, 1]
    assert squashed([], (720, 1280)) == []
