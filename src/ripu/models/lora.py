"""Training a part of an encoder: all of it, low-rank adapters in its attention, or nothing.

LoRA (Hu et al., ICLR 2022): a linear layer W x + b becomes W x + b + (ALPHA / r) B A x with W and b fixed, A of r rows
drawn at random and B of r columns that starts as zero. At the start, the network is the one without adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.io.errors import ConfigError

ALPHA = 16
"""The product of adapters is multiplied by ``ALPHA / rank``, so that a learning rate suits every rank."""

_PARTS = ("lora_down", "lora_up")


class LoraLinear(nn.Linear):
    """A linear layer with an adapter; its weight keeps its name."""

    lora_down: nn.Parameter  # A, (rank, in_features)
    lora_up: nn.Parameter  # B, (out_features, rank)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        low = F.linear(F.linear(input, self.lora_down), self.lora_up)
        return super().forward(input) + low * (ALPHA / len(self.lora_down))


def train_only(encoder: nn.Module, part: str, rank: int = 8, *, is_random: bool = False) -> list[nn.Module]:
    """Let a part of an encoder be trained, in place.

    Args:
        encoder: The encoder, with its initial weights.
        part: ``all``; ``lora``: adapters that are added to the linear layers of attention; or ``none``.
        rank: Rows of A.
        is_random: The initial weights are random and nothing replaces them: keeping them is refused.

    Returns:
        The modules that must stay in evaluation mode: with ``none`` the encoder, so that dropout and running statistics
        rest; with ``lora`` its batch norms.

    Raises:
        ConfigError: An unknown part, an encoder without such layers, or a rank that does not fit.
    """
    if part not in ("all", "none", "lora"):
        raise ConfigError(f"model.train_encoder={part!r} is unknown; use all, lora or none")
    if part == "all":
        return []
    if is_random:
        raise ConfigError(
            f"model.train_encoder={part} keeps the encoder's weights, and model.weights=null makes them random; name "
            "weights, or use model.train_encoder=all"
        )
    encoder.requires_grad_(False)
    if part == "none":
        return [encoder]
    layers = _attention_layers(encoder)
    if not layers:
        raise ConfigError(
            "model.train_encoder=lora adds to the linear layers of attention, and this encoder has none; use all or "
            "none, or a transformer (model=dinov2_small, model=segformer_b2)"
        )
    most = min(min(layer.in_features, layer.out_features) for layer in layers)
    if not 1 <= rank <= most:
        raise ConfigError(f"model.lora_rank={rank} must be between 1 and {most}, the width of the narrowest layer")
    for layer in layers:
        down = layer.weight.new_empty(rank, layer.in_features)
        layer.lora_down = nn.Parameter(nn.init.kaiming_uniform_(down, a=5**0.5))
        layer.lora_up = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        layer.__class__ = LoraLinear
    return [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def merge_adapters(network: nn.Module) -> int:
    """Add every adapter to the weight of its layer and remove it, in place; return how many there were."""
    layers: list[Any] = [module for module in network.modules() if isinstance(module, LoraLinear)]
    for layer in layers:
        with torch.no_grad():
            layer.weight += _product(layer.lora_down, layer.lora_up)
        del layer.lora_down, layer.lora_up
        layer.__class__ = nn.Linear
    return len(layers)


def fit_adapters(state: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return weights for a network that has adapters where the file has none, or the other way round.

    Missing adapters stay as they are in the network; adapters that it does not have are added to the weights.
    """
    own, fitted = network.state_dict(), dict(state)
    is_adapted = {key for key in own if key.endswith(_PARTS)}
    if is_adapted and not any(key.endswith(_PARTS) for key in fitted):
        return fitted | {key: own[key] for key in is_adapted}
    for key in [key for key in fitted if key.endswith(_PARTS[0]) and key not in own]:
        name = key.removesuffix(_PARTS[0])
        down, up, weight = fitted.get(key), fitted.get(name + _PARTS[1]), fitted.get(name + "weight")
        if not (isinstance(down, Tensor) and isinstance(up, Tensor) and isinstance(weight, Tensor)):
            continue
        if weight.shape == (len(up), down.shape[-1]) and up.shape[-1] == len(down):
            fitted[name + "weight"] = weight + _product(down, up)
            del fitted[key], fitted[name + _PARTS[1]]
    return fitted


def _product(down: Tensor, up: Tensor) -> Tensor:
    return up @ down * (ALPHA / len(down))


def _attention_layers(encoder: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of attention modules that are called.

    timm passes the weight of a query-key-value layer with separate biases to a function, past the layer: it is left
    out, and the output projection gets an adapter alone.
    """
    found = []
    for module in encoder.modules():
        if "Attention" in type(module).__name__:
            for name, child in module.named_children():
                if type(child) is nn.Linear and not (name == "qkv" and getattr(module, "q_bias", None) is not None):
                    found.append(child)
    return found
