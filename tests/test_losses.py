from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import losses as reference
from ripu.losses import (
    Softmax,
    consistency_loss,
    label_boundary,
    negative_learning_loss,
    supervised_loss,
    weighted_cross_entropy,
)

SIZES = [(1, 1), (1, 5), (4, 1), (3, 3), (5, 7), (9, 4)]


def logits_of(
    size: tuple[int, int], classes: int = 4, batch: int = 2, seed: int = 0, scale: float = 2.0
) -> torch.Tensor:
    return scale * torch.randn(batch, classes, *size, generator=torch.Generator().manual_seed(seed))


def label_of(size: tuple[int, int], classes: int = 4, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Ids in blobs, with some 255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (batch, 1, 1 + size[0] // 2, 1 + size[1] // 2), generator=generator).float()
    label = torch.nn.functional.interpolate(coarse, size, mode="nearest")[:, 0].long()
    label[torch.rand(label.shape, generator=generator) < 0.2] = 255
    return label


def gradient(loss: torch.Tensor, logits: torch.Tensor, **options: bool) -> torch.Tensor:
    (result,) = torch.autograd.grad(loss, logits, **options)
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("average", ["labelled", "all"])
def test_supervised_matches_the_loop(size: tuple[int, int], average: str) -> None:
    logits, label = logits_of(size), label_of(size)
    want = reference.supervised(logits.double().numpy(), label.numpy(), average)
    assert supervised_loss(logits, label.to(torch.uint8), average=average).item() == pytest.approx(want, abs=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("balance", [0.5, 1.0])
@pytest.mark.parametrize("average", ["labelled", "all"])
def test_class_weights_match_the_loop(average: str, balance: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, 6, 7, generator=generator)
    label = torch.randint(0, 4, (2, 6, 7), generator=generator)  # class 4 does not occur
    label[0, :4] = 0
    label[1, 2:] = 255
    want = reference.supervised(logits.double().numpy(), label.numpy(), average, balance)
    got = supervised_loss(logits, label, average=average, class_balance=balance)  # type: ignore[arg-type]
    assert got.item() == pytest.approx(want, abs=1e-5)
    assert got.item() != pytest.approx(supervised_loss(logits, label, average=average).item(), abs=1e-3)  # type: ignore[arg-type]
    shape = torch.tensor([[6, 7], [2, 7]])
    padded = supervised_loss(logits, label, class_balance=balance, shape=shape)
    assert padded.item() == pytest.approx(supervised_loss(logits, label, class_balance=balance).item(), abs=1e-6)
    nothing = supervised_loss(logits.requires_grad_(), torch.full_like(label, 255), class_balance=balance)
    nothing.backward()
    assert nothing.item() == 0.0
    assert not logits.grad.any()  # type: ignore[union-attr]


def test_full_balance_gives_every_class_the_same_share() -> None:
    """Three pixels of one class and one of another: the mean of the two means."""
    logits = torch.tensor([[[[2.0, 1.0, 0.5, -1.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    label = torch.tensor([[[0, 0, 0, 1]]])
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none").flatten()
    want = (losses[:3].mean() + losses[3]) / 2
    assert supervised_loss(logits, label, class_balance=1.0).item() == pytest.approx(want.item(), abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("boundary_only", [True, False])
@pytest.mark.parametrize("detector", ["neighbors", "laplacian"])
@pytest.mark.parametrize("border", ["clip", "replicate"])
def test_consistency_matches_the_loop(size: tuple[int, int], boundary_only: bool, detector: str, border: str) -> None:
    logits, label = logits_of(size, seed=1), label_of(size, seed=1)
    want = reference.consistency(logits.double().numpy(), label.numpy(), boundary_only, detector, border)
    got = consistency_loss(
        logits,
        label.to(torch.uint8),
        boundary_only,
        boundary_detector=detector,  # type: ignore[arg-type]
        border=border,  # type: ignore[arg-type]
    )
    assert got.item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threshold", [0.001, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_negative_matches_the_loop(size: tuple[int, int], threshold: float, epsilon: float) -> None:
    logits = logits_of(size, classes=6, seed=2)
    want = reference.negative(logits.double().numpy(), threshold, epsilon)
    assert negative_learning_loss(logits, threshold, epsilon=epsilon).item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, label = logits_of((5, 7), scale=3.0).to(dtype), label_of((5, 7))
    exact = logits.double().numpy()
    ours = (supervised_loss(logits, label), consistency_loss(logits, label), negative_learning_loss(logits))
    literal = (
        reference.supervised(exact, label.numpy(), "labelled"),
        reference.consistency(exact, label.numpy(), True, "neighbors", "clip"),
        reference.negative(exact, 0.05),
    )
    for got, want in zip(ours, literal, strict=True):
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("detector", ["neighbors", "laplacian"])
@pytest.mark.parametrize("size", SIZES)
def test_boundary_matches_the_loop(size: tuple[int, int], detector: str) -> None:
    label = label_of(size, seed=3)
    got = label_boundary(label.to(torch.uint8), detector=detector)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got.numpy(), reference.boundary(label.numpy(), detector))


def test_the_released_detector_misses_a_thin_class_between_its_neighbours() -> None:
    label = torch.tensor([1, 1, 2, 3, 3]).expand(1, 5, 5)
    assert label_boundary(label)[0, 2, 2]
    assert not label_boundary(label, detector="laplacian")[0, 2, 2]


def test_the_released_detector_takes_the_image_border_for_a_boundary() -> None:
    for value, is_boundary in ((0, False), (3, True)):
        label = torch.full((1, 4, 4), value)
        found = label_boundary(label, detector="laplacian")[0]
        assert found[0].all() == found[:, 0].all() == is_boundary
        assert not found[1:3, 1:3].any()
        assert not label_boundary(label).any()


def test_unlabelled_pixels_make_boundaries_but_are_none() -> None:
    label = torch.zeros(1, 3, 5, dtype=torch.uint8)
    label[0, 1, 2] = 255
    found = label_boundary(label)[0]
    assert not found[1, 2]
    assert found[0, 1:4].all()
    assert found[1, 1]
    assert not found[:, 0].any()


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits: supervised_loss(logits, torch.full((2, 5, 7), 255)),
        lambda logits: supervised_loss(logits, torch.full((2, 5, 7), 255), average="all"),
        lambda logits: consistency_loss(logits, torch.full((2, 5, 7), 2)),
        lambda logits: consistency_loss(logits, torch.full((2, 5, 7), 255)),
        lambda logits: consistency_loss(logits, torch.full((2, 5, 7), 255), boundary_detector="laplacian"),
        lambda logits: negative_learning_loss(logits * 0.0, 0.05),
    ],
    ids=[
        "nothing revealed",
        "nothing revealed, Eq. 8",
        "no boundary",
        "only void",
        "only void, laplacian",
        "none below",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_set_is_zero_with_zero_gradient(loss, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    logits = logits_of((5, 7)).to(dtype).requires_grad_()
    value = loss(logits)
    assert value.item() == 0.0
    assert torch.equal(gradient(value, logits), torch.zeros_like(logits))


def test_certain_predictions_give_no_nan() -> None:
    logits = torch.full((1, 3, 2, 2), -200.0)
    logits[:, 1] = 200.0  # probabilities are exactly 0, 1, 0 in float32
    logits.requires_grad_()
    label = torch.tensor([[[0, 1], [255, 2]]])
    for value in (supervised_loss(logits, label), consistency_loss(logits, label), negative_learning_loss(logits)):
        assert math.isfinite(value.item())
        assert gradient(value, logits).isfinite().all()
    assert negative_learning_loss(logits).item() == 0.0


def test_the_negative_mask_is_a_constant_for_the_gradient() -> None:
    logits = logits_of((4, 5), classes=6, seed=4).requires_grad_()
    with torch.no_grad():
        mask = (logits.softmax(1) < 0.05).float()
    frozen = -(mask * torch.log(1 - logits.softmax(1))).sum() / mask.sum()
    torch.testing.assert_close(gradient(negative_learning_loss(logits), logits), gradient(frozen, logits))


@pytest.mark.parametrize("name", ["supervised", "consistency", "negative"])
def test_gradients_are_slopes(name: str) -> None:
    logits, label = logits_of((3, 4), classes=5, batch=1, seed=5), label_of((3, 4), classes=5, batch=1, seed=5)

    def literal(values: np.ndarray) -> float:
        if name == "supervised":
            return reference.supervised(values, label.numpy(), "labelled")
        if name == "consistency":
            return reference.consistency(values, label.numpy(), True, "neighbors", "clip")
        return reference.negative(values, 0.05)

    losses = {
        "supervised": lambda x: supervised_loss(x, label),
        "consistency": lambda x: consistency_loss(x, label),
        "negative": lambda x: negative_learning_loss(x),
    }
    tensor = logits.clone().requires_grad_()
    slopes = gradient(losses[name](tensor), tensor).numpy().ravel()
    exact, step = logits.double().numpy(), 1e-6
    for place in range(0, exact.size, 7):
        up, down = exact.copy(), exact.copy()
        up.ravel()[place] += step
        down.ravel()[place] -= step
        assert slopes[place] == pytest.approx((literal(up) - literal(down)) / (2 * step), abs=1e-4)


def by_autograd(name: str, logits: torch.Tensor, label: torch.Tensor, option: object) -> torch.Tensor:
    """The sum of each loss in float64, differentiated by torch, over the number of its pixels or pairs."""
    log_probs = torch.log_softmax(logits, 1)
    probs = log_probs.exp()
    if name == "supervised":
        weight = torch.nn.functional.one_hot(label.clamp(max=9), 10).sum((0, 1, 2)).double().pow(-float(option))[:5]  # type: ignore[arg-type]
        weight = weight * (label != 255).sum() / weight[label[label != 255]].sum()
        return torch.nn.functional.cross_entropy(log_probs, label, weight, ignore_index=255, reduction="sum") / max(
            1, int((label != 255).sum())
        )
    if name == "consistency":
        mode = "replicate" if option == "replicate" else "constant"
        padded, ones = (torch.nn.functional.pad(x, (1, 1, 1, 1), mode=mode) for x in (probs, torch.ones_like(probs)))
        windows, sizes = (x.unfold(2, 3, 1).unfold(3, 3, 1).sum((-1, -2)) for x in (padded, ones))
        edge = label_boundary(label)
        return ((probs - windows / sizes).abs().sum(1) * edge).sum() / max(1, int(edge.sum()))
    below = probs.detach() < 0.05
    return -torch.log(1 - probs + float(option))[below].sum() / max(1, int(below.sum()))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [*SIZES, (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("supervised", 0.0),
        ("supervised", 0.7),
        ("consistency", "clip"),
        ("consistency", "replicate"),
        ("negative", 0.0),
        ("negative", 1e-6),
    ],
)
def test_gradients_are_those_of_the_formulas(
    name: str, option: object, size: tuple[int, int], dtype: torch.dtype
) -> None:
    logits = logits_of(size, classes=5, seed=6).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    label = label_of(size, classes=5, seed=6)
    losses = {
        "supervised": lambda: supervised_loss(logits, label, class_balance=option),  # type: ignore[arg-type]
        "consistency": lambda: consistency_loss(logits, label, border=option),  # type: ignore[arg-type]
        "negative": lambda: negative_learning_loss(logits, epsilon=option),  # type: ignore[arg-type]
    }
    got, want = gradient(2.0 * losses[name](), logits), gradient(2.0 * by_autograd(name, exact, label, option), exact)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=2e-6)


def test_weighted_cross_entropy_is_the_sum_over_labelled_pixels() -> None:
    logits, label = logits_of((5, 7), classes=5).requires_grad_(), label_of((5, 7), classes=5)
    weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(1))
    exact = logits.detach().double().requires_grad_()
    losses = torch.nn.functional.cross_entropy(exact, label, ignore_index=255, reduction="none")
    want, got = (losses * weight).sum(), weighted_cross_entropy(logits, label.to(torch.uint8), weight)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    torch.testing.assert_close(gradient(got, logits).double(), gradient(want, exact), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="resize the label"):
        weighted_cross_entropy(logits, label[:, :3], weight)


def test_losses_of_the_same_logits_share_a_softmax() -> None:
    """With it or without it, every bit of the losses and of the gradient is the same, and it is not changed."""
    logits, label = logits_of((9, 8), classes=5).requires_grad_(), label_of((9, 8), classes=5)
    shape = torch.tensor([[9, 8], [7, 5]])
    softmax = Softmax.of(logits)
    kept = softmax.probs.clone()
    losses = (
        lambda size, given: supervised_loss(logits, label, shape=size, softmax=given),
        lambda size, given: consistency_loss(logits, label, shape=size, softmax=given),
        lambda size, given: negative_learning_loss(logits, shape=size, softmax=given),
    )
    for loss, size in itertools.product(losses, (None, shape)):
        alone, shared = loss(size, None), loss(size, softmax)
        assert torch.equal(alone, shared)
        assert torch.equal(gradient(alone, logits), gradient(shared, logits, retain_graph=True))
        with torch.no_grad():
            assert torch.equal(loss(size, None), alone)
    assert torch.equal(kept, softmax.probs)


@pytest.mark.parametrize("sizes", [None, [[9, 8], [7, 5]]])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_joint_gradient_is_the_sum_of_the_gradients(
    dtype: torch.dtype, layout: torch.memory_format, sizes: list[list[int]] | None
) -> None:
    logits = logits_of((9, 8), classes=5).to(dtype, memory_format=layout).requires_grad_()
    label, shape = label_of((9, 8), classes=5), None if sizes is None else torch.tensor(sizes)
    weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(1))
    factors = (1.0, 0.1, 2.0, 0.5)

    def losses(softmax: Softmax | None) -> list[torch.Tensor]:
        return [
            supervised_loss(logits, label, class_balance=0.5, shape=shape, softmax=softmax),
            consistency_loss(logits, label, shape=shape, softmax=softmax),
            negative_learning_loss(logits, shape=shape, softmax=softmax),
            weighted_cross_entropy(logits, label, weight, softmax=softmax),
        ]

    parts = [gradient(factor * loss, logits).double() for factor, loss in zip(factors, losses(None), strict=True)]
    joint = losses(Softmax.of(logits))
    total = sum(factor * loss for factor, loss in zip(factors, joint, strict=True))
    for _ in range(2):  # nothing is left from one backward pass to the next
        got = gradient(total, logits, retain_graph=True)  # type: ignore[arg-type]
        assert got.dtype == dtype
        assert got.stride() == logits.stride()
        torch.testing.assert_close(got.double(), sum(parts), rtol=0.02 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(joint[2], logits).double(), parts[2] / 2.0, rtol=1e-5, atol=1e-9)


def test_the_logarithm_of_what_a_small_probability_leaves_keeps_its_bits() -> None:
    """Most pairs have a probability that 1 - P rounds away; their loss is P, not 0."""
    logits = torch.tensor([0.0, -20.0, -17.0, -8.0, -3.5])[None, :, None, None].expand(1, 5, 40, 50)
    want = reference.negative(logits.double().numpy(), 0.05)
    assert negative_learning_loss(logits).item() == pytest.approx(want, rel=3e-7)
    tiny = torch.tensor([0.0, -20.0])[None, :, None, None]
    assert negative_learning_loss(tiny).item() == pytest.approx(math.exp(-20.0), rel=1e-6)


def test_the_neighbour_mean_passes_its_gradient_on() -> None:
    """Eq. 9 pulls at both sides: a pixel outside the boundary gets gradient through its neighbours' mean."""
    logits = logits_of((1, 5), batch=1).requires_grad_()
    label = torch.tensor([[[0, 0, 0, 0, 1]]])
    slope = gradient(consistency_loss(logits, label), logits)
    assert slope[0, :, 0, 2].abs().sum() > 0
    assert slope[0, :, 0, 0].abs().sum() == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.floats(0.1, 20.0))
def test_laws(seed: int, height: int, width: int, classes: int, scale: float) -> None:
    logits = logits_of((height, width), classes, seed=seed, scale=scale)
    label = label_of((height, width), classes, seed=seed)
    shift = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = torch.cat([order.argsort(), torch.full((256 - classes,), 255)])[label]
    losses = {
        "supervised": (supervised_loss, math.inf),
        "consistency": (consistency_loss, 2.0),
        "negative": (lambda x, _: negative_learning_loss(x), -math.log(0.95)),
    }
    for loss, most in losses.values():
        value = loss(logits, label).item()
        assert 0.0 <= value <= most + 1e-6
        assert loss(logits + shift, label).item() == pytest.approx(value, abs=1e-4)  # softmax ignores a common shift
        assert loss(logits[:, order], renamed).item() == pytest.approx(value, abs=1e-4)  # names of classes
        assert loss(logits.flip(-1), label.flip(-1)).item() == pytest.approx(value, abs=1e-4)


def test_constant_predictions_are_consistent() -> None:
    logits = logits_of((1, 1)).expand(2, 4, 6, 7)
    assert consistency_loss(logits, label_of((6, 7)), boundary_only=False).item() == pytest.approx(0.0, abs=1e-6)


def test_bad_input_is_refused_with_its_name() -> None:
    logits, label = logits_of((4, 4)), label_of((4, 4))
    with pytest.raises(ValueError, match="resize the label"):
        supervised_loss(logits, label[:, :3])
    with pytest.raises(ValueError, match="resize the label"):
        consistency_loss(logits, label[:1])
    with pytest.raises(ValueError, match="'labelled' or 'all'"):
        supervised_loss(logits, label, average="pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'clip' or 'replicate'"):
        consistency_loss(logits, label, border="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'neighbors' or 'laplacian'"):
        label_boundary(label, detector="sobel")  # type: ignore[arg-type]
    for tau in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="tau"):
            negative_learning_loss(logits, tau)


def test_nan_reaches_every_loss() -> None:
    """Nothing that is wrong passes for a loss of 0."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1, 2, 2] = float("nan")
    assert negative_learning_loss(logits, threshold=0.05).isnan()
    assert supervised_loss(logits, torch.zeros(1, 4, 4, dtype=torch.uint8)).isnan()


@pytest.mark.parametrize("boundary_only", [True, False])
@pytest.mark.parametrize("border", ["clip", "replicate"])
@pytest.mark.parametrize("average", ["labelled", "all"])
def test_padding_counts_in_no_loss(boundary_only: bool, border: str, average: str) -> None:
    sizes = [(5, 7), (9, 4), (1, 6)]
    shape = torch.tensor(sizes)
    padded = torch.full((3, 4, 9, 7), float("nan"))  # whatever the network says there
    labels = torch.full((3, 9, 7), 255)
    alone = [(logits_of(size, batch=1, seed=at), label_of(size, batch=1, seed=at)) for at, size in enumerate(sizes)]
    for at, ((height, width), (logits, label)) in enumerate(zip(sizes, alone, strict=True)):
        padded[at, :, :height, :width], labels[at, :height, :width] = logits[0], label[0]
    padded.requires_grad_()

    def pooled(mean: list[float], counts: list[int]) -> float:
        return sum(one * count for one, count in zip(mean, counts, strict=True)) / max(1, sum(counts))

    pixels = [height * width for height, width in sizes]
    labelled = [int((label != 255).sum()) for _, label in alone]
    exact = [(logits.double().numpy(), label.numpy()) for logits, label in alone]
    edges = [int(label_boundary(label).sum()) for _, label in alone]
    below = [int((torch.softmax(logits, 1) < 0.05).sum()) for logits, _ in alone]
    got = (
        supervised_loss(padded, labels, average=average, shape=shape),  # type: ignore[arg-type]
        consistency_loss(padded, labels, boundary_only, border=border, shape=shape),  # type: ignore[arg-type]
        negative_learning_loss(padded, shape=shape),
    )
    want = (
        pooled([reference.supervised(*one, average) for one in exact], labelled if average == "labelled" else pixels),
        pooled(
            [reference.consistency(*one, boundary_only, "neighbors", border) for one in exact],
            edges if boundary_only else pixels,
        ),
        pooled([reference.negative(one[0], 0.05) for one in exact], below),
    )
    assert [loss.item() for loss in got] == pytest.approx(list(want), abs=1e-5)
    for loss in got:
        slopes = gradient(loss, padded)
        for at, (height, width) in enumerate(sizes):
            assert torch.isfinite(slopes[at, :, :height, :width]).all()
            assert not slopes[at, :, height:].any()
            assert not slopes[at, :, :, width:].any()
