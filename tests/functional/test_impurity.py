from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernel_cases import with_and_without_kernels  # noqa: F401
from reference import equations
from ripu.functional import region_impurity, window_count, window_table


def blobs(height: int, width: int, num_classes: int, seed: int) -> torch.Tensor:
    coarse = torch.randint(
        num_classes, (1, 1, 2 + height // 9, 2 + width // 9), generator=torch.Generator().manual_seed(seed)
    )
    return torch.nn.functional.interpolate(coarse.float(), (height, width), mode="nearest")[0].long()


def dense_impurity(label: torch.Tensor, num_classes: int, radius: int) -> torch.Tensor:
    """float64, by two-dimensional cumulative sums: quick enough for sizes that the loop is not."""
    _, height, width = label.shape
    one_hot = torch.nn.functional.one_hot(label[0].long(), num_classes).permute(2, 0, 1)
    table = torch.nn.functional.pad(one_hot, (1, 0, 1, 0)).cumsum(1).cumsum(2)
    rows, columns = torch.arange(height), torch.arange(width)
    top, bottom = (rows - radius).clamp(min=0), (rows + radius + 1).clamp(max=height)
    left, right = (columns - radius).clamp(min=0), (columns + radius + 1).clamp(max=width)
    count = table[:, bottom][:, :, right] - table[:, top][:, :, right]
    count = count - table[:, bottom][:, :, left] + table[:, top][:, :, left]
    share = count.double() / window_count((height, width), radius)
    return -torch.special.xlogy(share, share).sum(0)[None]


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (2, 2), (6, 9), (11, 5)])
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 30])
@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_matches_the_loop(size: tuple[int, int], radius: int, num_classes: int) -> None:
    label = torch.randint(num_classes, (2, *size), generator=torch.Generator().manual_seed(radius))
    got = region_impurity(label, num_classes, radius)
    assert got.dtype == torch.float32
    for b in range(2):
        np.testing.assert_allclose(got[b], equations.region_impurity(label[b].numpy(), num_classes, radius), atol=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 4, 7, 8, 32, 64, 130])
@pytest.mark.parametrize("size", [(40, 67), (301, 517)])
@pytest.mark.parametrize("kind", ["blobs", "noise"])
def test_matches_cumulative_sums_on_larger_maps(size: tuple[int, int], radius: int, kind: str) -> None:
    label = blobs(*size, 19, radius) if kind == "blobs" else torch.randint(19, (1, *size))
    got = region_impurity(label, 19, radius)
    torch.testing.assert_close(got.double(), dense_impurity(label, 19, radius), atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [0, 1, 2, 8, 33, 200])
@pytest.mark.parametrize("num_classes", [1, 2, 19, 300])
def test_constant_labels_have_no_impurity_at_all(num_classes: int, radius: int) -> None:
    for label in {0, num_classes - 1}:
        assert (region_impurity(torch.full((2, 35, 131), label), num_classes, radius) == 0.0).all()


def test_tables_are_shared_by_maps_with_the_same_counts() -> None:
    device = torch.device("cpu")
    table = window_table((40, 50), 19, 2, device)
    assert window_table((64, 32), 7, 2, device) is table  # 25 pixels in both
    np.testing.assert_allclose(table[1:], np.arange(1, 26) * np.log(np.arange(1, 26)), rtol=1e-6)
    assert table[0] == 0.0
    assert window_table((40, 50), 19, 1, device) is window_table((64, 32), 19, 1, device)


