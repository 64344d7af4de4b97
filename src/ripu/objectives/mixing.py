"""Images that are mixed and disturbed, with random numbers from the generator of torch on the CPU.

Legend: B batch, H W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ripu.losses import IGNORE, is_image
from ripu.objectives.interface import Batch


@dataclass(frozen=True)
class Mixture:
    """Images with their labels by origin; a pixel has a label in at most one of them, 255 in the others.

    Attributes:
        image: (B, bands, H, W) uint8.
        label: (B, H, W) uint8, revealed labels of target pixels.
        pseudo: (B, H, W) uint8, labels of the teacher.
        weight: (B, H, W) float32, the weight of each pseudo-label.
        pasted: (B, H, W) uint8, labels of pixels pasted from source images; None without a source.
    """

    image: Tensor
    label: Tensor
    pseudo: Tensor
    weight: Tensor
    pasted: Tensor | None = None

    @classmethod
    def of_source(cls, source: Batch, like: Mixture) -> Mixture:
        """Return source images as donors for target images, one each, in turn if there are fewer.

        Where sizes differ, the middles of both images lie on one another, and nothing is outside the smaller one.
        """
        nothing = torch.full_like(like.label, IGNORE)
        image, pasted = like.image.clone(), nothing.clone()
        size, own_size = source["label"].shape[-2:], like.label.shape[-2:]
        theirs, ours = _middle(size, own_size), _middle(own_size, size)
        turn = torch.arange(len(image), device=image.device) % len(source["image"])
        image[ours] = source["image"][turn][theirs]
        pasted[ours] = source["label"][turn][theirs]
        return cls(image, nothing, nothing, torch.zeros_like(like.weight), pasted)

    def classes(self) -> Tensor:
        """Return the class of each pixel by whichever label it has, (B, H, W) uint8; 255 without any."""
        found = torch.where(self.label != IGNORE, self.label, self.pseudo)
        return found if self.pasted is None else torch.where(self.pasted != IGNORE, self.pasted, found)

    def with_pasted(self, donors: Mixture, area: Tensor) -> Mixture:
        """Return these images with the pixels and labels of donors in ``area``, (B, H, W) bool."""
        labels = ("label", "pseudo", "weight")
        mixed = {name: torch.where(area, getattr(donors, name), getattr(self, name)) for name in labels}
        pasted = None if donors.pasted is None else torch.where(area, donors.pasted, IGNORE)
        return replace(self, image=torch.where(area[:, None], donors.image, self.image), pasted=pasted, **mixed)


def _middle(size: Sequence[int], limit: Sequence[int]) -> tuple[Any, ...]:
    """Return the index of the middle of images of ``size`` that is not larger than ``limit``."""
    first = [max(0, (side - most) // 2) for side, most in zip(size, limit, strict=True)]
    spans = [slice(at, at + min(side, most)) for at, side, most in zip(first, size, limit, strict=True)]
    return (..., *spans)


def shift_donors(mixture: Mixture) -> Mixture:
    """Return target images as donors for one another: each gets the next one of the batch."""
    parts = {name: getattr(mixture, name).roll(1, dims=0) for name in ("image", "label", "pseudo", "weight")}
    return Mixture(**parts)


def pasted_area(classes: Tensor, shape: Tensor | None = None) -> Tensor:
    """Return where to paste: the pixels of a random half (rounded up) of the classes of each donor, (B, H, W) bool.

    ``classes`` (B, H, W) uint8 are those of the donors' pixels; 255 is never pasted. ``shape`` (B, 2), on the CPU,
    limits the area to the height and width of the image that is pasted onto. The host does not wait for the device.
    """
    present = torch.zeros((len(classes), IGNORE + 1), dtype=torch.bool, device=classes.device)
    present = present.scatter(1, classes.flatten(1).long(), True)
    present[:, IGNORE] = False
    order = torch.stack([torch.randperm(IGNORE + 1) for _ in classes])
    if classes.device.type == "cuda":
        order = order.pin_memory()
    # Half of the classes by rank, which is counted: how many there are is never asked.
    order = order.to(classes.device, non_blocking=True).masked_fill(~present, IGNORE + 1)
    rank = (order[:, :, None] > order[:, None, :]).sum(dim=2)
    chosen = present & (rank < (present.sum(dim=1, keepdim=True) + 1) // 2)
    return chosen.gather(1, classes.flatten(1).long()).view(classes.shape) & is_image(classes, shape)


def disturbed(image: Tensor, jitter: float, blur: float, shape: Tensor | None = None) -> Tensor:
    """Return images with other brightness, contrast and saturation, and some of them blurred, (B, bands, H, W) uint8.

    Args:
        image: (B, bands, H, W) uint8.
        jitter: Each of the three changes multiplies by a number in [1 - jitter, 1 + jitter]: the values; their distance
            to the mean of the image; their distance to the mean of the pixel's bands (colour images alone).
        blur: Probability of a Gaussian blur with a standard deviation between 0.15 and 1.15 pixels.
        shape: (B, 2), the height and width of each image without its padding, which stays as it is; None: no padding.
    """
    from torchvision.transforms.v2 import functional as T

    result = image.clone()
    for place, whole in enumerate(image):
        height, width = whole.shape[1:] if shape is None else shape[place].tolist()
        one = whole[:, :height, :width]
        drawn = torch.rand(5).tolist()
        gain, contrast, saturation = (1.0 + jitter * (2.0 * share - 1.0) for share in drawn[:3])
        value = one.float() * gain
        value = torch.lerp(value.mean(), value, contrast)
        if len(one) == 3:
            value = torch.lerp(value.mean(dim=0, keepdim=True), value, saturation)
        if drawn[3] < blur:
            sides = [min(5, 2 * int(side) - 1) for side in (width, height)]  # it mirrors the image at its border
            value = T.gaussian_blur(value, sides, [0.15 + drawn[4]])
        result[place, :, :height, :width] = value.round_().clamp_(0.0, 255.0).to(torch.uint8)
    return result
