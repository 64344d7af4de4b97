"""DeepLab-v2 with ResNet-101 (Chen et al., TPAMI 2018) as in the published RIPU runs.

One scale, no CRF. The head is named and ordered like the ``classifier`` of the authors' released files.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.resnet import OUT_CHANNELS, DeepLab

DILATIONS = (6, 12, 18, 24)


class DeepLabV2(DeepLab):
    """DeepLab-v2: ResNet-101 at stride 8 and the sum of four dilated 3x3 convolutions."""

    def __init__(
        self,
        num_classes: int,
        weights: str | None = None,
        norm_eps: float = 0.0,
        pretrained: bool = True,
        in_channels: int = 3,
        train_encoder: str = "all",
    ) -> None:
        """Build the network; see :class:`ripu.models.resnet.DeepLab`."""
        super().__init__(num_classes, weights, norm_eps, pretrained, in_channels, train_encoder)
        self.head = DilatedSumHead(OUT_CHANNELS, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, bands, H, W), for any H and W."""
        _, features = self.backbone(image)
        return F.interpolate(self.head(features), size=image.shape[-2:], mode="bilinear", align_corners=True)


class DilatedSumHead(nn.Module):
    """The sum of 3x3 convolutions with bias, one for each of `DILATIONS`; weights start as N(0, 0.01)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
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
