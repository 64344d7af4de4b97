"""Images of any size for networks that take multiples of a number of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def on_multiples(network: Callable[[Tensor], Tensor], image: Tensor, multiple: int) -> Tensor:
    """Return the logits (B, C, H, W) of images (B, bands, H, W) from a network that takes multiples of ``multiple``.

    Images are padded at the right and at the bottom with their last column and row; the logits are cropped.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return network(padded)[..., :height, :width]
