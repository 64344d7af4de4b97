"""Fig. 8: t-SNE of the features of an image's pixels. Needs scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID
from ripu.report.plots import FigureError

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_QUERIED = 400
MOST_OTHERS = 1600


def embed(
    features: NDArray[np.float32], truth: NDArray[np.uint8], is_queried: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Place pixels of known class in the plane; draws them and starts with a fixed seed.

    Args:
        features: (F, h, w).
        truth: (h, w) train ids; 255 where the class is not known.
        is_queried: (h, w).

    Returns:
        Place (N, 2), class (N,) and whether it was queried (N,) of at most :data:`MOST_QUERIED` queried pixels and
        :data:`MOST_OTHERS` others.
    """
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(0)
    known, queried = truth.reshape(-1) != VOID, is_queried.reshape(-1)
    groups = []
    for places, most in ((known & queried, MOST_QUERIED), (known & ~queried, MOST_OTHERS)):
        found = np.flatnonzero(places)
        groups.append(found if len(found) <= most else np.sort(generator.choice(found, most, replace=False)))
    places = np.concatenate(groups)
    vectors = features.reshape(features.shape[0], -1).T[places]
    perplexity = min(30.0, max(2.0, (len(places) - 1) / 4))
    flat: NDArray[np.float32] = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(vectors)
    return flat, truth.reshape(-1)[places], queried[places]


def pixel_features(module: nn.Module, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the input of the network's last convolution: the features that its logits are linear in.

    Args:
        module: A :class:`ripu.module.RipuModule`.
        image: (H, W, 3) uint8 RGB.
        size: (height, width) that images are fed at.

    Returns:
        (F, h, w) at the resolution of that convolution.

    Raises:
        FigureError: No convolution has as many outputs as there are classes.
    """
    import torch

    from ripu.datasets.image_files import resize_image
    from ripu.models.interface import evaluating

    network: nn.Module = module.network  # type: ignore[assignment]
    convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    last = [part for part in convolutions if part.out_channels == network.num_classes]
    if not last:
        raise FigureError(
            f"{type(network).__name__} has no convolution with {network.num_classes} outputs to take features from"
        )
    seen: list[Tensor] = []
    handle = last[-1].register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad(), evaluating(module):
            pixels = torch.from_numpy(np.ascontiguousarray(resize_image(image, size).transpose(2, 0, 1)))
            module(pixels[None])
    finally:
        handle.remove()
    features: NDArray[np.float32] = seen[-1][0].float().cpu().numpy()
    return features
