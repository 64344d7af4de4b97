"""The kernels for CUDA: on a GPU where there is one, otherwise in Triton's interpreter (tests/conftest.py)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kernel_cases import (
    HAS_GPU,
    KINDS,
    expected_picks,
    label_of,
    network_output,
    noise,
    problem,
    smooth,
    use_large_blocks,
)
from ripu.acquisition import RipuScore
from ripu.functional import fused, map_entropy_and_label, map_pixels, region_impurity
from ripu.selection.picks import greedy_picks

triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
tl = pytest.importorskip("triton.language")
maps: ModuleType = pytest.importorskip("ripu.functional.fused.cuda.maps")
picks: ModuleType = pytest.importorskip("ripu.functional.fused.cuda.picks")
fused_cuda: ModuleType = pytest.importorskip("ripu.functional.fused.cuda")
windows: ModuleType = pytest.importorskip("ripu.functional.fused.cuda.windows")

DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture(autouse=True)
def large_blocks_beside_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    use_large_blocks(monkeypatch)
    if not HAS_GPU:
        monkeypatch.setenv(fused.SWITCH, "0")


def interpreted(kernel: Any) -> Any:
    """Return a kernel of this file as conftest.py makes those of the package."""
    if HAS_GPU:
        return triton.jit(kernel)
    from triton.runtime.interpreter import InterpretedFunction

    return InterpretedFunction(kernel)


@interpreted
def blended(logits, first, second, weight, target, width, size, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    is_inside = place < size
    row, column = place // width, place % width
    above, below = tl.load(first + row, mask=is_inside), tl.load(second + row, mask=is_inside)
    left, right = tl.load(first + column, mask=is_inside), tl.load(second + column, mask=is_inside)
    down, across = tl.load(weight + row, mask=is_inside), tl.load(weight + column, mask=is_inside)
    value = maps._blended(logits, above * 23, below * 23, left, right, across, down, is_inside)
    tl.store(target + place, value, mask=is_inside)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compares with torch's AVX code")
def test_up_sampled_logits_are_those_of_the_plain_code_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two maps in a row, every sum and product rounds alike; the interpreter has no fused ones, so lend it some."""
    logits, length = noise(1, 1, 23, 23), 61
    (expected,) = map_pixels(logits, (length, length), lambda strip: (strip[0],), (torch.float32,))
    if not HAS_GPU:
        from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

        def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
            exact = x.data.astype(np.float64) * y.data + z.data  # the product of two float32 is exact
            return TensorHandle(exact.astype(np.float32), z.dtype.scalar)

        monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)
    got = torch.empty(length, length, device=DEVICE)
    taps = maps._taps_on(23, length, DEVICE)
    blended[(1,)](logits.to(DEVICE), *taps, got, length, length**2, BLOCK=4096, **maps.EXACT)
    assert torch.equal(got.cpu(), expected[0])


