"""The kernels for CUDA: on a GPU where there is one, otherwise in Triton's interpreter (tests/conftest.py)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import equations, picking
from ripu.acquisition import RipuScore
from ripu.acquisition.ripu import ripu_maps
from ripu.functional import (
    fused,
    label_dtype,
    map_entropy_and_label,
    map_pixels,
    pixel_entropy,
    region_impurity,
    window_table,
)
from ripu.selection.picks import greedy_picks, picks_and_values

triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
tl = pytest.importorskip("triton.language")
maps: ModuleType = pytest.importorskip("ripu.functional.fused.maps")
picks: ModuleType = pytest.importorskip("ripu.functional.fused.picks")
windows: ModuleType = pytest.importorskip("ripu.functional.fused.windows")
check: ModuleType = pytest.importorskip("ripu.functional.fused.check")

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a program of a hundred pixels as for one of a thousand."""
    if not HAS_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(maps, "_BLOCK", 2048)
        monkeypatch.setattr(windows, "_BLOCK", 1024)
        monkeypatch.setattr(windows, "_ROW", 16)
        monkeypatch.setattr(windows, "_ROW_LENGTH", 128)
        monkeypatch.setattr(picks, "_BLOCK", 512)
        monkeypatch.setattr(picks, "_SAMPLES", 1024)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Functions of the package compute by the kernels, on any device, until the context is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(fused, "is_used", lambda *tensors: True)
        yield patch


