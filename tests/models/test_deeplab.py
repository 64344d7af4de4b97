"""DeepLab-v2 and v3+ against the released layout and a literal functional forward pass in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ripu.models.checkpoints import to_released
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.deeplabv3plus import DeepLabV3Plus
from ripu.models.resnet import FrozenBatchNorm2d, ResNet101

BLOCKS = (3, 4, 23, 3)
NETWORKS = [DeepLabV2, DeepLabV3Plus]
FIRST_WEIGHTS = [0.020892050117254257, -0.2373581975698471, 0.00838188361376524, -0.01521315798163414]
Network = DeepLabV2 | DeepLabV3Plus
State = dict[str, Tensor]


# The released layout, by rule: file key -> shape.


def norm_table(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def backbone_table() -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm_table("bn1", 64)}
    channels = 64
    for layer, num_blocks in enumerate(BLOCKS, start=1):
        width = 32 * 2**layer
        for block in range(num_blocks):
            name = f"layer{layer}.{block}"
            table[f"{name}.conv1.weight"] = (width, channels, 1, 1)
            table[f"{name}.conv2.weight"] = (width, width, 3, 3)
            table[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            for norm, size in (("bn1", width), ("bn2", width), ("bn3", 4 * width)):
                table |= norm_table(f"{name}.{norm}", size)
            if block == 0:
                table[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                table |= norm_table(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    return table


def separable_table(name: str, inside: int, outside: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.depthwise_conv.weight": (inside, 1, 3, 3),
        **norm_table(f"{name}.depthwise_bn", inside),
        f"{name}.pointwise_conv.weight": (outside, inside, 1, 1),
        **norm_table(f"{name}.pointwise_bn", outside),
    }


def head_table(network: type[Network], num_classes: int) -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {}
    if network is DeepLabV2:
        for index in range(4):
            table[f"conv2d_list.{index}.weight"] = (num_classes, 2048, 3, 3)
            table[f"conv2d_list.{index}.bias"] = (num_classes,)
        return table
    table |= {"parallel_branches.0.0.weight": (512, 2048, 1, 1), **norm_table("parallel_branches.0.1", 512)}
    for index in (1, 2, 3):
        table |= separable_table(f"parallel_branches.{index}", 2048, 512)
    table |= {"global_branch.1.weight": (512, 2048, 1, 1), **norm_table("global_branch.2", 512)}
    table |= {"bottleneck.0.weight": (512, 5 * 512, 3, 3), **norm_table("bottleneck.1", 512)}
    table |= {"shortcut.0.weight": (48, 256, 1, 1), **norm_table("shortcut.1", 48)}
    table |= separable_table("decoder.0", 512 + 48, 512)
    table |= separable_table("decoder.1", 512, 512)
    return table | {"decoder.3.weight": (num_classes, 512, 1, 1), "decoder.3.bias": (num_classes,)}


# The published forward pass, written out on a state dict with the released keys.


def norm(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias, mean, var = (
        state[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / var.sqrt() * weight + bias


def reference_backbone(state: State, image: Tensor) -> tuple[Tensor, Tensor]:
    x = F.conv2d(image, state["backbone.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(state, "backbone.bn1", x).relu(), 3, 2, 1)
    outputs = []
    for layer, num_blocks in enumerate(BLOCKS, start=1):
        for block in range(num_blocks):
            name = f"backbone.layer{layer}.{block}"
            stride = 2 if (layer, block) == (2, 0) else 1
            dilation = {1: 1, 2: 1, 3: 1 if block == 0 else 2, 4: 2 if block == 0 else 4}[layer]
            y = norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
            y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=dilation, dilation=dilation)
            y = norm(state, f"{name}.bn2", y).relu()
            y = norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
            if block == 0:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(state, f"{name}.downsample.1", x)
            x = (x + y).relu()
        outputs.append(x)
    return outputs[0], outputs[3]


def conv_norm_relu(state: State, conv: str, bn: str, x: Tensor, dilation: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{conv}.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    return norm(state, bn, F.conv2d(x, weight, padding=padding, dilation=dilation, groups=groups)).relu()


def separable(state: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    x = conv_norm_relu(state, f"{name}.depthwise_conv", f"{name}.depthwise_bn", x, dilation, groups=x.shape[1])
    return conv_norm_relu(state, f"{name}.pointwise_conv", f"{name}.pointwise_bn", x)


def upsample(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def reference_v2(extractor: State, classifier: State, image: Tensor) -> Tensor:
    _, x = reference_backbone(extractor, image)
    branches = [
        F.conv2d(x, classifier[f"conv2d_list.{i}.weight"], classifier[f"conv2d_list.{i}.bias"], padding=d, dilation=d)
        for i, d in enumerate((6, 12, 18, 24))
    ]
    return upsample(torch.stack(branches).sum(0), image.shape[-2:])


def reference_v3plus(extractor: State, classifier: State, image: Tensor) -> Tensor:
    low, x = reference_backbone(extractor, image)
    branches = [conv_norm_relu(classifier, "parallel_branches.0.0", "parallel_branches.0.1", x)]
    branches += [separable(classifier, f"parallel_branches.{i}", x, d) for i, d in ((1, 6), (2, 12), (3, 18))]
    pooled = conv_norm_relu(classifier, "global_branch.1", "global_branch.2", x.mean((2, 3), keepdim=True))
    branches.append(upsample(pooled, x.shape[-2:]))
    context = conv_norm_relu(classifier, "bottleneck.0", "bottleneck.1", torch.cat(branches, 1))
    shortcut = conv_norm_relu(classifier, "shortcut.0", "shortcut.1", low)
    y = torch.cat([upsample(context, low.shape[-2:]), shortcut], 1)
    y = separable(classifier, "decoder.1", separable(classifier, "decoder.0", y))
    return upsample(F.conv2d(y, classifier["decoder.3.weight"], classifier["decoder.3.bias"]), image.shape[-2:])


def randomise_norms(network: nn.Module, generator: torch.Generator) -> None:
    """Random statistics; the last norm of a residual branch is small so that 33 blocks do not overflow."""
    for name, module in network.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            gain = 0.2 if name.endswith("bn3") else 1.0
            module.weight.copy_(gain * (0.5 + torch.rand(module.weight.shape, generator=generator)))
            module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
            module.running_mean.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
            module.running_var.copy_(0.5 + 1.5 * torch.rand(module.bias.shape, generator=generator))


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def network(request: pytest.FixtureRequest) -> Network:
    """A network with random weights and random batch-norm statistics, in evaluation mode."""
    torch.manual_seed(0)
    built: Network = request.param(num_classes=7)
    randomise_norms(built, torch.Generator().manual_seed(1))
    return built.eval()


def test_keys_and_shapes_are_those_of_the_released_files(network: Network) -> None:
    released = to_released(network)
    extractor = {key: tuple(value.shape) for key, value in released["feature_extractor"].items()}
    classifier = {key: tuple(value.shape) for key, value in released["classifier"].items()}
    assert extractor == {f"backbone.{key}": shape for key, shape in backbone_table().items()}
    assert classifier == head_table(type(network), 7)


def test_number_of_parameters(network: Network) -> None:
    backbone, head = network.parameter_groups()
    sizes = sum(parameter.numel() for parameter in backbone), sum(parameter.numel() for parameter in head)
    table = head_table(type(network), 7)
    expected = sum(
        math.prod(shape)
        for key, shape in table.items()
        if len(shape) == 4 or key.startswith("conv2d_list") or key == "decoder.3.bias"
    )
    # torchvision's 44,549,160 without the classifier's 2,049,000 and 105,344 batch-norm parameters.
    assert sizes == (42_394_816, expected)
    assert sizes[0] + sizes[1] == sum(parameter.numel() for parameter in network.parameters())
    assert {id(p) for p in backbone}.isdisjoint({id(p) for p in head})


def test_head_sizes_with_19_classes() -> None:
    sizes = [sum(parameter.numel() for parameter in built(19).parameter_groups()[1]) for built in NETWORKS]
    one_by_one = 2048 * 512 * 2  # the 1x1 branch and image pooling
    branches = 3 * (9 * 2048 + 2048 * 512)
    decoder = 9 * 560 + 560 * 512 + 9 * 512 + 512 * 512 + 512 * 19 + 19
    assert sizes == [4 * (9 * 2048 * 19 + 19), one_by_one + branches + 9 * 2560 * 512 + 256 * 48 + decoder]


def test_stride_dilation_and_padding_of_every_convolution(network: Network) -> None:
    expected = {"backbone.conv1": ((2, 2), (3, 3), (1, 1), 1)}
    for layer, num_blocks in enumerate(BLOCKS, start=1):
        for block in range(num_blocks):
            name = f"backbone.layer{layer}.{block}"
            stride = 2 if (layer, block) == (2, 0) else 1
            dilation = 1 if layer < 3 else 2 ** (layer - 2 - (block == 0))
            expected[f"{name}.conv1"] = expected[f"{name}.conv3"] = ((1, 1), (0, 0), (1, 1), 1)
            expected[f"{name}.conv2"] = ((stride, stride), (dilation, dilation), (dilation, dilation), 1)
            if block == 0:
                expected[f"{name}.downsample.0"] = ((stride, stride), (0, 0), (1, 1), 1)
    if isinstance(network, DeepLabV2):
        for index, dilation in enumerate((6, 12, 18, 24)):
            expected[f"head.conv2d_list.{index}"] = ((1, 1), (dilation, dilation), (dilation, dilation), 1)
    else:
        pointwise = ("parallel_branches.0.0", "global_branch.1", "shortcut.0", "decoder.3")
        expected |= {f"head.{name}": ((1, 1), (0, 0), (1, 1), 1) for name in pointwise}
        expected["head.bottleneck.0"] = ((1, 1), (1, 1), (1, 1), 1)
        blocks = [(f"parallel_branches.{i}", d, 2048) for i, d in ((1, 6), (2, 12), (3, 18))]
        for name, dilation, channels in [*blocks, ("decoder.0", 1, 560), ("decoder.1", 1, 512)]:
            square = (dilation, dilation)
            expected[f"head.{name}.depthwise_conv"] = ((1, 1), square, square, channels)
            expected[f"head.{name}.pointwise_conv"] = ((1, 1), (0, 0), (1, 1), 1)
    found = {
        name: (module.stride, module.padding, module.dilation, module.groups)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert found == expected


@pytest.mark.parametrize("size", [(97, 129), (64, 33)])
def test_logits_equal_the_literal_forward_pass(network: Network, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    released = to_released(network)
    extractor, classifier = (
        {key: value.double() for key, value in released[part].items()} for part in ("feature_extractor", "classifier")
    )
    reference = reference_v2 if isinstance(network, DeepLabV2) else reference_v3plus
    with torch.no_grad():
        logits, expected = network(image), reference(extractor, classifier, image.double())
    assert logits.dtype == torch.float32
    assert 0.1 < expected.std() < 100  # the weights are such that agreement says something
    assert (logits - expected).abs().max() < 1e-4


def test_backbone_equals_torchvision_without_epsilon() -> None:
    torch.manual_seed(3)
    backbone = ResNet101()
    randomise_norms(backbone, torch.Generator().manual_seed(4))
    theirs = torchvision.models.resnet101(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    missing, unexpected = theirs.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("fc.") or key.endswith("num_batches_tracked") for key in missing)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    image = torch.randn(1, 3, 65, 81)
    with torch.no_grad():
        low, out = backbone(image)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        their_low = theirs.layer1(x)
        their_out = theirs.layer4(theirs.layer3(theirs.layer2(their_low)))
    assert low.shape == (1, 256, 17, 21)
    assert out.shape == (1, 2048, 9, 11)
    torch.testing.assert_close(low, their_low, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out, their_out, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.1])
def test_frozen_norm_is_the_formula(eps: float) -> None:
    generator = torch.Generator().manual_seed(5)
    layer = FrozenBatchNorm2d(6, eps)
    randomise_norms(layer, generator)
    x = torch.randn(2, 6, 5, 3, generator=generator)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    expected = F.batch_norm(
        x.double(),
        *(before[key].double() for key in ("running_mean", "running_var", "weight", "bias")),
        training=False,
        eps=eps,
    )
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(x), expected.float())
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    assert not list(layer.parameters())
    assert torch.equal(FrozenBatchNorm2d(6, eps=0.0)(x), x)


def test_frozen_norm_keeps_half_precision() -> None:
    layer = FrozenBatchNorm2d(4, eps=0.0)
    randomise_norms(layer, torch.Generator().manual_seed(6))
    x = torch.randn(1, 4, 3, 3)
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("network_type", NETWORKS)
def test_training_step_trains_every_parameter_and_no_norm(network_type: type[Network]) -> None:
    torch.manual_seed(7)
    network = network_type(num_classes=5)
    randomise_norms(network, torch.Generator().manual_seed(8))
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.eval().train()
    network(torch.randn(2, 3, 49, 65)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert all(torch.equal(buffers[name], buffer) for name, buffer in network.named_buffers())


def test_training_mode_changes_only_the_dropout(network: Network) -> None:
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        evaluated = network(image)
        dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout2d)]
        network.train()
        for module in dropouts:
            module.eval()
        trained = network(image)
        network.eval()
    assert [module.p for module in dropouts] == ([] if isinstance(network, DeepLabV2) else [0.1])
    assert torch.equal(evaluated, trained)


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (33, 32), (90, 160)])
def test_any_input_size(network: Network, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = network(torch.randn(1, 3, *size))
    assert logits.shape == (1, 7, *size)
    assert logits.isfinite().all()


def test_autocast_runs_and_stays_close(network: Network) -> None:
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image)
    assert (half.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_a_seed_gives_the_weights_that_it_always_gave() -> None:
    torch.manual_seed(0)
    state = DeepLabV2(3).state_dict()
    found = [
        float(state[f"{name}.weight"].flatten()[0])
        for name in ("backbone.conv1", "backbone.layer1.0.conv1", "backbone.layer4.2.conv3", "head.conv2d_list.3")
    ]
    assert found == pytest.approx(FIRST_WEIGHTS, rel=1e-5)


def test_initial_weights() -> None:
    torch.manual_seed(9)
    v2, v3plus = DeepLabV2(19), DeepLabV3Plus(19)
    convs = {name: module for name, module in v2.backbone.named_modules() if isinstance(module, nn.Conv2d)}
    for name, blocks in (("conv1", 1), ("layer1.1.conv2", 1), ("layer4.2.conv3", 33)):
        conv = convs[name]
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert float(conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out / blocks), rel=0.05)
    for branch in v2.head.conv2d_list:
        assert float(branch.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
        assert float(branch.bias.detach().abs().max()) <= 1 / math.sqrt(9 * 2048)
    for name, module in v3plus.head.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels // module.groups * module.kernel_size[0] ** 2
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05), name
        if isinstance(module, FrozenBatchNorm2d):
            x = torch.randn(1, len(module.weight), 2, 2)
            assert torch.equal(module(x), x)


@pytest.mark.parametrize("network_type", [DeepLabV2, DeepLabV3Plus])
def test_random_weights_can_be_trained(network_type: type[Network]) -> None:
    torch.manual_seed(9)
    network = network_type(19)
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 64, 64))
    assert 0.01 < float(logits.std()) < 3.0  # a softmax that is not one-hot: the loss begins near log 19


def test_normalisation_and_epsilon(network: Network) -> None:
    assert network.mean == (0.485, 0.456, 0.406)
    assert network.std == (0.229, 0.224, 0.225)
    assert network.num_classes == 7
    norms = [module for module in type(network)(3, norm_eps=1e-5).modules() if isinstance(module, FrozenBatchNorm2d)]
    assert {module.eps for module in norms} == {1e-5}
    assert {module.eps for module in network.modules() if isinstance(module, FrozenBatchNorm2d)} == {0.0}
