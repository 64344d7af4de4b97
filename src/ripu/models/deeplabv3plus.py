"""DeepLab-v3+ with ResNet-101 (Chen et al., ECCV 2018) as in the published RIPU runs.

The head is named and ordered like the ``classifier`` of the authors' released files. Its batch norms are frozen from
the start: they are the identity unless a file has other values.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.resnet import LOW_CHANNELS, OUT_CHANNELS, DeepLab, FrozenBatchNorm2d

DILATIONS = (6, 12, 18)  # of the separable branches, beside the 1x1 branch and image pooling
WIDTH = 512  # channels of each branch and of the decoder
SHORTCUT_WIDTH = 48  # channels of the shortcut from layer 1


class DeepLabV3Plus(DeepLab):
    """DeepLab-v3+: ResNet-101 at stride 8, separable ASPP, and a decoder with a shortcut from layer 1."""

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
        self.head = SeparableASPPHead(num_classes, norm_eps)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, bands, H, W), for any H and W."""
        low, features = self.backbone(image)
        return F.interpolate(self.head(low, features), size=image.shape[-2:], mode="bilinear", align_corners=True)


class SeparableASPPHead(nn.Module):
    """Depthwise-separable atrous spatial pyramid pooling and decoder; weights start Kaiming-normal (fan in)."""

    def __init__(self, num_classes: int, norm_eps: float = 0.0) -> None:
        super().__init__()
        norm = partial(FrozenBatchNorm2d, eps=norm_eps)
        separable = (_separable(OUT_CHANNELS, WIDTH, dilation, norm) for dilation in DILATIONS)
        self.parallel_branches = nn.ModuleList([_conv_norm_relu(OUT_CHANNELS, WIDTH, 1, norm), *separable])
        self.global_branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(OUT_CHANNELS, WIDTH, 1, norm))
        self.bottleneck = _conv_norm_relu((len(self.parallel_branches) + 1) * WIDTH, WIDTH, 3, norm)
        self.shortcut = _conv_norm_relu(LOW_CHANNELS, SHORTCUT_WIDTH, 1, norm)
        self.decoder = nn.Sequential(
            _separable(WIDTH + SHORTCUT_WIDTH, WIDTH, 1, norm),
            _separable(WIDTH, WIDTH, 1, norm),
            nn.Dropout2d(0.1),
            nn.Conv2d(WIDTH, num_classes, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, low: Tensor, features: Tensor) -> Tensor:
        """Return logits (B, C, h1, w1) of layer 1 (B, 256, h1, w1) and layer 4 (B, 2048, h4, w4)."""
        branches = [branch(features) for branch in self.parallel_branches]
        pooled = self.global_branch(features).expand_as(branches[0])
        context = self.bottleneck(torch.cat([*branches, pooled], dim=1))
        context = F.interpolate(context, size=low.shape[-2:], mode="bilinear", align_corners=True)
        logits: Tensor = self.decoder(torch.cat([context, self.shortcut(low)], dim=1))
        return logits


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, norm: partial[FrozenBatchNorm2d]
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, norm(out_channels), nn.ReLU(inplace=True))


def _separable(in_channels: int, out_channels: int, dilation: int, norm: partial[FrozenBatchNorm2d]) -> nn.Sequential:
    """Make a 3x3 convolution of each channel, then a 1x1 convolution across them, each with norm and ReLU."""
    block = nn.Sequential()
    block.depthwise_conv = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
    )
    block.depthwise_bn = norm(in_channels)
    block.depthwise_activate = nn.ReLU(inplace=True)
    block.pointwise_conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    block.pointwise_bn = norm(out_channels)
    block.pointwise_activate = nn.ReLU(inplace=True)
    return block