@pytest.mark.parametrize("num_classes", [255, 256, 300])
def test_many_classes(num_classes: int) -> None:
    label = torch.randint(num_classes, (1, 21, 33))
    label[0, 3, 3] = num_classes - 1
    for radius in (1, 5):
        got = region_impurity(label, num_classes, radius)
        torch.testing.assert_close(got.double(), dense_impurity(label, num_classes, radius), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_dtypes_agree(dtype: torch.dtype) -> None:
    label = torch.randint(5, (2, 9, 8))
    assert torch.equal(region_impurity(label.to(dtype), 5, 1), region_impurity(label, 5, 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 12), st.integers(0, 18))
def test_constant_map_is_exactly_zero(height: int, width: int, radius: int, value: int) -> None:
    assert (region_impurity(torch.full((1, height, width), value), 19, radius) == 0).all()


@pytest.mark.parametrize("radius", [1, 2, 8, 32])
def test_pure_windows_are_exactly_zero_and_others_are_not(radius: int) -> None:
    label = torch.zeros(1, 90, 160, dtype=torch.long)
    label[:, :, 80:] = 3
    got = region_impurity(label, 19, radius)
    is_pure = torch.ones(160, dtype=torch.bool)
    is_pure[80 - radius : 80 + radius] = False
    assert (got[..., is_pure] == 0).all()
    assert (got[..., ~is_pure] > 0).all()


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=st.integers(0, 4)),
    st.integers(0, 6),
    st.permutations(range(5)),
)
def test_laws(label: np.ndarray, radius: int, permutation: list[int]) -> None:
    batch = torch.from_numpy(label)[None]
    got = region_impurity(batch, 5, radius)
    assert got.min() >= 0
    assert got.max() <= math.log(5) + 1e-6
    torch.testing.assert_close(region_impurity(torch.tensor(permutation)[batch], 5, radius), got, atol=1e-6, rtol=0)
    torch.testing.assert_close(region_impurity(batch.flip(2), 5, radius), got.flip(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(region_impurity(batch.flip(1), 5, radius), got.flip(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        region_impurity(batch.rot90(1, (1, 2)), 5, radius), got.rot90(1, (1, 2)), atol=1e-6, rtol=0
    )


def test_all_classes_in_equal_parts_give_log_of_their_number() -> None:
    label = torch.arange(9).reshape(1, 3, 3)
    assert region_impurity(label, 9, 1)[0, 1, 1].item() == pytest.approx(math.log(9), abs=1e-6)


@pytest.mark.parametrize("radius", [1, 3])
def test_epsilon_is_the_released_variant(radius: int) -> None:
    label = torch.randint(4, (1, 7, 9))
    expected = equations.region_impurity(label[0].numpy(), 4, radius, epsilon=1e-6)
    np.testing.assert_allclose(region_impurity(label, 4, radius, epsilon=1e-6)[0], expected, atol=1e-5)
    assert (region_impurity(torch.zeros(1, 5, 5, dtype=torch.long), 4, radius, epsilon=1e-6) < 0).all()


def test_batch_and_threads_do_not_matter() -> None:
    label = torch.cat([blobs(150, 131, 19, seed) for seed in range(3)])
    for radius in (1, 9):
        together = region_impurity(label, 19, radius)
        for b in range(3):
            assert torch.equal(region_impurity(label[b : b + 1], 19, radius)[0], together[b])
        num_threads = torch.get_num_threads()
        try:
            torch.set_num_threads(3 if num_threads == 1 else 1)
            assert torch.equal(region_impurity(label, 19, radius), together)
        finally:
            torch.set_num_threads(num_threads)


def test_empty_batch() -> None:
    assert region_impurity(torch.empty(0, 4, 5, dtype=torch.long), 3, 1).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("label", "num_classes", "radius", "message"),
    [
        (torch.zeros(4, 5, dtype=torch.long), 3, 1, "integer labels"),
        (torch.zeros(1, 4, 5), 3, 1, "integer labels"),
        (torch.full((1, 4, 5), 255), 19, 1, "255"),
        (torch.full((1, 4, 5), -1), 19, 1, "-1"),
        (torch.zeros(1, 4, 5, dtype=torch.long), 3, -1, "radius"),
        (torch.zeros(1, 4, 5, dtype=torch.long), 0, 1, "num_classes"),
    ],
)
def test_errors_name_the_value(label: torch.Tensor, num_classes: int, radius: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_impurity(label, num_classes, radius)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("radius", [1, 4, 32])
def test_cuda_matches_cpu(radius: int) -> None:
    label = blobs(200, 300, 19, 0)
    torch.testing.assert_close(region_impurity(label.cuda(), 19, radius).cpu(), region_impurity(label, 19, radius))
