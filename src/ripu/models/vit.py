"""Any vision transformer of timm with one patch size, e.g. DINOv2 or DINOv3, and a light pyramid decoder.

Tokens of all blocks lie on the same grid, of a pixel for each patch. As in DPT (Ranftl et al., ICCV 2021), the features
of four blocks are made a pyramid around that grid. Its levels are multiples of the grid, not fixed strides, so patches
of 14 pixels work as well as those of 16. Group norms instead of DPT's batch norms: batches of one image train, and no
running statistics mix two domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.io.errors import ConfigError
from ripu.models.bands import checked_statistics, statistics
from ripu.models.checkpoints import is_weights_file, load_encoder
from ripu.models.lora import train_only
from ripu.models.padding import on_multiples

_SCALES = (4, 2, 1, 1)  # cells of each level for a token, from the shallowest features to the deepest
_GROUPS = 32  # of channels that a group norm normalises


class ViTNetwork(nn.Module):
    """A vision transformer of timm and a decoder; takes any input size and returns logits of that size.

    Inputs are padded to a multiple of the patch; position embeddings are resampled to the grid.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "vit_small_patch14_dinov2",
        weights: str | None = None,
        width: int = 128,
        train_encoder: Literal["all", "lora", "none"] = "all",
        lora_rank: int = 8,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pretrained: bool = True,
        in_channels: int = 3,
        **options: Any,
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            encoder: Name of a vision transformer in timm, without the name of its weights.
            weights: ``None`` for a random start; a name that timm knows for the encoder, e.g. ``lvd142m``; or a file,
                see :mod:`ripu.models.layouts`.
            width: Channels of the decoder, a multiple of 32.
            train_encoder, lora_rank: See :func:`ripu.models.lora.train_only`.
            mean, std: Of each band (0..1 scale), for normalisation; by default those of the encoder's weights.
            pretrained: False does not fetch ``weights``, for a network whose weights are loaded afterwards.
            in_channels: Bands of the input; for weights and normalisation see :mod:`ripu.models.bands`.
            **options: Further arguments of the encoder, e.g. ``drop_path_rate``.

        Raises:
            ConfigError: An unknown encoder, weights that cannot be fetched, an encoder of another kind, or a bad value.
        """
        super().__init__()
        if width < _GROUPS or width % _GROUPS:
            raise ConfigError(f"model.width={width} must be a multiple of {_GROUPS}, e.g. 128")
        is_file = is_weights_file(weights)
        name = encoder if weights is None or is_file else f"{encoder}.{weights}"
        self.encoder = _transformer(encoder, name, pretrained and name != encoder, in_channels, options)
        if is_file and pretrained:
            load_encoder(self.encoder, str(weights))
        self.multiple = _patch(self.encoder, encoder)
        depth = len(self.encoder.blocks)
        if depth < len(_SCALES):
            raise ConfigError(f"model.encoder={encoder} has {depth} blocks, and the decoder reads four of them")
        self.taken = [depth * (level + 1) // len(_SCALES) - 1 for level in range(len(_SCALES))]
        self.head = PyramidHead(int(self.encoder.num_features), width, num_classes)
        self.num_classes = num_classes
        published: Any = timm.get_pretrained_cfg(name)
        self.mean = checked_statistics("mean", mean or statistics(published.mean, in_channels), in_channels)
        self.std = checked_statistics("std", std or statistics(published.std, in_channels), in_channels)
        is_random = pretrained and weights is None
        self._resting = train_only(self.encoder, train_encoder, lora_rank, is_random=is_random)
        self.train(self.training)

    def train(self, mode: bool = True) -> ViTNetwork:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        for part in self._resting:
            part.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, bands, H, W), for any H and W."""
        return on_multiples(self._logits, image, self.multiple)

    def _logits(self, image: Tensor) -> Tensor:
        features = self.encoder.forward_intermediates(image, indices=self.taken, norm=True, intermediates_only=True)
        return F.interpolate(self.head(features), size=image.shape[-2:], mode="bilinear", align_corners=False)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters of the encoder and of the decoder."""
        encoder, head = (
            [parameter for parameter in part.parameters() if parameter.requires_grad]
            for part in (self.encoder, self.head)
        )
        return encoder, head


class PyramidHead(nn.Module):
    """Logits, four cells a token along each side, of features of four blocks."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for scale in _SCALES:
            project = nn.Conv2d(channels, width, 1)
            grown = nn.ConvTranspose2d(width, width, scale, stride=scale) if scale > 1 else nn.Identity()
            self.levels.append(nn.Sequential(project, grown))
        self.merges = nn.ModuleList(_conv_norm_relu(width) for _ in _SCALES)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, C, 4 h, 4 w) of features (B, channels, h, w), the shallowest first."""
        merged: Tensor | None = None
        for level, merge, feature in zip(reversed(self.levels), reversed(self.merges), reversed(features), strict=True):
            finer = level(feature)
            if merged is not None:
                finer = finer + F.interpolate(merged, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            merged = merge(finer)
        logits: Tensor = self.classifier(merged)
        return logits


def _conv_norm_relu(width: int) -> nn.Sequential:
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, width), nn.ReLU(inplace=True))


def _transformer(encoder: str, name: str, pretrained: bool, in_channels: int, options: dict[str, Any]) -> Any:
    """Return timm's network without its classifier, for images of any size."""
    if "." in encoder:
        base, _, tag = encoder.partition(".")
        raise ConfigError(f"model.encoder={encoder} names weights; give model.encoder={base} model.weights={tag}")
    if not timm.is_model(encoder):
        near = timm.list_models(f"*{encoder.rpartition('_')[2]}*", module="vision_transformer")[:5]
        raise ConfigError(
            f"model.encoder={encoder!r} is unknown to timm; "
            + (f"similar: {', '.join(near)}" if near else "timm.list_models('vit_*') lists its vision transformers")
        )
    given: dict[str, Any] = {
        "num_classes": 0,
        "global_pool": "",
        "in_chans": in_channels,
        "dynamic_img_size": True,
    } | options
    try:
        return timm.create_model(name, pretrained=pretrained, **given)
    except OSError as error:
        raise ConfigError(
            f"the weights {name} could not be downloaded ({str(error).splitlines()[0]}); fetch the file elsewhere and "
            "give its path with model.weights=/path/to/file, or use model.weights=null"
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"model.encoder={encoder} does not fit ({error}); this network takes timm's vision transformers that "
            "accept images of any size, and model=smp other encoders"
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:
        known = [one.partition(".")[2] for one in timm.list_pretrained(f"{encoder}.*")]
        raise ConfigError(
            f"model.encoder={encoder} model.weights={name.partition('.')[2] or 'null'}: {error}; timm has the weights "
            f"{known} for this encoder"
        ) from error


def _patch(encoder: Any, name: str) -> int:
    """Return the side of a patch; refuse networks that are not transformers of one grid."""
    patch: Any = getattr(getattr(encoder, "patch_embed", None), "patch_size", None)
    is_square = isinstance(patch, tuple) and patch[0] == patch[1]
    if not is_square or not hasattr(encoder, "blocks") or not hasattr(encoder, "forward_intermediates"):
        raise ConfigError(f"model.encoder={name} is not a vision transformer with square patches; use model=smp")
    return int(patch[0])
