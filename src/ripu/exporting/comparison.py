"""The comparison of an exported network with the one that it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ripu.inference.description import Description
from ripu.io.errors import RipuError

TOLERANCE = 1e-4
"""Largest difference of a logit; larger logits, by the same share of the largest one."""


class ExportError(RipuError, ValueError):
    """A network that cannot be exported as asked; names the cause and the remedy."""


def sample_sizes(description: Description) -> list[tuple[int, int, int]]:
    """Return (batch, height, width) of the images that are compared: three sizes, the last as in training.

    Example:
        >>> from ripu.datasets.taxonomy import CAMVID11
        >>> described = Description(CAMVID11, (360, 480), (0.5,) * 3, (0.25,) * 3, radius=1, pixel=False, flip=False)
        >>> sample_sizes(described)
        [(2, 97, 161), (3, 192, 128), (1, 360, 480)]
    """
    if description.fixed_size is not None:
        return [(batch, *description.fixed_size) for batch in (1, 2)]

    def fitting(side: int) -> int:
        return max(2, -(-side // description.multiple)) * description.multiple

    sizes = [(2, 97, 161), (3, 192, 128), (1, *description.target_size)]
    if description.multiple == 1:
        return sizes
    return [(batch, fitting(height), fitting(width)) for batch, height, width in sizes]


def compare(network: nn.Module, exported: Callable[[Tensor], Tensor], description: Description) -> float:
    """Run both networks on the same images, and return the largest difference of a logit.

    Raises:
        ExportError: They differ by more than :data:`TOLERANCE`, or return another shape.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in sample_sizes(description):
        image = torch.randn(batch, len(description.mean), height, width, generator=generator)
        with torch.no_grad():
            expected, found = network(image), exported(image)
        name = f"{batch} x {height} x {width} pixels"
        if found.shape != expected.shape:
            raise ExportError(
                f"the exported network returns {tuple(found.shape)} instead of {tuple(expected.shape)} for {name}: its "
                f"operations depend on the size. Add size={_trained(description)} to export it for one size"
            )
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):  # NaN is not
            raise ExportError(
                f"the exported network differs from the original by {difference:.1e} for {name}, more than "
                f"{TOLERANCE:.0e}; nothing is written. Add size={_trained(description)} to export it for one size, or "
                "use another format"
            )
        largest = max(largest, difference)
    return largest


def _trained(description: Description) -> str:
    return f"[{description.target_size[0]},{description.target_size[1]}]"


def refused(error: Exception, description: Description) -> ExportError:
    """Return the error of a network that cannot be traced; names the alternative."""
    first = re.split(r"\. Please|\n", str(error).strip())[0][:200] or type(error).__name__
    if description.fixed_size is None:
        remedy = f"add size={_trained(description)} to export it for one size, to which images are padded"
    else:
        remedy = "use another size, or another format"
    size = description.fixed_size
    kind = "any size" if size is None else f"{size[0]} x {size[1]} pixels"
    return ExportError(f"this network cannot be exported for images of {kind} ({first}); {remedy}")
