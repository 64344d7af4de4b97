"""ResNet-101 with output stride 8 and frozen batch norm, the backbone of both DeepLab networks.

The residual network of He et al. (CVPR 2016) as torchvision builds it (stride in the 3x3 convolution, its parameter
names), with layers 3 and 4 dilated instead of strided. As in the published runs the FIRST block of a dilated layer
keeps the dilation of the layer before: 1 then 2 in layer 3, 2 then 4 in layer 4.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.checkpoints import CheckpointError, load_backbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean on the 0..1 scale that torchvision's ImageNet weights expect."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation on the 0..1 scale that torchvision's ImageNet weights expect."""

IMAGENET_URL = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
"""torchvision's IMAGENET1K_V1 file."""

IMAGENET_FILES = ("resnet101-63fe2227.pth", "resnet101-5d3b4d8f.pth")
"""Names of that file in the cache: today's and, with the same values, the one that the published runs started from."""

LOW_CHANNELS = 256
"""Channels of the features of layer 1 (stride 4)."""

OUT_CHANNELS = 2048
"""Channels of the features of layer 4 (stride 8)."""


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants, in training mode too.

    y = x * s + (bias - running_mean * s) with s = weight / sqrt(running_var + eps). All four are buffers: they are saved
    and loaded but never trained. A new one is the identity (for eps = 0).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 0.0) -> None:
        """Make the identity.

        Args:
            num_features: Number of channels.
            eps: Added to the variance. 0 as in the published runs; torchvision trained its weights with 1e-5.
        """
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); result of the same shape and dtype."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        # One fused pass that keeps no copy of x for the backward pass. The cast matters under autocast, where x is of
        # half precision and the sum is not.
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1)).to(x.dtype)


class ResNet101(nn.Module):
    """ResNet-101 features of layer 1 (256 channels, stride 4) and layer 4 (2048 channels, stride 8)."""

    def __init__(self, weights: str | None = None, norm_eps: float = 0.0) -> None:
        """Build the backbone.

        Args:
            weights: ``None`` for random weights (Kaiming-normal by fan out, the last convolution of each of the 33
                blocks divided by the root of 33), ``"imagenet"`` for torchvision's ImageNet weights (from torch hub's
                cache, downloaded into it if need be), or the path of a torchvision ResNet-101 file.
            norm_eps: Epsilon of the frozen batch norms.

        Raises:
            CheckpointError: The weights cannot be downloaded, read or do not fit.
        """
        super().__init__()
        norm = partial(FrozenBatchNorm2d, eps=norm_eps)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        self.layer1 = _layer(64, 64, 3, norm)
        self.layer2 = _layer(256, 128, 4, norm, stride=2)
        self.layer3 = _layer(512, 256, 23, norm, first_dilation=1, dilation=2)
        self.layer4 = _layer(1024, 512, 3, norm, first_dilation=2, dilation=4)
        if weights is not None:
            load_backbone(self, imagenet_file() if weights == "imagenet" else weights)
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # New frozen norms are the identity, so nothing would hold back that each block doubles the variance: 2**33 in
        # all, and a loss of 1e5. Divided by the number of blocks, what they add stays of the order of the input.
        blocks = [module for module in self.modules() if isinstance(module, Bottleneck)]
        with torch.no_grad():
            for block in blocks:
                block.conv3.weight.mul_(len(blocks) ** -0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features of layer 1, (B, 256, ceil(H/4), ceil(W/4)), and of layer 4, (B, 2048, ceil(H/8), ceil(W/8))."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        low = self.layer1(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))
        return low, self.layer4(self.layer3(self.layer2(low)))


class Bottleneck(nn.Module):
    """Residual block: 1x1 reduction, 3x3 (strided or dilated), 1x1 expansion to four times ``planes``."""

    def __init__(
        self, in_channels: int, planes: int, norm: partial[FrozenBatchNorm2d], stride: int = 1, dilation: int = 1
    ) -> None:
        """Build the block; the shortcut is a strided 1x1 convolution where the shape changes, else the identity."""
        super().__init__()
        out_channels = 4 * planes
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 4 * planes, ceil(H/stride), ceil(W/stride)) of (B, in_channels, H, W)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)).add_(shortcut), inplace=True)


def imagenet_file() -> Path:
    """The torchvision ImageNet file of ResNet-101 in torch hub's cache, downloaded first if it is not there.

    Raises:
        CheckpointError: It is not in the cache and cannot be downloaded.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in IMAGENET_FILES:
        if (cache / name).is_file():
            return cache / name
    target = cache / IMAGENET_FILES[0]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        hash_prefix = target.stem.partition("-")[2]
        torch.hub.download_url_to_file(IMAGENET_URL, str(target), hash_prefix=hash_prefix)
    except (OSError, RuntimeError) as error:  # no network or no space; a download with the wrong hash
        raise CheckpointError(
            f"the ImageNet weights could not be downloaded from {IMAGENET_URL} ({error}); fetch that file elsewhere and "
            f"put it into {cache}, or give its path with model.weights=/path/to/resnet101-63fe2227.pth, or start from "
            "random weights with model.weights=null"
        ) from error
    return target


def _layer(
    in_channels: int,
    planes: int,
    num_blocks: int,
    norm: partial[FrozenBatchNorm2d],
    stride: int = 1,
    first_dilation: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    first = Bottleneck(in_channels, planes, norm, stride, first_dilation)
    return nn.Sequential(first, *(Bottleneck(4 * planes, planes, norm, 1, dilation) for _ in range(num_blocks - 1)))
