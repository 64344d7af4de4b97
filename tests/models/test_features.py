"""What the classifier of every network reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ripu.datasets.taxonomy import TAXONOMIES
from ripu.io.errors import ConfigError
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.deeplabv3plus import DeepLabV3Plus
from ripu.models.features import with_features
from ripu.models.interface import evaluating
from ripu.models.smp import SmpNetwork
from ripu.models.vit import ViTNetwork
from ripu.training.evaluation_module import EvaluationModule

SIZE = (50, 70)
SMP: dict[str, Any] = {"encoder": "resnet18", "weights": None}
ARCHITECTURES = ("DeepLabV3Plus", "Unet", "UnetPlusPlus", "FPN", "PSPNet", "Linknet", "MAnet", "UPerNet", "Segformer")
NETWORKS: dict[str, Any] = {
    "deeplabv2": lambda: DeepLabV2(5),
    "deeplabv3plus": lambda: DeepLabV3Plus(5),
    "vit": lambda: ViTNetwork(5, "vit_tiny_patch16_224", width=32),
    **{name: (lambda name=name: SmpNetwork(5, name, **SMP)) for name in ARCHITECTURES},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_follow_from_the_features(name: str) -> None:
    torch.manual_seed(0)
    network, image = NETWORKS[name](), torch.randn(2, 3, *SIZE)
    with torch.no_grad(), evaluating(network):
        whole = network(image)
        logits, features = with_features(network, image)
        assert torch.equal(logits, whole)
        assert features.shape[0] == 2
        assert features.shape[1] >= 16
        if name == "deeplabv2":
            final = network.head(features)
        elif name == "deeplabv3plus":
            final = network.head.decoder[-1](features)
        elif name == "vit":
            final = network.head.classifier(features)
        else:
            final = network.net.segmentation_head(features)
        if "deeplabv" in name:
            final = F.interpolate(final, SIZE, mode="bilinear", align_corners=True)
        elif name == "vit":
            final = F.interpolate(final, (64, 80), mode="bilinear", align_corners=False)
        torch.testing.assert_close(final[..., : SIZE[0], : SIZE[1]], whole, atol=1e-4, rtol=1e-4)
    assert not any(part._forward_hooks for part in network.modules())


def test_a_network_without_a_classifier_is_refused() -> None:
    class Tokens(nn.Module):
        num_classes = 5

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 5)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.head(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    with pytest.raises(ConfigError, match="no layer of Tokens returns a map of 5 channels"):
        with_features(Tokens(), torch.randn(1, 3, 4, 4))


def test_the_average_gives_its_own_features_and_says_what_they_cover() -> None:
    torch.manual_seed(0)
    taxonomy = next(iter(TAXONOMIES.values()))
    module = EvaluationModule(SmpNetwork(taxonomy.num_classes, "FPN", **SMP), taxonomy, average_decay=0.9).eval()
    assert module.average is not None
    with torch.no_grad():
        for parameter in module.average.network.parameters():
            parameter.add_(0.01)
        image = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
        logits, features = module.with_features(image)
        assert torch.equal(logits, module(image))
        assert features.extent == (64, 96)
        assert features.values.shape[2:] == (16, 24)
        assert not torch.equal(logits, with_features(module.network, module._normalised(image))[0])
