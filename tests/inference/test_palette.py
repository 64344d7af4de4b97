from __future__ import annotations

import numpy as np
import pytest

from ripu.inference import palette

# Viénot, Brettel and Mollon (1999): linear RGB as people without red or without green cones see it.
WITHOUT = {
    "red": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "green": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


def seen(color: palette.RGB, without: str) -> np.ndarray:
    """sRGB 0..255 as it looks without red or green cones."""
    linear = (np.array(color) / 255.0) ** 2.2
    return 255.0 * np.clip(WITHOUT[without] @ linear, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize("without", WITHOUT)
@pytest.mark.parametrize("colors", [palette.ROUNDS, palette.SERIES], ids=["rounds", "series"])
def test_colours_stay_apart_under_colour_blindness(colors: tuple[palette.RGB, ...], without: str) -> None:
    for number, one in enumerate(colors):
        for other in colors[:number]:
            assert np.linalg.norm(seen(one, without) - seen(other, without)) > 25, (one, other)


def test_rounds_have_a_colour_each_and_begin_again() -> None:
    assert len({palette.round_color(index) for index in range(len(palette.ROUNDS))}) == len(palette.ROUNDS)
    assert palette.round_color(len(palette.ROUNDS)) == palette.round_color(0)


def test_heat_maps_get_lighter_with_the_value() -> None:
    values = np.linspace(-1.0, 3.0, 50)[None]
    painted = palette.heat(values, 2.0)
    assert painted.shape == (1, 50, 3)
    assert painted.dtype == np.uint8
    lightness = painted[0] @ np.array([0.2126, 0.7152, 0.0722])
    inside = (values[0] >= 0) & (values[0] <= 2)
    assert (np.diff(lightness[inside]) > 0).all()
    assert (painted[0, values[0] <= 0] == painted[0, 0]).all()
    assert (painted[0, values[0] >= 2] == painted[0, -1]).all()
