"""A discriminator that tells source from target by predicted probabilities, and the terms that train with it.

Legend: B batch, C classes, H W size of the logits, h w cells of the discriminator.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ripu.losses import is_image, masked_mean

SOURCE, TARGET = 0.0, 1.0
SIDE = 32
"""Pixels along the side of a cell."""


class Discriminator(nn.Sequential):
    """Five convolutions that halve the size, with leaky rectifiers between them."""

    def __init__(self, num_classes: int, width: int = 64) -> None:
        """Make it for predictions of ``num_classes`` classes; ``width`` channels at first."""
        channels = [num_classes, width, 2 * width, 4 * width, 8 * width, 1]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(channels)):
            layers += [nn.LeakyReLU(0.2)] if number else []
            layers.append(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1))
        super().__init__(*layers)

    def forward(self, probs: Tensor, shape: Tensor | None = None) -> Tensor:
        """Return the logits of the target for each cell of 32 x 32 pixels, those at the border included, (B, 1, h, w).

        Every layer reads 0 outside the image, whether padding (``shape``, see :mod:`ripu.losses`) follows it or not.
        """
        height, width = probs.shape[-2:]
        shape = torch.tensor([(height, width)] * len(probs)) if shape is None else shape
        inside = torch.where(is_image(probs, shape)[:, None], probs, 0.0)
        values = F.pad(inside, (0, -width % SIDE, 0, -height % SIDE))
        for layer in self:
            values = layer(values)
            if isinstance(layer, nn.Conv2d):
                shape = (shape + 1) // 2
                values = values * is_image(values, shape)[:, None]
        return values


class Adversary(nn.Module):
    """Keeps a discriminator."""

    def __init__(self, num_classes: int, width: int = 64) -> None:
        """Make it; see :class:`Discriminator`."""
        super().__init__()
        self.discriminator = Discriminator(num_classes, width)

    def told_apart(
        self, logits: Tensor, domain: float, shape: Tensor | None = None, among: Tensor | None = None
    ) -> Tensor:
        """Return the cross-entropy of the discriminator for images of a domain; no gradient reaches the network.

        ``among``, (B,) bool, says which images count, None: all; without any, the term is 0.
        """
        return _entropy(self.discriminator(logits.detach().float().softmax(dim=1), shape), domain, shape, among)

    def fooled(self, logits: Tensor, domain: float, shape: Tensor | None = None, among: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of the other ``domain`` for images; no gradient reaches the discriminator."""
        fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        probs = logits.float().softmax(dim=1)
        return _entropy(functional_call(self.discriminator, fixed, (probs, shape)), domain, shape, among)


def _entropy(found: Tensor, domain: float, shape: Tensor | None, among: Tensor | None) -> Tensor:
    """Return the mean cross-entropy of a domain over the cells of the images that count."""
    wanted = torch.full_like(found, domain, dtype=torch.float32)
    loss = F.binary_cross_entropy_with_logits(found.float(), wanted, reduction="none")
    counts = is_image(found, None if shape is None else (shape + SIDE - 1) // SIDE)
    return masked_mean(loss[:, 0], counts if among is None else counts & among[:, None, None])
