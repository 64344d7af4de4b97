"""Networks for other bands than RGB: shapes, adapted weights and normalisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segmentation_models_pytorch.encoders._utils import patch_first_conv
from torch import nn

from ripu.io.errors import ConfigError
from ripu.models.bands import adapted, statistics
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.resnet import ResNet101
from ripu.models.smp import SmpNetwork


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 7])
def test_weights_are_adapted_as_in_segmentation_models_pytorch(in_channels: int) -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False))
    weight = layer[0].weight.detach().clone()
    patch_first_conv(layer, in_channels, pretrained=True)
    torch.testing.assert_close(adapted(weight, in_channels), layer[0].weight.detach(), rtol=0, atol=0)
    grey = torch.full((1, 3, 1, 1), 0.7)  # what all bands agree on, they mean together
    assert torch.allclose(adapted(grey, in_channels).sum(), grey.sum())


def test_the_packaged_weights_and_the_normalisation_follow() -> None:
    colour, four, one = (SmpNetwork(5, in_channels=bands) for bands in (3, 4, 1))
    first = next(colour.encoder.parameters()).detach()
    assert torch.equal(next(four.encoder.parameters()).detach(), adapted(first, 4))
    assert torch.equal(next(one.encoder.parameters()).detach(), first.sum(1, keepdim=True))
    assert (len(four.mean), len(one.std)) == (4, 1)
    assert four.eval()(torch.zeros(1, 4, 40, 64)).shape == (1, 5, 40, 64)
    assert statistics((0.3, 0.6, 0.9), 5) == (0.3, 0.6, 0.9, 0.3, 0.6)
    assert statistics((0.3, 0.6, 0.9), 1) == pytest.approx((0.6,))
    with pytest.raises(ConfigError, match=r"model\.mean=.*4 numbers"):
        SmpNetwork(5, weights=None, in_channels=4, mean=[0.5, 0.5, 0.5], std=[1, 1, 1, 1])


@pytest.mark.slow
def test_a_resnet_file_fits_a_deeplab_of_other_bands(tmp_path: Path) -> None:
    torch.save(ResNet101().state_dict(), tmp_path / "resnet101.pth")
    first = torch.load(tmp_path / "resnet101.pth", weights_only=True)["conv1.weight"]
    network = DeepLabV2(5, str(tmp_path / "resnet101.pth"), in_channels=4).eval()
    assert torch.equal(network.backbone.conv1.weight, adapted(first, 4))
    assert network.mean == (0.485, 0.456, 0.406, 0.485)
    assert network(torch.zeros(1, 4, 33, 41)).shape == (1, 5, 33, 41)
