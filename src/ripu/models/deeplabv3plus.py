"""DeepLab-v3+ with ResNet-101 (Chen et al., ECCV 2018) as in the published RIPU runs.

The head is named and ordered like the ``classifier`` of the authors' released files. Its batch norms are frozen from
the start: they are the identity unless a file brings other values.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.resnet import IMAGENET_MEAN, IMAGENET_STD, LOW_CHANNELS, OUT_CHANNELS, FrozenBatchNorm2d, ResNet101

DILATIONS = (6, 12, 18)
"""Dilations of the separable branches, beside the 1x1 branch and image pooling."""

WIDTH = 512
"""Channels of each branch and of the decoder."""

SHORTCUT_WIDTH = 48
"""Channels of the shortcut from layer 1."""


class DeepLabV3Plus(nn.Module):
    """DeepLab-v3+: ResNet-101 at stride 8, separable ASPP, and a decoder with a shortcut from layer 1.

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
            norm_eps: Epsilon of the frozen batch norms, the head's included; 0 in the published runs.
            pretrained: False ignores ``weights``, for a network whose weights are loaded afterwards.

        Raises:
            CheckpointError: The weights cannot be downloaded, read or do not fit.
        """
        super().__init__()
        self.num_classes = num_classes
        self.backbone = ResNet101(weights if pretrained else None, norm_eps)
        self.head = SeparableASPPHead(num_classes, norm_eps)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, 3, H, W), for any H and W."""
        low, features = self.backbone(image)
        return F.interpolate(self.head(low, features), size=image.shape[-2:], mode="bilinear", align_corners=True)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the backbone and of the head; frozen batch norms have none."""
        return list(self.backbone.parameters()), list(self.head.parameters())


class SeparableASPPHead(nn.Module):
    """Depthwise-separable atrous spatial pyramid pooling and decoder; weights start Kaiming-normal (fan in)."""

    def __init__(self, num_classes: int, norm_eps: float = 0.0) -> None:
        """Build the head on the features of layers 1 and 4 of a `ResNet101`."""
        super().__init__()
        norm = partial(FrozenBatchNorm2d, eps=norm_eps)
        separable = (_separable(OUT_CHANNELS, WIDTH, dilation, norm) for dilation in DILATIONS)
        self.parallel_branches = nn.ModuleList([_conv_norm_relu(OUT_CHANNELS, WIDTH, 1, norm), *separable])
        self.global_branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(OUT_CHANNELS, WIDTH, 1, norm))
        num_branches = len(self.parallel_branches) + 1
        self.bottleneck = _conv_norm_relu(num_branches * WIDTH, WIDTH, 3, norm)
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
