from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_cases import with_and_without_kernels  # noqa: F401
from reference import equations
from ripu.functional import (
    NonFiniteLogitsError,
    entropy_and_label,
    map_confidence_and_label,
    map_pixels,
    mean_of_views,
    pixel_entropy,
    pixels,
)
from ripu.functional.pixels import map_on_device


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 3, 4), (1, 19, 7, 9), (3, 5, 1, 8)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_matches_the_loop(shape: tuple[int, ...], scale: float) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * scale
    got = pixel_entropy(logits)
    assert got.dtype == torch.float32
    for b in range(shape[0]):
        np.testing.assert_allclose(got[b], equations.pixel_entropy(logits[b].double().numpy()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = (torch.randn(1, 6, 5, 7) * 4).to(dtype)
    torch.testing.assert_close(pixel_entropy(logits), pixel_entropy(logits.float()), atol=0, rtol=0)


def test_epsilon_is_the_released_variant() -> None:
    logits = torch.randn(1, 6, 4, 5) * 5
    expected = equations.pixel_entropy(logits[0].double().numpy(), epsilon=1e-6)
    np.testing.assert_allclose(pixel_entropy(logits, epsilon=1e-6)[0], expected, atol=1e-5)


@pytest.mark.parametrize("num_classes", [1, 2, 19, 150])
def test_uniform_is_log_of_the_classes_and_certain_is_zero(num_classes: int) -> None:
    uniform = pixel_entropy(torch.full((1, num_classes, 3, 3), 7.5))
    torch.testing.assert_close(uniform, torch.full_like(uniform, math.log(num_classes)), atol=1e-5, rtol=0)
    certain = torch.zeros(1, num_classes, 3, 3)
    certain[:, 0] = 1000.0
    assert (pixel_entropy(certain) == 0).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 21), st.floats(-1e4, 1e4))
def test_laws(seed: int, num_classes: int, shift: float) -> None:
    logits = torch.randn(1, num_classes, 4, 5, generator=torch.Generator().manual_seed(seed)) * 6
    got = pixel_entropy(logits)
    assert got.min() >= 0
    assert got.max() <= math.log(num_classes) + 1e-5
    torch.testing.assert_close(pixel_entropy(logits.flip(1)), got, atol=1e-5, rtol=0)
    torch.testing.assert_close(pixel_entropy(logits.flip(3)), got.flip(2), atol=1e-5, rtol=0)
    shifted = (logits.double() + shift).float()  # the shift itself rounds the logits
    exact = torch.distributions.Categorical(logits=shifted.double().movedim(1, -1)).entropy()
    torch.testing.assert_close(pixel_entropy(shifted).double(), exact, atol=1e-5, rtol=0)


def test_label_is_the_first_of_equal_logits() -> None:
    strip = torch.randint(0, 3, (19, 40, 41)).float() * 1e-3
    expected = strip.numpy().argmax(axis=0)
    _, label = entropy_and_label(strip.clone())
    assert np.array_equal(label.numpy(), expected)
    assert label.dtype == torch.uint8


def test_label_of_close_logits_is_exact() -> None:
    base = torch.full((3, 1, 64), 20.0)
    base[1] = torch.nextafter(torch.tensor(20.0), torch.tensor(30.0))
    assert (entropy_and_label(base)[1] == 1).all()
    tiny = torch.zeros(3, 1, 64)
    tiny[2] = 1e-30
    assert (entropy_and_label(tiny)[1] == 2).all()


def test_more_than_255_classes() -> None:
    logits = torch.randn(300, 5, 6)
    logits[299, 0, 0] = 50.0
    label = entropy_and_label(logits.clone())[1]
    assert torch.equal(label.long(), logits.argmax(0))


def planes(strip: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (strip[0], strip[-1])


@pytest.mark.parametrize("source", [(1, 1), (1, 5), (4, 1), (5, 7), (13, 9)])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (5, 7), (11, 17), (3, 4), (130, 20)])
def test_upsampling_is_bilinear_with_aligned_corners(source: tuple[int, int], size: tuple[int, int]) -> None:
    logits = torch.randn(2, 3, *source)
    first, last = map_pixels(logits, size, planes, (torch.float32, torch.float32))
    for b in range(2):
        np.testing.assert_allclose(first[b], equations.bilinear(logits[b, 0].double().numpy(), size), atol=1e-4)
        np.testing.assert_allclose(last[b], equations.bilinear(logits[b, -1].double().numpy(), size), atol=1e-4)


@pytest.mark.parametrize(("source", "size"), [((80, 160), (128, 256)), ((97, 55), (301, 143)), ((64, 64), (40, 50))])
def test_upsampling_is_that_of_interpolate(source: tuple[int, int], size: tuple[int, int]) -> None:
    logits = torch.randn(1, 4, *source)
    expected = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)
    first, last = map_pixels(logits, size, planes, (torch.float32, torch.float32))
    torch.testing.assert_close(first, expected[:, 0], atol=2e-6, rtol=0)
    torch.testing.assert_close(last, expected[:, -1], atol=2e-6, rtol=0)