def noise(*shape: int, seed: int = 0, scale: float = 4.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def smooth(num_classes: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.interpolate(noise(1, num_classes, 5, 6, seed=seed), (height, width), mode="bicubic")


def by_kernels(logits: Tensor, size: tuple[int, int], epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    entropy, label, finite = maps.entropy_and_label(logits.to(DEVICE), size, epsilon, label_dtype(logits.shape[1]))
    finite.check()
    return entropy.cpu(), label.cpu()


@pytest.mark.parametrize(
    ("source", "size"),
    [((5, 7), (11, 17)), ((13, 9), (6, 5)), ((6, 7), (6, 7)), ((1, 1), (3, 4)), ((4, 5), (1, 1)), ((9, 4), (9, 31))],
)
@pytest.mark.parametrize("num_classes", [1, 6])
def test_entropy_and_label_match_the_loop_and_the_plain_code(
    source: tuple[int, int], size: tuple[int, int], num_classes: int
) -> None:
    logits = noise(2, num_classes, *source)
    entropy, label = by_kernels(logits, size)
    assert entropy.dtype == torch.float32
    expected = map_entropy_and_label(logits, size)
    torch.testing.assert_close(entropy, expected[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(label, expected[1])
    full = np.stack([equations.bilinear(plane, size) for plane in logits[1].double().numpy()])
    np.testing.assert_allclose(entropy[1], equations.pixel_entropy(full), atol=1e-5)
    np.testing.assert_array_equal(label[1], full.argmax(axis=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_other_dtypes_and_memory_formats(dtype: torch.dtype, epsilon: float) -> None:
    logits = noise(2, 5, 6, 9).to(dtype).contiguous(memory_format=torch.channels_last)
    entropy, label = by_kernels(logits, (13, 14), epsilon)
    expected = map_entropy_and_label(logits, (13, 14), epsilon)
    torch.testing.assert_close(entropy, expected[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(label, expected[1])


def test_labels_of_equal_logits_are_the_first_and_more_than_255_fit() -> None:
    logits = torch.zeros(1, 300, 3, 4)
    logits[0, 299, 1, 2] = logits[0, 7, 0, 0] = logits[0, 250, 0, 0] = 9.0
    entropy, label = by_kernels(logits, (3, 4))
    assert label.dtype == torch.int32
    assert torch.equal(label[0].long(), logits[0].argmax(dim=0))
    assert label[0, 0, 0] == 7
    assert (entropy[0, 2] - np.log(300)).abs().max() < 1e-5


def test_certain_pixels_are_exactly_zero() -> None:
    logits = torch.zeros(1, 4, 3, 3)
    logits[:, 1] = 1000.0
    assert (by_kernels(logits, (7, 7))[0] == 0).all()


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [(6, 7), (2, 2)])
def test_logits_that_are_not_finite_are_named(value: float, size: tuple[int, int], kernels: pytest.MonkeyPatch) -> None:
    logits = noise(4, 3, 6, 7)
    logits[1, 2, 5, 6] = value
    logits[3, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        map_entropy_and_label(logits.to(DEVICE), size)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        RipuScore(1)(logits.to(DEVICE), size, [0] * 4)


def label_of(num_classes: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    coarse = torch.randint(num_classes, (2, 1, 3, 4), generator=torch.Generator().manual_seed(seed))
    label = torch.nn.functional.interpolate(coarse.float(), size)[:, 0]
    label[0, 0, 0] = num_classes - 1
    return label.to(label_dtype(num_classes))


def windows_by_kernels(
    label: Tensor, entropy: Tensor | None, num_classes: int, radius: int, **kinds: Any
) -> tuple[Tensor | None, ...]:
    size = (label.shape[1], label.shape[2])
    table = window_table(size, num_classes, radius, DEVICE, kinds.get("epsilon", 0.0))
    entropy = None if entropy is None else entropy.to(DEVICE)
    found = windows.window_maps(label.to(DEVICE), entropy, num_classes, radius, table, **kinds)
    return tuple(None if one is None else one.cpu() for one in found)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (11, 13)])
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("num_classes", [1, 7])
def test_windows_match_the_loop(size: tuple[int, int], radius: int, num_classes: int) -> None:
    label, entropy = label_of(num_classes, size), noise(2, *size).abs().clamp(max=float(np.log(num_classes)))
    impurity, mean, score = windows_by_kernels(label, entropy, num_classes, radius)
    assert impurity is not None
    assert mean is not None
    assert score is not None
    for b in range(2):
        expected = equations.region_impurity(label[b].numpy(), num_classes, radius)
        np.testing.assert_allclose(impurity[b], expected, atol=1e-6)
        np.testing.assert_allclose(mean[b], equations.window_mean(entropy[b].double().numpy(), radius), atol=1e-6)
    assert torch.equal(score, impurity * mean)
    assert (impurity[torch.from_numpy(expected == 0)[None].expand(2, -1, -1) & (label == label[:, :1, :1])] >= 0).all()


@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("radius", [1, 3])
def test_maps_match_the_plain_code(pixel: bool, released: bool, radius: int) -> None:
    """Up to 3 x 3 pixels from equal entropies to the bit, otherwise up to the rounding of a sum."""
    size, num_classes = (21, 34), 19
    kinds = {"epsilon": 1e-6 if released else 0.0, "normalizer": 2.9 if released and not pixel else 1.0}
    logits = smooth(num_classes, 13, 20)
    expected = ripu_maps(logits, radius, size, pixel, **kinds)
    entropy, label = map_entropy_and_label(logits, size, kinds["epsilon"])
    found = windows_by_kernels(label, entropy, num_classes, radius, pixel=pixel, **kinds)
    for got, wanted in zip(found, (expected.impurity, expected.uncertainty, expected.score), strict=True):
        assert got is not None
        assert wanted is not None
        if radius == 1:
            assert torch.equal(got, wanted)
        else:
            torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("radius", [1, 4])
def test_pure_windows_are_exactly_zero_and_others_are_not(radius: int) -> None:
    label = torch.zeros(1, 12, 40, dtype=torch.uint8)
    label[:, :, 20:] = 3
    impurity, _, _ = windows_by_kernels(label, None, 19, radius)
    assert impurity is not None
    is_pure = torch.ones(40, dtype=torch.bool)
    is_pure[20 - radius : 20 + radius] = False
    assert (impurity[..., is_pure] == 0).all()
    assert (impurity[..., ~is_pure] > 0).all()


def test_tables_of_a_few_words_at_a_time_and_counts_above_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    size, num_classes, radius = (257, 261), 9, 140
    monkeypatch.setattr(windows, "_BLOCK", 1 << 15)
    monkeypatch.setattr(windows, "TABLE_BYTES", 3 * 8 * size[0] * size[1])  # of five words of two counts
    label, entropy = label_of(num_classes, size), noise(2, *size).abs().clamp(max=2.0)
    impurity, mean, _ = windows_by_kernels(label[:1], entropy[:1], num_classes, radius)
    torch.testing.assert_close(impurity, region_impurity(label[:1], num_classes, radius), atol=1e-6, rtol=1e-6)
    assert mean is not None
    assert abs(mean[0, 130, 130].double() - entropy[0].double().mean()) < 1e-6  # this window is the whole map


def test_many_classes(kernels: pytest.MonkeyPatch) -> None:
    label = torch.randint(300, (1, 9, 14), generator=torch.Generator().manual_seed(1))
    label[0, 3, 3] = 299
    got = [region_impurity(label.to(DEVICE), 300, radius).cpu() for radius in (1, 4)]
    kernels.undo()
    for radius, one in zip((1, 4), got, strict=True):
        torch.testing.assert_close(one, region_impurity(label, 300, radius), atol=1e-6, rtol=1e-6)


def test_tiny_entropies_keep_their_order() -> None:
    """They decide between pure windows."""
    entropy = torch.zeros(1, 9, 40)
    entropy[0, 4, 10], entropy[0, 4, 30] = 3e-13, 2e-13
    _, mean, _ = windows_by_kernels(torch.zeros(1, 9, 40, dtype=torch.uint8), entropy, 19, 3)
    assert mean is not None
    assert mean[0, 4, 10] > mean[0, 4, 30] > 0
    assert (mean[0, :, 15:25] == 0).all()


def expected_picks(score: Tensor, *rule: Any) -> list[list[int]]:
    num_picks, radius, available, tie = rule
    arrays = [None if one is None else one.cpu().numpy() for one in (available, tie)]
    return [list(one) for one in picking.greedy_picks(score.cpu().numpy(), num_picks, radius, *arrays)]


def problem(kind: str, height: int, width: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return scores, availability and tie breaks."""
    generator = torch.Generator().manual_seed(len(kind))
    score = smooth(1, height, width, seed=len(kind))[0, 0]
    tie = torch.randint(3, (height, width), generator=generator).float() - 1.0
    mask = torch.rand(height, width, generator=generator) < 0.6
    if kind == "plateaus":
        return score.div(3).round(), mask, tie
    if kind == "one plateau":
        return torch.zeros_like(score), None, None
    if kind == "signed zeros":
        return torch.where(mask, 0.0, -0.0), None, tie * 0.0
    if kind == "infinite":
        score[mask] = -torch.inf
        score[:2, ::5] = torch.inf
        return score, None, torch.where(tie > 0, torch.inf, -torch.inf)
    if kind == "nothing left":
        return torch.full_like(score, -torch.inf), mask, tie
    if kind == "nothing available":
        return score, torch.zeros_like(mask), None
    return score, mask if kind == "masked" else None, tie if kind == "masked" else None


KINDS = ["smooth", "masked", "plateaus", "one plateau", "signed zeros", "infinite", "nothing left", "nothing available"]


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_picked_as_they_are(dtype: torch.dtype) -> None:
    score, tie = noise(9, 14).to(dtype).to(DEVICE), noise(9, 14, seed=1).to(dtype).to(DEVICE)
    found = picks.greedy_places(score, 7, 1, None, tie)
    expected = expected_picks(score.float(), 7, 1, None, tie.float())
    assert np.stack(np.divmod(found.place.numpy(), 14), axis=1).tolist() == expected


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
def test_where_the_candidates_mislead_the_plain_code_decides(
    kind: str, kernels: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picks, "_FEWEST", 16)
    score, tie = torch.zeros(31, 40), torch.zeros(31, 40)
    if kind == "a few above a plateau":
        score[5:8, 5:9] = 1.0
    assert picks.greedy_places(score.to(DEVICE), 9, 2, None, tie.to(DEVICE)) is None
    got = greedy_picks(score.to(DEVICE), 9, 2, None, tie.to(DEVICE))
    assert got.tolist() == expected_picks(score, 9, 2, None, tie)


def test_functions_of_the_package_use_the_kernels(kernels: pytest.MonkeyPatch) -> None:
    logits, size = smooth(6, 9, 12), (17, 23)
    rule = (8, 2, torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.8)
    on_device = (*rule[:2], rule[2].to(DEVICE))
    scored = RipuScore(1)(logits.to(DEVICE), size, [0])
    assert scored.tie_break is scored.uncertainty
    assert scored.impurity is not None
    got = greedy_picks(scored.score[0], *on_device, scored.uncertainty[0])
    places, values = picks_and_values(
        scored.score[0], *on_device, scored.uncertainty[0], [scored.score[0], scored.impurity[0]]
    )
    entropy = pixel_entropy(logits.to(DEVICE)).cpu()
    kernels.undo()
    assert got.device.type == DEVICE.type
    assert got.tolist() == places.tolist() == greedy_picks(
        scored.score[0].cpu(), *rule, scored.uncertainty[0].cpu()
    ).tolist()  # fmt: skip
    rows, columns = got.cpu().unbind(1)
    assert torch.equal(torch.from_numpy(values[0]), scored.score[0].cpu()[rows, columns])
    assert torch.equal(torch.from_numpy(values[1]), scored.impurity[0].cpu()[rows, columns])
    torch.testing.assert_close(entropy, pixel_entropy(logits), atol=1e-6, rtol=1e-5)
    # Scores of another device differ by rounding; picks may, where two scores are closer than that.
    expected = RipuScore(1)(logits, size, [0])
    torch.testing.assert_close(scored.score.cpu(), expected.score, atol=1e-6, rtol=1e-5)


def test_errors_are_those_of_the_plain_code(kernels: pytest.MonkeyPatch) -> None:
    score = torch.rand(5, 6, device=DEVICE)
    score[2, 3] = torch.nan
    with pytest.raises(ValueError, match="row 2, column 3"):
        greedy_picks(score, 1, 0)
    with pytest.raises(ValueError, match="tie_break is NaN"):
        greedy_picks(torch.rand(5, 6, device=DEVICE), 1, 0, tie_break=score)
    with pytest.raises(ValueError, match="two positive numbers"):
        map_entropy_and_label(torch.zeros(1, 2, 3, 3, device=DEVICE), (0, 4))
    with pytest.raises(ValueError, match=r"outside 0 \.\. 2"):
        region_impurity(torch.full((1, 4, 5), 3, device=DEVICE), 3, 1)
    assert RipuScore(1)(torch.zeros(0, 3, 4, 5, device=DEVICE), (6, 7), []).score.shape == (0, 6, 7)
    assert greedy_picks(torch.empty(0, 5, device=DEVICE), 2, 1).shape == (0, 2)
    assert greedy_picks(torch.rand(4, 5, device=DEVICE), 0, 1).shape == (0, 2)


class Pretended:
    """A tensor of a GPU, as far as the decision looks at it."""

    is_cuda = True
    device = torch.device("cuda")


def test_one_place_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fused.is_used(torch.zeros(1))
    monkeypatch.setattr(fused, "_works", lambda device: True)
    assert fused.is_used(Pretended(), None)  # type: ignore[arg-type]
    assert not fused.is_used(Pretended(), torch.zeros(1))  # type: ignore[arg-type]
    monkeypatch.setenv("RIPU_FUSED", "0")
    assert not fused.is_used(Pretended())  # type: ignore[arg-type]
    monkeypatch.setenv("RIPU_FUSED", "1")
    try:
        torch.use_deterministic_algorithms(True)
        assert not fused.is_used(Pretended())  # type: ignore[arg-type]
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_machine_without_a_compiler_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(maps, "entropy_and_label", fails)
    fused._works.cache_clear()
    for _ in range(2):
        assert not fused._works(torch.device("cpu"))
    fused._works.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "the fused kernels do not run on cpu (RuntimeError: Failed to find C compiler.); plain torch computes instead"
    ]


def test_the_first_look_finds_no_difference() -> None:
    assert check.first_difference(DEVICE) is None


@pytest.mark.parametrize(
    ("module", "name", "wrong", "found"),
    [
        ("maps", "entropy_and_label", lambda made: (made[0] * 1.01, *made[1:]), "the entropy"),
        ("maps", "entropy_and_label", lambda made: (made[0], 4 - made[1], made[2]), "the label"),
        ("windows", "window_maps", lambda made: (made[0] + 0.01, *made[1:]), "the impurity for k = 1"),
        ("windows", "window_maps", lambda made: (made[0], made[1] + 0.01, made[2]), "the uncertainty for k = 1"),
        ("windows", "window_maps", lambda made: (*made[:2], made[2] + 0.01), "the score for k = 1"),
        ("picks", "greedy_places", lambda made: made._replace(place=made.place.flip(0)), "the picks with r = 1"),
    ],
)
def test_kernels_that_are_wrong_are_not_used(
    module: str,
    name: str,
    wrong: Callable[[Any], Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = getattr(getattr(check, module), name)
    monkeypatch.setattr(getattr(check, module), name, lambda *given: wrong(right(*given)))
    fused._works.cache_clear()
    assert not fused._works(DEVICE)
    fused._works.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        f"on {DEVICE}, the fused kernels and plain torch disagree about {found}; plain torch computes instead. Please "
        "report this with the output of: python -m torch.utils.collect_env"
    ]


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
    size, num_classes = (512, 1024), 19
    if kind == "trained":
        logits = torch.nn.functional.interpolate(noise(1, num_classes, 20, 40), (320, 640), mode="bicubic")
        logits = logits + noise(1, num_classes, 320, 640, seed=1, scale=0.3)
    else:
        coarse = torch.randint(num_classes, (1, 1, 8, 16), generator=torch.Generator().manual_seed(0))
        label = torch.nn.functional.interpolate(coarse.float(), (320, 640)).long()[:, 0]
        logits = torch.nn.functional.one_hot(label, num_classes).permute(0, 3, 1, 2) * 8.0
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
