"""The layers of a backbone: every parameter once, and in the order in which the network computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.layers import backbone_layers
from ripu.models.smp import LITE0, SmpNetwork
from tiny import TinyNetwork


def named(network: nn.Module, prefix: str = "") -> list[list[str]]:
    """The names of the parameters of each layer; checks that they are those of the backbone, each once."""
    known: Any = network
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    layers = backbone_layers(network)
    found = [names[id(parameter)] for layer in layers for parameter in layer]
    assert sorted(found) == sorted(names[id(parameter)] for parameter in known.parameter_groups()[0])
    assert all(layers)
    return [[names[id(parameter)].removeprefix(prefix) for parameter in layer] for layer in layers]


def parts(layers: list[list[str]], depth: int) -> list[list[str]]:
    """The first components of the names in each layer, without repetitions."""
    return [list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in layer)) for layer in layers]


def test_a_mix_transformer_begins_each_stage_with_its_patch_embedding() -> None:
    layers = named(SmpNetwork(3, "Segformer", "mit_b0", None), "net.encoder.")
    expected: list[list[str]] = []
    for stage in (1, 2, 3, 4):
        expected += [[f"patch_embed{stage}"], [f"block{stage}.0"], [f"block{stage}.1", f"norm{stage}"]]
    found = parts(layers, 2)
    assert [list(dict.fromkeys(one if "block" in one else one.split(".")[0] for one in layer)) for layer in found] == (
        expected
    )


def test_residual_networks_have_a_stem_and_blocks() -> None:
    stages = {1: 2, 2: 2, 3: 2, 4: 2}
    layers = named(SmpNetwork(3, "Unet", "resnet18", None), "net.encoder.")
    blocks = [[f"layer{stage}.{block}"] for stage, count in stages.items() for block in range(count)]
    assert layers[0] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert parts(layers[1:], 2) == blocks
    layers = named(SmpNetwork(3, "Unet", LITE0, None), "net.encoder.model.")
    assert layers[0] == ["conv_stem.weight", "bn1.weight", "bn1.bias"]
    counts = (1, 2, 2, 3, 3, 4, 1)
    assert parts(layers[1:], 3) == [[f"blocks.{s}.{b}"] for s, count in enumerate(counts) for b in range(count)]


def test_convnext_lowers_the_resolution_between_its_stages() -> None:
    layers = named(SmpNetwork(3, "Segformer", "tu-convnext_atto", None), "net.encoder.model.")
    assert parts(layers, 1)[0] == ["stem_0", "stem_1"]
    expected: list[list[str]] = []
    for stage, count in enumerate((2, 2, 6, 2)):
        expected += [[f"stages_{stage}.downsample.{part}" for part in (0, 1)]] if stage else []
        expected += [[f"stages_{stage}.blocks.{block}"] for block in range(count)]
    assert parts(layers[1:], 3) == expected


def test_frozen_norms_are_in_no_layer() -> None:
    with torch.device("meta"):
        network = DeepLabV2(3)
    layers = named(network, "backbone.")
    assert layers[0] == ["conv1.weight"]
    blocks = [[f"layer{stage}.{b}"] for stage, count in enumerate((3, 4, 23, 3), 1) for b in range(count)]
    assert parts(layers[1:], 2) == blocks
    frozen = SmpNetwork(3, "Unet", "resnet18", None, freeze_batchnorm="encoder")
    assert len(named(frozen)) == 9
    assert not any("bn" in name for layer in named(frozen) for name in layer)


class Backwards(nn.Module):
    """Layers that are registered in another order than they run in, with parameters of its own and one called late."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)])
        self.stem = nn.Conv2d(3, 4, 1)
        self.shift = nn.Parameter(torch.zeros(4, 1, 1))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image) + self.shift
        for block in reversed(self.blocks):
            features = block(features)
        logits: Tensor = self.head(self.last(features))
        return logits

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        inside = [parameter for name, parameter in self.named_parameters() if not name.startswith("head")]
        return inside, list(self.head.parameters())


def test_layers_come_as_they_run_and_nothing_is_changed() -> None:
    network = Backwards().train()
    network.blocks[0].eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    layers = named(network)
    assert parts(layers, 2) == [
        ["shift", "stem.weight", "stem.bias"],
        ["blocks.1"],
        ["blocks.0"],
        ["last.weight", "last.bias"],
    ]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert (network.training, network.blocks[0].training, network.blocks[1].training) == (True, False, True)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_networks_of_any_shape_have_layers() -> None:
    assert parts(named(TinyNetwork(3)), 1) == [["body", "norm"]]
    network = TinyNetwork(3)
    network.parameter_groups = lambda: ([], list(network.parameters()))  # type: ignore[method-assign]
    assert backbone_layers(network) == []


@pytest.mark.parametrize("encoder", ["vgg11", "densenet121", "xception", "mobilenet_v2", "tu-regnetx_002"])
def test_every_kind_of_encoder_has_several(encoder: str) -> None:
    assert len(named(SmpNetwork(3, "Unet", encoder, None))) > 4
