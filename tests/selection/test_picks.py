from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernel_cases import with_and_without_kernels  # noqa: F401
from reference import picking
from ripu.selection import picks as module
from ripu.selection.picks import fair_picks, greedy_picks


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=13))
    levels = st.sampled_from([0.0, -0.0, 0.25, 1.0, -3.0, float("inf"), float("-inf")])
    score = draw(hnp.arrays(np.float32, shape, elements=levels | st.floats(-2, 2, width=32)))
    available = draw(hnp.arrays(np.bool_, shape))
    tie = draw(st.none() | hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, 2.0])))
    return score, available, tie


@settings(deadline=None, max_examples=200)
@given(problems(), st.integers(0, 30), st.integers(0, 6))
def test_matches_the_literal_loop(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray | None], num_picks: int, radius: int
) -> None:
    score, available, tie = problem
    got = greedy_picks(
        torch.from_numpy(score),
        num_picks,
        radius,
        torch.from_numpy(available),
        None if tie is None else torch.from_numpy(tie),
    )
    assert got.dtype == torch.int64
    assert got.shape[1:] == (2,)
    assert got.tolist() == picking.greedy_picks(score, num_picks, radius, available, tie)


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidate sets so small that they run out again and again."""
    monkeypatch.setattr(module, "_FEWEST_CANDIDATES", 4)
    monkeypatch.setattr(module, "_CANDIDATES_PER_PICK", 1)
    monkeypatch.setattr(module, "_SAMPLES", 16)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("kind", ["smooth", "plateaus", "one plateau", "mostly masked", "zero with a few"])
@pytest.mark.parametrize("with_tie", [False, True])
@pytest.mark.parametrize(("num_picks", "radius"), [(40, 1), (25, 4), (500, 2), (3, 20)])
def test_running_out_of_candidates_changes_nothing(kind: str, with_tie: bool, num_picks: int, radius: int) -> None:
    generator = np.random.default_rng(num_picks + radius)
    score = np.cumsum(np.cumsum(generator.normal(size=(53, 71)), 0), 1).astype(np.float32)
    tie = np.round(generator.normal(size=score.shape) * 4).astype(np.float32)
    if kind == "plateaus":
        score = np.round(score / np.abs(score).max() * 3)
    elif kind == "one plateau":
        score = np.zeros_like(score)
        tie[tie < 0] = -np.inf
    elif kind == "mostly masked":
        score[generator.random(score.shape) < 0.97] = -np.inf
    elif kind == "zero with a few":
        score = np.where(generator.random(score.shape) < 0.01, np.abs(score), np.float32(0))
    got = greedy_picks(
        torch.from_numpy(score), num_picks, radius, tie_break=torch.from_numpy(tie) if with_tie else None
    )
    assert got.tolist() == picking.greedy_picks(score, num_picks, radius, None, tie if with_tie else None)


@pytest.mark.parametrize("num_picks", [1, 50, 400])
@pytest.mark.parametrize("level", [None, 4])
def test_larger_maps_match(num_picks: int, level: int | None) -> None:
    generator = torch.Generator().manual_seed(num_picks)
    score = torch.nn.functional.interpolate(
        torch.rand(1, 1, 12, 20, generator=generator), (240, 400), mode="bicubic", align_corners=True
    )[0, 0]
    tie = torch.rand(240, 400, generator=generator)
    if level is not None:
        score = (score * level).round()
    got = greedy_picks(score, num_picks, 3, None, tie)
    assert got.tolist() == picking.greedy_picks(score.numpy(), num_picks, 3, None, tie.numpy())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(0, 40), st.integers(0, 5))
def test_laws(seed: int, num_picks: int, radius: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(17, 23, generator=generator)
    available = torch.rand(17, 23, generator=generator) < 0.7
    got = greedy_picks(score, num_picks, radius, available)
    assert len(got) <= num_picks
    if len(got) > 1:
        distance = (got[:, None] - got[None]).abs().amax(-1)
        distance.fill_diagonal_(radius + 1)
        assert distance.min() > radius
    assert available[got[:, 0], got[:, 1]].all()
    values = score[got[:, 0], got[:, 1]]
    assert (values[1:] <= values[:-1]).all()
    if len(got) < num_picks:
        left = available.clone()
        for row, column in got.tolist():
            left[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = False
        assert not left.any()


def test_without_suppression_the_count_is_what_is_available() -> None:
    available = torch.rand(20, 30) < 0.3
    for num_picks in (0, 10, 10_000):
        assert len(greedy_picks(torch.rand(20, 30), num_picks, 0, available)) == min(num_picks, int(available.sum()))


def test_plateaus_go_to_the_uncertain_then_row_then_column() -> None:
    score = torch.zeros(3, 4)
    tie = torch.tensor([[0.0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 1]])
    assert greedy_picks(score, 5, 0, tie_break=tie).tolist() == [[1, 1], [0, 3], [2, 3], [0, 0], [0, 1]]
    assert greedy_picks(score, 3, 0).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_inputs_are_left_alone() -> None:
    score, available = torch.rand(9, 9), torch.ones(9, 9, dtype=torch.bool)
    copy = score.clone()
    greedy_picks(score, 5, 1, available)
    assert torch.equal(score, copy)
    assert available.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    score = torch.rand(9, 9).to(dtype)
    expected = picking.greedy_picks(score.double().numpy(), 6, 1)
    assert greedy_picks(score, 6, 1).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(9, 9), (200, 300)])  # the larger one is a plateau of which only a part is sorted
def test_dtypes_of_tie_breaks(dtype: torch.dtype, size: tuple[int, int]) -> None:
    score, tie = torch.zeros(size), torch.rand(size).to(dtype)
    expected = picking.greedy_picks(score.numpy(), 6, 1, None, tie.double().numpy())
    assert greedy_picks(score, 6, 1, None, tie).tolist() == expected


def test_nothing_to_pick() -> None:
    assert greedy_picks(torch.rand(4, 5), 3, 1, torch.zeros(4, 5, dtype=torch.bool)).shape == (0, 2)
    assert greedy_picks(torch.full((4, 5), -torch.inf), 3, 1).shape == (0, 2)
    assert greedy_picks(torch.rand(4, 5), 0, 1).shape == (0, 2)
    assert greedy_picks(torch.empty(0, 5), 2, 1).shape == (0, 2)


def test_nan_is_named() -> None:
    score = torch.rand(5, 6)
    score[2, 3] = torch.nan
    with pytest.raises(ValueError, match="row 2, column 3"):
        greedy_picks(score, 1, 0)
    with pytest.raises(ValueError, match="tie_break is NaN"):
        greedy_picks(torch.rand(5, 6), 1, 0, tie_break=score)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.rand(1, 4, 5), 1, 1),
        (torch.zeros(4, 5, dtype=torch.long), 1, 1),
        (torch.rand(4, 5), -1, 1),
        (torch.rand(4, 5), 1, -1),
        (torch.rand(4, 5), 1, 1, torch.ones(5, 4, dtype=torch.bool)),
        (torch.rand(4, 5), 1, 1, torch.ones(4, 5)),
        (torch.rand(4, 5), 1, 1, None, torch.rand(5, 4)),
    ],
)
def test_errors(arguments: tuple) -> None:
    with pytest.raises(ValueError):
        greedy_picks(*arguments)


@settings(deadline=None, max_examples=200)
@given(problems(), st.integers(0, 30), st.integers(0, 6), st.integers(1, 4), st.integers(0, 9))
def test_turns_match_the_literal_loop(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray | None], num_picks: int, radius: int, groups: int, seed: int
) -> None:
    score, available, tie = problem
    group = np.random.default_rng(seed).integers(-1, groups, score.shape)
    arrays = [None if one is None else torch.from_numpy(one) for one in (available, tie)]
    got = fair_picks(torch.from_numpy(score), torch.from_numpy(group), num_picks, radius, *arrays)
    assert got.dtype == torch.int64
    assert got.tolist() == picking.fair_picks(score, group, num_picks, radius, available, tie)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize(("num_picks", "radius"), [(40, 1), (500, 2), (3, 20)])
def test_turns_go_on_when_candidates_run_out(num_picks: int, radius: int) -> None:
    generator = np.random.default_rng(num_picks)
    score = np.round(generator.normal(size=(53, 71)) * 4).astype(np.float32)
    group = np.repeat(np.arange(53)[:, None] ** 2 // 400, 71, axis=1)  # groups of very different sizes
    tie = generator.normal(size=score.shape).astype(np.float32)
    got = fair_picks(torch.from_numpy(score), torch.from_numpy(group), num_picks, radius, None, torch.from_numpy(tie))
    assert got.tolist() == picking.fair_picks(score, group, num_picks, radius, None, tie)


def test_one_group_is_the_greedy_rule_and_every_group_gets_its_share() -> None:
    score = torch.rand(40, 60)
    assert torch.equal(fair_picks(score, torch.zeros(40, 60, dtype=torch.uint8), 50, 2), greedy_picks(score, 50, 2))
    group = torch.arange(60).div(20, rounding_mode="floor").expand(40, 60)
    picked = fair_picks(score + group, group, 31, 2)
    assert sorted(group[picked[:, 0], picked[:, 1]].bincount().tolist()) == [10, 10, 11]


@pytest.mark.parametrize("group", [torch.zeros(4, 5), torch.zeros(5, 4, dtype=torch.int64)])
def test_groups_are_integers_of_the_same_shape(group: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="group must be integers"):
        fair_picks(torch.rand(4, 5), group, 1, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_matches_cpu() -> None:
    score = torch.rand(300, 400)
    score[score < 0.5] = 0.0
    tie = torch.rand(300, 400)
    got = greedy_picks(score.cuda(), 700, 3, None, tie.cuda())
    assert got.is_cuda
    assert got.tolist() == greedy_picks(score, 700, 3, None, tie).tolist()
