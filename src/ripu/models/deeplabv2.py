"""DeepLab-v2 with ResNet-101 (Chen et al., TPAMI 2018) as in the published RIPU runs.

One scale, no CRF. The head is named and ordered like the ``classifier`` of the authors' released files.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.resnet import IMAGENET_MEAN, IMAGENET_STD, OUT_CHANNELS, ResNet101

DILATIONS = (6, 12, 18, 24)
"""Dilations of the four branches of the head."""


class DeepLabV2(nn.Module):
    """DeepLab-v2: ResNet-101 at stride 8 and the sum of four dilated 3x3 convolutions.

    Attributes:
        num_classes: Number of classes C.
        mean: RGB mean (0..1 scale) that inputs are normalised with.
        std: RGB standard deviation (0..1 scale) that inputs are normalised with.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __init__(
        self, num_classes: int, weights: str | None = None, norm_eps: float = 0.0, pretrained: bool = True
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            weights: Initial weights of the backbone: ``None`` (random), ``"imagenet"`` or the path of a torchvision
                ResNet-101 file.
            norm_eps: Epsilon of the frozen batch norms; 0 in the published runs.
            pretrained: False ignores ``weights``, for a network whose weights are loaded afterwards.

        Raises:
            CheckpointError: The weights cannot be downloaded, read or do not fit.
        """
        super().__init__()
        self.num_classes = num_classes
        self.backbone = ResNet101(weights if pretrained else None, norm_eps)
        self.head = DilatedSumHead(OUT_CHANNELS, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, 3, H, W), for any H and W."""
        _, features = self.backbone(image)
        return F.interpolate(self.head(features), size=image.shape[-2:], mode="bilinear", align_corners=True)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the backbone and of the head; frozen batch norms have none."""
        return list(self.backbone.parameters()), list(self.head.parameters())


class DilatedSumHead(nn.Module):
    """The sum of 3x3 convolutions of growing dilation; weights start as N(0, 0.01)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        """Build the head: one convolution with bias to ``num_classes`` channels for each of `DILATIONS`."""
        super().__init__()
        self.conv2d_list = nn.ModuleList()
        for dilation in DILATIONS:
            conv = nn.Conv2d(in_channels, num_classes, 3, padding=dilation, dilation=dilation)
            nn.init.normal_(conv.weight, std=0.01)
            self.conv2d_list.append(conv)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, in_channels, h, w)."""
        first, *others = self.conv2d_list
        logits: Tensor = first(features)
        for conv in others:
            logits = logits + conv(features)
        return logits
