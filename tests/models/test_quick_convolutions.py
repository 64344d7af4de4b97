"""The convolutions with own gradients have PyTorch's outputs and gradients, and are quicker on a CPU."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn

from ripu.models.quick_convolutions import KINDS, DilatedDepthwiseConv2d, PointwiseConv2d, quicken_convolutions
from ripu.models.smp import SmpNetwork


def depthwise(channels: int, size: int | tuple[int, int], dilation: int | tuple[int, int]) -> nn.Conv2d:
    sizes, rates = ((value, value) if isinstance(value, int) else value for value in (size, dilation))
    padding = tuple(rate * (one // 2) for one, rate in zip(sizes, rates, strict=True))
    return nn.Conv2d(channels, channels, sizes, padding=padding, dilation=rates, groups=channels, bias=False)


def gradients(layer: nn.Module, image: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    image = image.clone().requires_grad_()
    output = layer(image)
    of_image, of_weight = torch.autograd.grad(output, (image, layer.weight), upstream)
    return output.detach(), of_image, of_weight


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "dilation", "shape"),
    [
        (3, 2, (2, 6, 9, 7)),
        (5, 2, (2, 6, 12, 16)),
        (3, 12, (1, 6, 5, 8)),
        ((3, 5), (4, 2), (3, 6, 11, 10)),
        (1, 2, (1, 6, 4, 4)),
    ],
)
def test_outputs_and_gradients_are_those_of_the_reference_in_double_precision(
    size: int | tuple[int, int], dilation: int | tuple[int, int], shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    reference = depthwise(6, size, dilation)
    layer = copy.deepcopy(reference)
    assert quicken_convolutions(layer)[DilatedDepthwiseConv2d] == 1
    image = torch.randn(shape).contiguous(memory_format=layout)
    upstream = torch.randn(shape).contiguous(memory_format=layout)
    expected = gradients(reference.double(), image.double(), upstream.double())
    found = gradients(layer, image, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(layer(image), found[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 9, 7), (1, 6, 1, 1), (1, 6, 5, 8)])
def test_pointwise_outputs_and_gradients_are_those_of_the_reference(
    shape: tuple[int, ...], bias: bool, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    reference = nn.Conv2d(6, 10, 1, bias=bias)
    layer = copy.deepcopy(reference)
    assert quicken_convolutions(layer)[PointwiseConv2d] == 1
    image = torch.randn(shape).contiguous(memory_format=layout)
    upstream = torch.randn(shape[0], 10, *shape[2:]).contiguous(memory_format=layout)
    expected = gradients(reference.double(), image.double(), upstream.double())
    found = gradients(layer, image, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    assert layer(image).is_contiguous(memory_format=layout)


def test_only_what_needs_a_gradient_gets_one() -> None:
    layer = depthwise(4, 3, 2)
    quicken_convolutions(layer)
    layer.requires_grad_(False)
    image = torch.randn(1, 4, 8, 8, requires_grad=True)
    layer(image).sum().backward()
    assert image.grad is not None
    assert layer.weight.grad is None
    layer.requires_grad_(True)
    layer(image.detach()).sum().backward()
    assert layer.weight.grad is not None


def test_gradients_of_gradients_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    reference = depthwise(3, 3, 2)
    layer = copy.deepcopy(reference)
    quicken_convolutions(layer)
    found = []
    image = torch.randn(1, 3, 6, 5)
    for one in (layer, reference):
        given = image.clone().requires_grad_()
        of_image, of_weight = torch.autograd.grad(one(given).pow(3).sum(), (given, one.weight), create_graph=True)
        found.append(torch.autograd.grad(of_image.pow(2).sum() + of_weight.pow(2).sum(), (given, one.weight)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=True),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, stride=2),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, padding_mode="reflect"),
        nn.Conv2d(4, 4, 4, padding=4, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1, padding=1),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.Conv2d(4, 8, (1, 3)),
        nn.ConvTranspose2d(4, 8, 1),
    ],
)
def test_other_convolutions_are_left_alone(other: nn.Module) -> None:
    kind = type(other)
    assert not any(quicken_convolutions(nn.Sequential(other)).values())
    assert type(other) is kind


def test_autocast_and_double_precision_go_the_usual_way() -> None:
    layer = depthwise(4, 3, 2)
    quicken_convolutions(layer)
    image = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(image)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert layer.weight.grad is not None
    assert torch.autograd.gradcheck(layer.double(), (image.double().requires_grad_(),))


def test_the_default_network_learns_the_same_with_it() -> None:
    """The names of weights stay, so checkpoints do; gradients agree far closer than float32 needs."""
    torch.manual_seed(0)
    network = SmpNetwork(num_classes=5, weights=None).eval()
    plain = copy.deepcopy(network)
    own = [module for module in plain.modules() if isinstance(module, KINDS)]
    assert [sum(type(module) is kind for module in own) for kind in KINDS] == [7, 41]
    for module in own:
        module.__class__ = nn.Conv2d
    assert list(network.state_dict()) == list(plain.state_dict())
    image = torch.rand(1, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(network(image), plain(image))
    outputs = [one(image) for one in (network, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weight).sum().backward()
    for (name, one), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        error = (one.grad - other.grad).norm() / other.grad.norm().clamp(min=1e-6)
        assert error < 1e-4, (name, float(error))


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="measured on CPUs with AVX2 alone")
def test_gradients_are_quicker_than_those_of_pytorch() -> None:
    """Four times on a CPU with AVX2; a third of that is asked for, in one run, on one thread, the best of five."""
    reference = depthwise(1152, 5, 2)
    layer = copy.deepcopy(reference)
    quicken_convolutions(layer)
    image = torch.randn(2, 1152, 12, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for one in (reference, layer):
            best = []
            for _ in range(5):
                output = one(image).sum()
                begun = time.process_time()
                output.backward()
                best.append(time.process_time() - begun)
            seconds.append(min(best))
    finally:
        torch.set_num_threads(threads)
    assert seconds[1] < seconds[0] / 1.3, seconds
