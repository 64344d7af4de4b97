from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import equations
from ripu.functional import running_sum, window_count, window_mean


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (7, 9), (12, 5)])
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 20])
def test_mean_and_count_match_the_loop(size: tuple[int, int], radius: int) -> None:
    values = np.random.default_rng(radius).normal(size=(2, *size))
    got = window_mean(torch.from_numpy(values).float(), radius)
    assert got.dtype == torch.float32
    for b in range(2):
        np.testing.assert_allclose(got[b].numpy(), equations.window_mean(values[b], radius), atol=1e-5)
    counts = [[len(equations.window(i, j, radius, *size)) for j in range(size[1])] for i in range(size[0])]
    assert window_count(size, radius).tolist() == counts


def test_mean_across_strips_matches_cumulative_sums() -> None:
    values = torch.rand(1, 300, 40, dtype=torch.float64)
    radius = 37
    table = torch.nn.functional.pad(values[0], (1, 0, 1, 0)).cumsum(0).cumsum(1)
    rows, columns = torch.arange(300), torch.arange(40)
    top, bottom = (rows - radius).clamp(min=0), (rows + radius + 1).clamp(max=300)
    left, right = (columns - radius).clamp(min=0), (columns + radius + 1).clamp(max=40)
    total = table[bottom][:, right] - table[top][:, right] - table[bottom][:, left] + table[top][:, left]
    expected = total / window_count((300, 40), radius)
    torch.testing.assert_close(window_mean(values.float(), radius)[0], expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_mean_is_float32_for_every_input_dtype(dtype: torch.dtype) -> None:
    values = torch.rand(1, 5, 6).to(dtype)
    got = window_mean(values, 1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, window_mean(values.float(), 1))


@settings(deadline=None, max_examples=30)
@given(st.floats(-100, 100, width=32), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_constant_map_keeps_its_value(value: float, height: int, width: int, radius: int) -> None:
    got = window_mean(torch.full((1, height, width), value), radius)
    torch.testing.assert_close(got, torch.full_like(got, value), atol=1e-6, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.data())
def test_running_sum_is_the_sum(values: list[int], data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(values)))
    expected = [sum(values[i : i + length]) for i in range(len(values) - length + 1)]
    assert running_sum(torch.tensor(values), length, 0).tolist() == expected


def test_radius_zero_is_the_map_and_not_an_alias() -> None:
    values = torch.rand(1, 3, 4)
    got = window_mean(values, 0)
    torch.testing.assert_close(got, values)
    got.zero_()
    assert values.sum() > 0


def test_empty_batch() -> None:
    assert window_mean(torch.empty(0, 3, 4), 1).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("values", "radius"),
    [(torch.zeros(3, 4), 1), (torch.zeros(1, 3, 4, dtype=torch.int64), 1), (torch.zeros(1, 3, 4), -1)],
)
def test_errors(values: torch.Tensor, radius: int) -> None:
    with pytest.raises(ValueError):
        window_mean(values, radius)
