"""The fused kernels: those for CPUs where Numba is installed; those for CUDA on a GPU or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from kernel_cases import HAS_GPU, KINDS, expected_picks, label_of, noise, problem, smooth, use_large_blocks
from reference import equations
from ripu.acquisition import RipuScore
from ripu.acquisition.ripu import ripu_maps
from ripu.functional import fused, label_dtype, map_entropy_and_label, pixel_entropy, region_impurity
from ripu.functional.fused.check import first_difference
from ripu.selection.picks import greedy_picks, picks_and_values


class On(NamedTuple):
    """Kernels, and the device that they are tested on."""

    kernels: Any
    device: torch.device

    def maps(self, logits: Tensor, size: tuple[int, int], epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
        dtype = label_dtype(logits.shape[1])
        entropy, label, finite = self.kernels.entropy_and_label(logits.to(self.device), size, epsilon, dtype)
        finite.check()
        return entropy.cpu(), label.cpu()

    def windows(
        self, label: Tensor, entropy: Tensor | None, num_classes: int, radius: int, **kinds: Any
    ) -> tuple[Tensor | None, ...]:
        entropy = None if entropy is None else entropy.to(self.device)
        found = self.kernels.window_maps(label.to(self.device), entropy, num_classes, radius, **kinds)
        return tuple(None if one is None else one.cpu() for one in found)


@pytest.fixture(params=["cpu", "cuda"])
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> On:
    """Return kernels; functions of the package compute by the plain code."""
    monkeypatch.setenv(fused.SWITCH, "0")
    if request.param == "cuda":
        pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
        use_large_blocks(monkeypatch)
    else:
        pytest.importorskip("numba", reason="it comes with the extra fused")
    device = torch.device("cuda" if HAS_GPU and request.param == "cuda" else "cpu")
    return On(fused.kernels_on(torch.device(request.param)), device)


@pytest.fixture
def used(on: On, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let functions of the package compute by the kernels, on any device, until the context is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(fused, "is_used", lambda *tensors: True)
        patch.setattr(fused, "kernels_on", lambda device: on.kernels)
        yield patch


@pytest.mark.parametrize(
    ("source", "size"),
    [((5, 7), (11, 17)), ((13, 9), (6, 5)), ((6, 7), (6, 7)), ((1, 1), (3, 4)), ((4, 5), (1, 1)), ((9, 4), (9, 31))],
)
@pytest.mark.parametrize("num_classes", [1, 6])
def test_entropy_and_label_match_the_loop_and_the_plain_code(
    source: tuple[int, int], size: tuple[int, int], num_classes: int, on: On
) -> None:
    logits = noise(2, num_classes, *source)
    entropy, label = on.maps(logits, size)
    assert entropy.dtype == torch.float32
    expected = map_entropy_and_label(logits, size)
    torch.testing.assert_close(entropy, expected[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(label, expected[1])
    full = np.stack([equations.bilinear(plane, size) for plane in logits[1].double().numpy()])
    np.testing.assert_allclose(entropy[1], equations.pixel_entropy(full), atol=1e-5)
    np.testing.assert_array_equal(label[1], full.argmax(axis=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_other_dtypes_and_memory_formats(dtype: torch.dtype, epsilon: float, on: On) -> None:
    logits = noise(2, 5, 6, 9).to(dtype).contiguous(memory_format=torch.channels_last)
    entropy, label = on.maps(logits, (13, 14), epsilon)
    expected = map_entropy_and_label(logits, (13, 14), epsilon)
    torch.testing.assert_close(entropy, expected[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(label, expected[1])


def test_labels_of_equal_logits_are_the_first_and_more_than_255_fit(on: On) -> None:
    logits = torch.zeros(1, 300, 3, 4)
    logits[0, 299, 1, 2] = logits[0, 7, 0, 0] = logits[0, 250, 0, 0] = 9.0
    entropy, label = on.maps(logits, (3, 4))
    assert label.dtype == torch.int32
    assert torch.equal(label[0].long(), logits[0].argmax(dim=0))
    assert label[0, 0, 0] == 7
    assert (entropy[0, 2] - np.log(300)).abs().max() < 1e-5


def test_certain_pixels_are_exactly_zero(on: On) -> None:
    logits = torch.zeros(1, 4, 3, 3)
    logits[:, 1] = 1000.0
    assert (on.maps(logits, (7, 7))[0] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [(6, 7), (2, 2)])
def test_logits_that_are_not_finite_are_named(
    value: float, size: tuple[int, int], on: On, used: pytest.MonkeyPatch
) -> None:
    logits = noise(4, 3, 6, 7)
    logits[1, 2, 5, 6] = value
    logits[3, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        map_entropy_and_label(logits.to(on.device), size)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        RipuScore(1)(logits.to(on.device), size, [0] * 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (11, 13)])
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("num_classes", [1, 7])
def test_windows_match_the_loop(size: tuple[int, int], radius: int, num_classes: int, on: On) -> None:
    label, entropy = label_of(num_classes, size), noise(2, *size).abs().clamp(max=float(np.log(num_classes)))
    impurity, mean, score = on.windows(label, entropy, num_classes, radius)
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
def test_maps_match_the_plain_code(pixel: bool, released: bool, radius: int, on: On) -> None:
    """Up to 3 x 3 pixels from equal entropies to the bit, otherwise up to the rounding of a sum."""
    size, num_classes = (21, 34), 19
    kinds = {"epsilon": 1e-6 if released else 0.0, "normalizer": 2.9 if released and not pixel else 1.0}
    logits = smooth(num_classes, 13, 20)
    expected = ripu_maps(logits, radius, size, pixel, **kinds)
    entropy, label = map_entropy_and_label(logits, size, kinds["epsilon"])
    found = on.windows(label, entropy, num_classes, radius, pixel=pixel, **kinds)
    for got, wanted in zip(found, (expected.impurity, expected.uncertainty, expected.score), strict=True):
        assert got is not None
        assert wanted is not None
        if radius == 1:
            assert torch.equal(got, wanted)
        else:
            torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("radius", [1, 4])
def test_pure_windows_are_exactly_zero_and_others_are_not(radius: int, on: On) -> None:
    label = torch.zeros(1, 12, 40, dtype=torch.uint8)
    label[:, :, 20:] = 3
    impurity, _, _ = on.windows(label, None, 19, radius)
    assert impurity is not None
    is_pure = torch.ones(40, dtype=torch.bool)
    is_pure[20 - radius : 20 + radius] = False
    assert (impurity[..., is_pure] == 0).all()
    assert (impurity[..., ~is_pure] > 0).all()


def test_many_classes(on: On, used: pytest.MonkeyPatch) -> None:
    label = torch.randint(300, (1, 9, 14), generator=torch.Generator().manual_seed(1))
    label[0, 3, 3] = 299
    got = [region_impurity(label.to(on.device), 300, radius).cpu() for radius in (1, 4)]
    used.undo()
    for radius, one in zip((1, 4), got, strict=True):
        torch.testing.assert_close(one, region_impurity(label, 300, radius), atol=1e-6, rtol=1e-6)


def test_tiny_entropies_keep_their_order(on: On) -> None:
    """They decide between pure windows."""
    entropy = torch.zeros(1, 9, 40)
    entropy[0, 4, 10], entropy[0, 4, 30] = 3e-13, 2e-13
    _, mean, _ = on.windows(torch.zeros(1, 9, 40, dtype=torch.uint8), entropy, 19, 3)
    assert mean is not None
    assert mean[0, 4, 10] > mean[0, 4, 30] > 0
    assert (mean[0, :, 15:25] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_picks", "radius"), [(1, 0), (40, 1), (9, 3)])
def test_picks_are_those_of_the_literal_loop(kind: str, num_picks: int, radius: int, on: On) -> None:
    score, available, tie = problem(kind, 13, 17)
    rule = [one if one is None else one.to(on.device) for one in (available, tie)]
    found = on.kernels.greedy_places(score.to(on.device), num_picks, radius, *rule, [score.to(on.device)])
    assert found is not None
    expected = expected_picks(score, num_picks, radius, available, tie)
    assert np.stack(np.divmod(found.place.numpy(), 17), axis=1).tolist() == expected
    assert torch.equal(found.place_on_device.cpu(), found.place)
    assert found.values.tolist() == [[float(score[row, column]) for row, column in expected]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_picked_as_they_are(dtype: torch.dtype, on: On) -> None:
    score, tie = noise(9, 14).to(dtype).to(on.device), noise(9, 14, seed=1).to(dtype).to(on.device)
    found = on.kernels.greedy_places(score, 7, 1, None, tie)
    expected = expected_picks(score.float(), 7, 1, None, tie.float())
    assert np.stack(np.divmod(found.place.numpy(), 14), axis=1).tolist() == expected


def test_functions_of_the_package_use_the_kernels(on: On, used: pytest.MonkeyPatch) -> None:
    logits, size = smooth(6, 9, 12), (17, 23)
    rule = (8, 2, torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.8)
    on_device = (*rule[:2], rule[2].to(on.device))
    scored = RipuScore(1)(logits.to(on.device), size, [0])
    assert scored.tie_break is scored.uncertainty
    assert scored.impurity is not None
    got = greedy_picks(scored.score[0], *on_device, scored.uncertainty[0])
    places, values = picks_and_values(
        scored.score[0], *on_device, scored.uncertainty[0], [scored.score[0], scored.impurity[0]]
    )
    entropy = pixel_entropy(logits.to(on.device)).cpu()
    used.undo()
    assert got.device.type == on.device.type
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


def test_errors_are_those_of_the_plain_code(on: On, used: pytest.MonkeyPatch) -> None:
    score = torch.rand(5, 6, device=on.device)
    score[2, 3] = torch.nan
    with pytest.raises(ValueError, match="row 2, column 3"):
        greedy_picks(score, 1, 0)
    with pytest.raises(ValueError, match="tie_break is NaN"):
        greedy_picks(torch.rand(5, 6, device=on.device), 1, 0, tie_break=score)
    with pytest.raises(ValueError, match="two positive numbers"):
        map_entropy_and_label(torch.zeros(1, 2, 3, 3, device=on.device), (0, 4))
    with pytest.raises(ValueError, match=r"outside 0 \.\. 2"):
        region_impurity(torch.full((1, 4, 5), 3, device=on.device), 3, 1)
    assert RipuScore(1)(torch.zeros(0, 3, 4, 5, device=on.device), (6, 7), []).score.shape == (0, 6, 7)
    assert greedy_picks(torch.empty(0, 5, device=on.device), 2, 1).shape == (0, 2)
    assert greedy_picks(torch.rand(4, 5, device=on.device), 0, 1).shape == (0, 2)


def test_the_first_look_finds_no_difference(on: On) -> None:
    assert first_difference(on.kernels, on.device) is None


@pytest.mark.parametrize(
    ("name", "wrong", "found"),
    [
        ("entropy_and_label", lambda made: (made[0] * 1.01, *made[1:]), "the entropy"),
        ("entropy_and_label", lambda made: (made[0], 4 - made[1], made[2]), "the label"),
        ("window_maps", lambda made: (made[0] + 0.01, *made[1:]), "the impurity for k = 1"),
        ("window_maps", lambda made: (made[0], made[1] + 0.01, made[2]), "the uncertainty for k = 1"),
        ("window_maps", lambda made: (*made[:2], made[2] + 0.01), "the score for k = 1"),
        ("greedy_places", lambda made: made._replace(place=made.place.flip(0)), "the picks with r = 1"),
    ],
)
def test_kernels_that_are_wrong_are_not_used(
    name: str,
    wrong: Callable[[Any], Any],
    found: str,
    on: On,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = getattr(on.kernels, name)
    monkeypatch.setattr(on.kernels, name, lambda *given: wrong(right(*given)))
    monkeypatch.setattr(fused, "kernels_on", lambda device: on.kernels)
    fused._works.cache_clear()
    assert not fused._works(on.device)
    fused._works.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        f"on {on.device}, the fused kernels and plain torch disagree about {found}; plain torch computes instead. "
        "Please report this with the output of: python -m torch.utils.collect_env"
    ]


def test_a_machine_without_a_compiler_is_told_once(
    on: On, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(on.kernels, "entropy_and_label", fails)
    monkeypatch.setattr(fused, "kernels_on", lambda device: on.kernels)
    fused._works.cache_clear()
    for _ in range(2):
        assert not fused._works(torch.device("cpu"))
    fused._works.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "the fused kernels do not run on cpu (RuntimeError: Failed to find C compiler.); plain torch computes instead"
    ]


class Pretended:
    """A tensor of a GPU, as far as the decision looks at it."""

    device = torch.device("cuda")


def test_one_place_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: Any = Pretended()
    cpu = torch.zeros(1)
    monkeypatch.setattr(fused, "_works", lambda device: True)
    monkeypatch.setattr(fused, "_has_numba", lambda: True)
    assert fused.is_used(gpu, None)
    assert fused.is_used(cpu, None)
    assert not fused.is_used(gpu, cpu)
    assert not fused.is_used(torch.zeros(1, device="meta"))
    try:
        torch.use_deterministic_algorithms(True)
        assert not fused.is_used(gpu)
        assert fused.is_used(cpu)
    finally:
        torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(fused, "_has_numba", lambda: False)
    assert not fused.is_used(cpu)
    monkeypatch.setattr(fused, "_has_numba", lambda: True)
    monkeypatch.setenv("RIPU_FUSED", "0")
    assert not fused.is_used(gpu)
    assert not fused.is_used(cpu)


def test_a_result_says_what_compiled_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba", reason="it comes with the extra fused")
    assert fused.compiler("cpu") == f"numba {numba.__version__}"
    assert fused.compiler("mps") is None
    monkeypatch.setenv(fused.SWITCH, "0")
    assert fused.compiler("cpu") is None
