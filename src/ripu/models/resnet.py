"""torchvision's ResNet-101 with output stride 8 and frozen batch norm, the backbone of both DeepLab networks.

Layers 3 and 4 are dilated instead of strided. As in the published runs the FIRST block of a dilated layer keeps the
dilation of the layer before: 1 then 2 in layer 3, 2 then 4 in layer 4.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.resnet import Bottleneck, ResNet

from ripu.models.bands import statistics
from ripu.models.checkpoints import CheckpointError, load_encoder
from ripu.models.lora import train_only

IMAGENET_URL = "https://download.pytorch.org/models/resnet101-63fe2227.pth"  # torchvision's IMAGENET1K_V1
# Its names in the cache: today's and, with the same values, the name that the published runs started from
IMAGENET_FILES = ("resnet101-63fe2227.pth", "resnet101-5d3b4d8f.pth")

LOW_CHANNELS = 256  # of the features of layer 1 (stride 4)
OUT_CHANNELS = 2048  # of the features of layer 4 (stride 8)
NUM_BLOCKS = (3, 4, 23, 3)  # residual blocks of each layer


class FrozenBatchNorm2d(ops.FrozenBatchNorm2d):  # type: ignore[misc]
    """torchvision's frozen batch norm in one fused pass that keeps half precision under autocast.

    ``eps`` is 0 in the published runs; torchvision trained its weights with 1e-5.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); the result has the same shape and dtype."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1)).to(x.dtype)


class ResNet101(ResNet):  # type: ignore[misc]
    """ResNet-101 features of layer 1 (256 channels, stride 4) and layer 4 (2048 channels, stride 8)."""

    def __init__(self, weights: str | None = None, norm_eps: float = 0.0, in_channels: int = 3) -> None:
        """Build the backbone.

        Args:
            weights: ``None`` for random weights (Kaiming-normal by fan out, the last convolution of each of the 33
                blocks divided by the root of 33), ``"imagenet"`` for torchvision's ImageNet weights (from torch hub's
                cache, downloaded into it if need be), or the path of a ResNet-101 file.
            norm_eps: Epsilon of the frozen batch norms.
            in_channels: Bands of the input; see :func:`ripu.models.bands.adapted`.
        """
        with warnings.catch_warnings():  # the classifier, dropped below, has no weights that would use random numbers
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            super().__init__(
                Bottleneck,
                list(NUM_BLOCKS),
                num_classes=0,
                replace_stride_with_dilation=[False, True, True],
                norm_layer=partial(FrozenBatchNorm2d, eps=norm_eps),
            )
        del self.avgpool, self.fc
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_encoder(self, imagenet_file() if weights == "imagenet" else weights)
            return
        # New frozen norms are the identity, so each block would double the variance: by 2**33 in total, with a loss of
        # 1e5. Divided by the number of blocks, the sum of the residuals stays of the order of the input.
        with torch.no_grad():
            for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
                for block in layer:
                    block.conv3.weight.mul_(sum(NUM_BLOCKS) ** -0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of layer 1, (B, 256, ceil(H/4), ceil(W/4)), and layer 4, (B, 2048, ceil(H/8), ceil(W/8))."""
        low = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        return low, self.layer4(self.layer3(self.layer2(low)))


class DeepLab(nn.Module):
    """The members that the DeepLab networks share; each adds its ``head`` and ``forward``.

    ``mean`` and ``std`` are those of RGB on the 0..1 scale that torchvision's ImageNet weights expect; for other bands
    see :func:`ripu.models.bands.statistics`.
    """

    head: nn.Module

    def __init__(
        self,
        num_classes: int,
        weights: str | None,
        norm_eps: float,
        pretrained: bool,
        in_channels: int = 3,
        train_encoder: str = "all",
    ) -> None:
        """Build the backbone.

        Args:
            num_classes: Number of classes C.
            weights: Initial weights of the backbone; see :class:`ResNet101`.
            norm_eps: Epsilon of all frozen batch norms; 0 in the published runs.
            pretrained: False ignores ``weights``, for a network whose weights are loaded afterwards.
            in_channels: Bands of the input.
            train_encoder: ``all``, or ``none`` for a fixed backbone.

        Raises:
            ConfigError: The weights cannot be downloaded, read or do not fit; or another part is to be trained.
        """
        super().__init__()
        self.num_classes = num_classes
        self.mean = statistics((0.485, 0.456, 0.406), in_channels)
        self.std = statistics((0.229, 0.224, 0.225), in_channels)
        self.backbone = ResNet101(weights if pretrained else None, norm_eps, in_channels)
        train_only(self.backbone, train_encoder, is_random=pretrained and weights is None)  # it has no mode of its own

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters of the backbone and of the head; frozen batch norms have none."""
        backbone = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        return backbone, list(self.head.parameters())


def imagenet_file() -> Path:
    """Return torchvision's ImageNet file of ResNet-101 in torch hub's cache; download it if it is missing."""
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
            f"the ImageNet weights could not be downloaded from {IMAGENET_URL} ({error}); fetch that file elsewhere "
            f"and put it into {cache}, or give its path with model.weights=/path/to/resnet101-63fe2227.pth, or start "
            "from random weights with model.weights=null"
        ) from error
    return target
