"""A tiny network in training, for the terms of methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference import adversary
from ripu.acquisition import Features

CLASSES = 4


class Network(torch.nn.Module):
    """Two convolutions, of which the second one classifies."""

    num_classes = CLASSES
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Conv2d(6, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image))  # type: ignore[no-any-return]


class Student:
    """A network in training with what an objective keeps."""

    def __init__(self, objective: Any, num_renewals: int = 0) -> None:
        torch.manual_seed(0)
        self.network = Network()
        self.body, self.head = self.network.body, self.network.head
        self.num_renewals = num_renewals
        self.kept = objective.keeps(self.network)

    def with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        values = self.body(image.float() / 64.0 - 2.0)
        return self.head(values), Features(values, (image.shape[2], image.shape[3]))

    def __call__(self, image: Tensor) -> Tensor:
        return self.with_features(image)[0]


class Taught(Student):
    """A student with a teacher of its own weights."""

    def __init__(self, objective: Any) -> None:
        super().__init__(objective)
        torch.manual_seed(9)
        self.teacher = Network()

    @torch.no_grad()
    def teacher_with_features(self, image: Tensor) -> tuple[Tensor, Features]:
        values = self.teacher.body(image.float() / 64.0 - 2.0)
        return self.teacher.head(values), Features(values, (image.shape[2], image.shape[3]))


def make_batch(seed: int = 0) -> dict[str, Tensor]:
    """Two images of 32 x 40 pixels with labels for three pixels in ten."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (2, 32, 40), generator=generator, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=generator) > 0.3] = 255
    return {"image": torch.randint(0, 256, (2, 3, 32, 40), generator=generator, dtype=torch.uint8), "label": label}


def numpy(value: Tensor) -> NDArray[np.float64]:
    """A tensor as float64, for the literal loops."""
    found: NDArray[np.float64] = value.detach().double().numpy()
    return found


def layers_of(discriminator: torch.nn.Module) -> list[adversary.Layer]:
    """The weights of its convolutions, for the literal ones."""
    convolutions = [layer for layer in discriminator.modules() if isinstance(layer, torch.nn.Conv2d)]
    return [(numpy(layer.weight), numpy(layer.bias)) for layer in convolutions if layer.bias is not None]