def test_tables_of_a_few_words_at_a_time_and_counts_above_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    size, num_classes, radius = (257, 261), 9, 140
    monkeypatch.setattr(windows, "_BLOCK", 1 << 15)
    monkeypatch.setattr(windows, "TABLE_BYTES", 3 * 8 * size[0] * size[1])  # of five words of two counts
    label, entropy = label_of(num_classes, size), noise(2, *size).abs().clamp(max=2.0)
    impurity, mean, _ = (
        one.cpu() for one in windows.window_maps(label[:1].to(DEVICE), entropy[:1].to(DEVICE), num_classes, radius)
    )
    torch.testing.assert_close(impurity, region_impurity(label[:1], num_classes, radius), atol=1e-6, rtol=1e-6)
    assert mean is not None
    assert abs(mean[0, 130, 130].double() - entropy[0].double().mean()) < 1e-6  # this window is the whole map


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_picks", "radius"), [(1, 0), (40, 1), (9, 3)])
@pytest.mark.parametrize("launches", [0, 2])
def test_picks_are_those_of_the_literal_loop(
    kind: str, num_picks: int, radius: int, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far the rounds of elimination come, and wherever the sorted candidates are cut into chunks."""
    monkeypatch.setattr(picks, "_MANY_PICKS", 1 if launches else 1 << 30)
    monkeypatch.setattr(picks, "_LAUNCHES", launches)
    monkeypatch.setattr(picks, "_ROUNDS", launches)
    monkeypatch.setattr(picks, "_SETTLED", 128)
    monkeypatch.setattr(picks, "_CHUNK", 64)
    score, available, tie = problem(kind, 13, 17)
    rule = [one if one is None else one.to(DEVICE) for one in (available, tie)]
    found = picks.greedy_places(score.to(DEVICE), num_picks, radius, *rule, [score.to(DEVICE)])
    assert found is not None
    expected = expected_picks(score, num_picks, radius, available, tie)
    assert np.stack(np.divmod(found.place.numpy(), 17), axis=1).tolist() == expected
    assert torch.equal(found.place_on_device.cpu(), found.place)
    assert found.values.tolist() == [[float(score[row, column]) for row, column in expected]]


def test_a_threshold_from_a_sample_leaves_enough_candidates_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picks, "_FEWEST", 64)
    score, tie = smooth(1, 71, 90)[0, 0].relu(), noise(71, 90, seed=2)
    seen = []
    gather = picks._gather_kernel.run
    monkeypatch.setattr(
        picks._gather_kernel, "run", lambda *args, **kinds: seen.append(args[5].shape[0]) or gather(*args, **kinds)
    )
    found = picks.greedy_places(score.to(DEVICE), 20, 3, None, tie.to(DEVICE))
    assert found is not None
    assert seen[0] < 71 * 90 / 2
    expected = expected_picks(score, 20, 3, None, tie)
    assert np.stack(np.divmod(found.place.numpy(), 90), axis=1).tolist() == expected


@pytest.mark.parametrize("kind", ["a plateau of everything", "a few above a plateau"])
def test_where_the_candidates_mislead_the_plain_code_decides(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "is_used", lambda *tensors: True)
    monkeypatch.setattr(fused, "kernels_on", lambda device: fused_cuda)
    monkeypatch.setattr(picks, "_FEWEST", 16)
    score, tie = torch.zeros(31, 40), torch.zeros(31, 40)
    if kind == "a few above a plateau":
        score[5:8, 5:9] = 1.0
    assert picks.greedy_places(score.to(DEVICE), 9, 2, None, tie.to(DEVICE)) is None
    got = greedy_picks(score.to(DEVICE), 9, 2, None, tie.to(DEVICE))
    assert got.tolist() == expected_picks(score, 9, 2, None, tie)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_kernels_compile(architecture: int) -> None:
    """For GPUs that need not be there, whose shared memory suffices."""
    script = Path(__file__).parents[1] / "support" / "compiled_kernels.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script, str(architecture)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["kernel"] for line in lines} == {
        name for module in (maps, windows, picks) for name in vars(module) if name.endswith("_kernel")
    }
    for line in lines:
        assert line["shared"] <= 48 << 10, line


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["trained", "piecewise smooth"])
@pytest.mark.parametrize(("radius", "pixel", "num_picks"), [(1, False, 257), (4, False, 29), (32, True, 6)])
def test_cuda_picks_where_the_cpu_picks(kind: str, radius: int, pixel: bool, num_picks: int) -> None:
    """Labels are equal; scores are up to rounding; picks are, from equal scores, to the bit."""
    size, logits = (512, 1024), network_output(kind)
    assert fused.is_used(logits.cuda())
    assert torch.equal(map_entropy_and_label(logits.cuda(), size)[1].cpu(), map_entropy_and_label(logits, size)[1])
    expected, got = (RipuScore(radius, pixel)(one, size, [0]) for one in (logits, logits.cuda()))
    assert got.tie_break is not None
    torch.testing.assert_close(got.score.cpu(), expected.score, atol=2e-6, rtol=1e-5)
    rule = (num_picks, radius if pixel else 2 * radius, None)
    found = greedy_picks(got.score[0], *rule, got.tie_break[0])
    assert found.tolist() == greedy_picks(got.score[0].cpu(), *rule, got.tie_break[0].cpu()).tolist()
    rows, columns = found.cpu().unbind(1)
    wanted_rows, wanted_columns = greedy_picks(expected.score[0], *rule, expected.tie_break[0]).unbind(1)  # type: ignore[index]
    torch.testing.assert_close(
        expected.score[0][rows, columns], expected.score[0][wanted_rows, wanted_columns], atol=1e-4, rtol=0
    )