def test_same_size_is_the_identity_and_leaves_the_input_alone() -> None:
    logits = torch.randn(1, 4, 9, 8)
    copy = logits.clone()
    first, _ = map_pixels(logits, (9, 8), planes, (torch.float32, torch.float32))
    assert torch.equal(first, logits[:, 0])
    pixel_entropy(logits)
    assert torch.equal(logits, copy)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [(6, 7), (13, 20), (2, 2)])
def test_logits_that_are_not_finite_are_named(value: float, size: tuple[int, int]) -> None:
    logits = torch.randn(4, 3, 6, 7)
    logits[1, 2, 5, 6] = value
    logits[3, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        map_pixels(logits, size, planes, (torch.float32, torch.float32))


def test_batch_and_threads_do_not_matter() -> None:
    logits = torch.randn(3, 19, 41, 37) * 5
    together = pixel_entropy(logits)
    for b in range(3):
        assert torch.equal(pixel_entropy(logits[b : b + 1])[0], together[b])
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if num_threads == 1 else 1)
        assert torch.equal(pixel_entropy(logits), together)
        assert torch.get_num_threads() != num_threads
    finally:
        torch.set_num_threads(num_threads)


def test_the_number_of_threads_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    pixel_entropy(torch.randn(4, 3, 50, 60))
    assert torch.get_num_threads() == before


def test_no_gradient_and_no_autocast() -> None:
    logits = torch.randn(1, 5, 6, 7, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pixel_entropy(logits)
    assert not got.requires_grad
    torch.testing.assert_close(got, pixel_entropy(logits.detach()), atol=0, rtol=0)


def test_inference_mode_is_fine() -> None:
    logits = torch.randn(2, 5, 6, 7)
    with torch.inference_mode():
        got = pixel_entropy(logits)
    assert torch.equal(got, pixel_entropy(logits))


@pytest.mark.parametrize(
    "logits", [torch.zeros(3, 4, 5), torch.zeros(1, 3, 4, 5, dtype=torch.long), torch.zeros(1, 0, 4, 5)]
)
def test_errors(logits: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="logits"):
        pixel_entropy(logits)


@pytest.mark.parametrize("size", [(40, 33), (7, 9), (13, 17), (13, 30), (1, 1), (26, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_operations_give_what_small_strips_give(
    size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What accelerators compute, computed here; on the meta device, which refuses operands of two devices, too."""
    logits = (torch.randn(2, 5, 13, 17) * 4).to(dtype)
    kinds = (torch.float32, torch.uint8)
    expected = map_pixels(logits, size, entropy_and_label, kinds)
    monkeypatch.setattr(pixels, "for_each", lambda task, jobs, device: [task(*job) for job in jobs])
    for device in ("cpu", "meta"):
        maps = [torch.empty((2, *size), dtype=kind, device=device) for kind in kinds]
        map_on_device(logits.to(device), maps, entropy_and_label)
        if device == "cpu":
            torch.testing.assert_close(maps[0], expected[0], atol=2e-6, rtol=1e-6)
            assert torch.equal(maps[1], expected[1])


def test_empty_batch() -> None:
    assert pixel_entropy(torch.empty(0, 3, 4, 5)).shape == (0, 4, 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_matches_cpu() -> None:
    logits = torch.randn(2, 19, 50, 60) * 5
    torch.testing.assert_close(pixel_entropy(logits.cuda()).cpu(), pixel_entropy(logits), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("num_classes", [1, 4, 19, 300])
def test_confidence_is_the_largest_mean_probability(num_views: int, num_classes: int) -> None:
    logits = torch.randn(2, num_views * num_classes, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    confidence, label = map_confidence_and_label(logits, (11, 9), num_views)
    sized = torch.nn.functional.interpolate(logits.double(), (11, 9), mode="bilinear", align_corners=True)
    probs = sized.view(2, num_views, num_classes, 11, 9).softmax(dim=2).mean(dim=1)
    assert label.dtype == (torch.uint8 if num_classes <= 255 else torch.int32)
    torch.testing.assert_close(confidence.double(), probs.amax(dim=1), atol=2e-6, rtol=0)
    torch.testing.assert_close(label.long(), probs.argmax(dim=1))


def test_both_kernels_predict_the_same_labels_of_several_views() -> None:
    logits = torch.randn(1, 2 * 19, 60, 70, generator=torch.Generator().manual_seed(0)) * 1e-6  # almost ties
    _, label = map_confidence_and_label(logits, (60, 70), 2)
    assert torch.equal(label[0], entropy_and_label(mean_of_views(logits[0].clone(), 2))[1])


def test_of_equal_probabilities_the_first_is_predicted() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0, 0] = -1.0
    _, label = map_confidence_and_label(logits, (2, 2))
    assert label.tolist() == [[[1, 1], [0, 0]]]
    _, label = map_confidence_and_label(logits.repeat(1, 2, 1, 1), (2, 2), 2)
    assert label.tolist() == [[[1, 1], [0, 0]]]


def test_predictions_of_broken_logits_are_refused() -> None:
    logits = torch.zeros(3, 2, 4, 4)
    logits[1, 0, 2, 2] = math.nan
    with pytest.raises(NonFiniteLogitsError, match=r"position\(s\) \[1\]"):
        map_confidence_and_label(logits, (8, 8))
