"""The kernels for CPUs, which Numba compiles."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kernel_cases import network_output
from ripu.acquisition import RipuScore
from ripu.functional import fused, map_entropy_and_label, region_impurity
from ripu.functional.tables import small_impurities
from ripu.selection.picks import greedy_picks

numba: Any = pytest.importorskip("numba", reason="it comes with the extra fused")
compiler: ModuleType = pytest.importorskip("ripu.functional.fused.cpu.compiler")
softmax: ModuleType = pytest.importorskip("ripu.functional.fused.cpu.softmax")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["trained", "piecewise smooth"])
@pytest.mark.parametrize(("radius", "pixel", "num_picks"), [(1, False, 257), (4, False, 29), (32, True, 6)])
def test_they_pick_where_the_plain_code_picks(
    kind: str, radius: int, pixel: bool, num_picks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are equal; scores are up to rounding; picks are, from equal scores, to the bit."""
    size, logits = (512, 1024), network_output(kind)
    rule = (num_picks, radius if pixel else 2 * radius, None)
    assert fused.is_used(logits)
    label = map_entropy_and_label(logits, size)[1]
    got = RipuScore(radius, pixel)(logits, size, [0])
    found = greedy_picks(got.score[0], *rule, got.uncertainty[0])
    monkeypatch.setenv(fused.SWITCH, "0")
    assert torch.equal(label, map_entropy_and_label(logits, size)[1])
    expected = RipuScore(radius, pixel)(logits, size, [0])
    torch.testing.assert_close(got.score, expected.score, atol=2e-6, rtol=1e-5)
    assert found.tolist() == greedy_picks(got.score[0], *rule, got.uncertainty[0]).tolist()
    places = [one.unbind(1) for one in (found, greedy_picks(expected.score[0], *rule, expected.uncertainty[0]))]
    values = [expected.score[0][rows, columns] for rows, columns in places]
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("radius", "pixel"), [(1, False), (9, False), (32, True)])
def test_the_number_of_threads_changes_nothing(radius: int, pixel: bool) -> None:
    logits, size, results = network_output("trained")[..., ::2, ::2], (511, 1023), []
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        maps = RipuScore(radius, pixel)(logits, size, [0])
        picks = greedy_picks(maps.score[0], 40, 2 * radius, None, maps.uncertainty[0])
        results.append((maps.score, maps.impurity, maps.uncertainty, picks))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_exp_and_log_are_those_of_float64() -> None:
    generator = np.random.default_rng(0)
    below = np.concatenate([-(10.0 ** generator.uniform(-8, 2, 4000)), [0.0, -86.9, -88.0, -np.inf]]).astype(np.float32)
    found = np.array([softmax.exp(value) for value in below])
    np.testing.assert_allclose(found, np.where(below < -87, 0.0, np.exp(below.astype(np.float64))), rtol=1.5e-7)
    assert softmax.exp(np.float32(0.0)) == 1.0
    above = (10.0 ** generator.uniform(-30, 30, 4000)).astype(np.float32)
    found = np.array([softmax.log(value) for value in above])
    np.testing.assert_allclose(found, np.log(above.astype(np.float64)), rtol=1.5e-7, atol=1.5e-7)
    assert softmax.log(np.float32(1.0)) == 0.0


def test_a_window_of_many_classes_is_that_of_float64() -> None:
    label = torch.randint(300, (1, 10, 513), generator=torch.Generator().manual_seed(0))
    found = region_impurity(label, 300, 400)
    for column in range(513):  # a window has all rows
        counts = np.bincount(label[0, :, max(0, column - 400) : column + 401].flatten())
        share = counts[counts > 0] / counts.sum()
        np.testing.assert_allclose(found[0, :, column], -(share * np.log(share)).sum(), rtol=1.2e-7)


def test_codes_stand_for_the_counts() -> None:
    codes = [(sum(counts), sum(count**4 for count in counts)) for counts, _ in small_impurities()]
    assert len(set(codes)) == len(codes)
    assert max(code for _, code in codes) < 1 << 16


def test_where_nothing_can_be_kept_every_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'add': no locator available for file 'add.py'")
        return numba.njit(**options)

    monkeypatch.setattr(compiler, "njit", njit)

    @compiler.kernel
    def add(one, other):
        return one + other

    assert add(1, 2) == 3
