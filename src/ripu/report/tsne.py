"""Fig. 8: t-SNE of the features of an image's pixels, those that were asked marked. Needs scikit-learn and a checkpoint."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID
from ripu.inference import palette
from ripu.report.curves import save, start
from ripu.report.rundata import RunData
from ripu.report.sheets import FigureError, chosen, classes_legend, image_of, revealed_ids

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_ASKED = 400
MOST_OTHERS = 1600


def queried_features(data: RunData, path: Path) -> list[Path]:
    """Draw the features of the last network on two images: triangles were asked, dots are other pixels.

    Colours are true classes. At most :data:`MOST_ASKED` asked and :data:`MOST_OTHERS` other pixels an image, drawn with
    a fixed seed. The network reads the images as they were recorded (JPEG).

    Raises:
        FigureError: scikit-learn, the checkpoint, the recorded truth or the rounds are missing.
    """
    if find_spec("sklearn") is None:
        raise FigureError("scikit-learn is not installed; pip install 'ripu[figures]'")
    if data.store is None or not data.store.num_rounds:
        raise FigureError("the run asked for nothing (setting without rounds, or before the first)")
    checkpoint = data.run / "checkpoints" / "final.ckpt"
    if not checkpoint.exists():
        raise FigureError(f"{checkpoint} does not exist; let the run finish")
    from sklearn.manifold import TSNE

    from ripu.run import restore

    images = chosen(data, 2)
    trained, module, _ = restore.restore(checkpoint)
    size = (int(trained.data.target_size[0]), int(trained.data.target_size[1]))
    figure, axes = start(1, len(images), figsize=(5.6 * len(images), 5.2), squeeze=False)
    present: set[int] = set()
    colors = np.zeros((256, 3))
    colors[: len(data.class_colors)] = np.asarray(data.class_colors) / 255.0
    for axis, image in zip(axes[0], images, strict=True):
        features = pixel_features(module, image_of(data, image), size)
        is_asked, truth = revealed_ids(data, image, (features.shape[1], features.shape[2]))
        if (truth == VOID).all():
            raise FigureError(f"no truth was recorded for {image.image_id}; colours would say nothing")
        generator = np.random.default_rng(0)
        known = truth.reshape(-1) != VOID
        groups = [
            _draw(np.flatnonzero(known & is_asked.reshape(-1)), MOST_ASKED, generator),
            _draw(np.flatnonzero(known & ~is_asked.reshape(-1)), MOST_OTHERS, generator),
        ]
        places = np.concatenate(groups)
        vectors = features.reshape(features.shape[0], -1).T[places]
        perplexity = min(30.0, max(2.0, (len(places) - 1) / 4))
        flat = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(vectors)
        labels = truth.reshape(-1)[places]
        present |= set(labels.tolist())
        asked = np.arange(len(places)) < len(groups[0])
        axis.scatter(*flat[~asked].T, s=6, c=colors[labels[~asked]], linewidths=0)
        axis.scatter(*flat[asked].T, s=34, c=colors[labels[asked]], marker="v", edgecolors="black", linewidths=0.4)
        axis.set_title(image.image_id, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    from matplotlib.patches import Patch

    legend = [
        Patch(facecolor=palette.hex_color(color), label=name)
        for number, (name, color) in enumerate(classes_legend(data).items())
        if number in present
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=min(8, len(legend)), fontsize=7, frameon=False)
    return save(figure, path)


def _draw(places: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return places if len(places) <= count else np.sort(generator.choice(places, count, replace=False))


def pixel_features(module: nn.Module, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """What the network's last convolution reads, the features that its logits are linear in.

    Args:
        module: A :class:`ripu.module.RipuModule`.
        image: (H, W, 3) uint8 RGB.
        size: (height, width) that the network is fed at.

    Returns:
        (F, h, w) at the resolution of that convolution.

    Raises:
        FigureError: No convolution has as many outputs as there are classes.
    """
    import torch

    from ripu.datasets.image_files import resize_image
    from ripu.module import evaluating

    network: nn.Module = module.network  # type: ignore[assignment]
    last = [
        part
        for part in network.modules()
        if isinstance(part, torch.nn.Conv2d) and part.out_channels == network.num_classes
    ]
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
