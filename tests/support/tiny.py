"""Networks small enough to train in tests, such as ``model._target_=tiny.TinyNetwork``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ripu.models.bands import statistics


class TinyNetwork(nn.Module):
    """Two convolutions, a trainable and a frozen batch norm, and dropout; ignores the options of other networks."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self, num_classes: int, dropout: float = 0.1, in_channels: int = 3, **_: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.num_classes = num_classes
        self.mean, self.std = statistics(TinyNetwork.mean, in_channels), statistics(TinyNetwork.std, in_channels)
        self.body = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.BatchNorm2d(8).requires_grad_(False)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(8, num_classes, 3, padding=1)
        for parameter in (self.body.weight, self.head.weight):
            with torch.no_grad():
                parameter.normal_(0.0, 0.3, generator=generator)
        for parameter in (self.body.bias, self.head.bias):
            nn.init.zeros_(parameter)
        self.train()

    def train(self, mode: bool = True) -> TinyNetwork:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.frozen(self.norm(self.body(image)).relu())))
        return logits

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return [*self.body.parameters(), *self.norm.parameters()], list(self.head.parameters())


class TinyDeepLab(nn.Module):
    """A network with the parameter names of the published ones: a ResNet-like ``backbone`` and a ``head``."""

    mean = TinyNetwork.mean
    std = TinyNetwork.std

    def __init__(self, num_classes: int, weights: str | None = None, pretrained: bool = True, **_: Any) -> None:
        super().__init__()
        assert weights is None or not pretrained, "weights are fetched although a checkpoint provides them"
        self.num_classes = num_classes
        block = nn.ModuleDict({"conv1": nn.Conv2d(8, 8, 1, bias=False)})
        self.backbone = nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3, padding=1), "layer1": nn.ModuleList([block])})
        self.head = nn.ModuleDict({"conv2d_list": nn.ModuleList([nn.Conv2d(8, num_classes, 3, padding=1)])})

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone["layer1"][0]["conv1"](self.backbone["conv1"](image).relu()).relu()  # type: ignore[index]
        logits: Tensor = self.head["conv2d_list"][0](features)  # type: ignore[index]
        return logits

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return list(self.backbone.parameters()), list(self.head.parameters())
