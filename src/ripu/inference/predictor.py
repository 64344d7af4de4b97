"""Labels and uncertainty of images of any size, tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.functional import entropy_and_label, map_pixels
from ripu.functional.tiles import blend_tiles, tile_starts


@dataclass(frozen=True)
class Predictor:
    """Labels and uncertainty of images of any size.

    Attributes:
        network: Maps raw images (B, 3, h, w) uint8 to logits (B, C, h, w), in evaluation mode.
        device: Device of the network.
        tile: (height, width) of the part of an image in one forward pass.
        overlap: Fraction of a tile shared with its neighbour, in [0, 1).
        batch: Tiles per forward pass.
        flip: Average the softmax with that of the mirrored image.
    """

    network: Callable[[Tensor], Tensor]
    device: torch.device
    tile: tuple[int, int]
    overlap: float
    batch: int
    flip: bool

    def __call__(
        self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Predict images; tiles of one size share a forward pass.

        Args:
            images: (bands, h, w) uint8 at network size; sizes may differ.
            sizes: (height, width) of the results.

        Yields:
            Train ids (height, width) uint8 and the pixel entropy in nats (height, width) float32, image by image.
        """
        inputs = list(images)
        if self.flip:
            inputs += [image.flip(-1) for image in images]
        logits = self._logits(inputs)
        for number, size in enumerate(sizes):
            own = logits[number][None]
            if self.flip:
                own = torch.cat([own, logits[len(images) + number].flip(-1)[None]], dim=1)
            yield _label_and_entropy(own, size, num_views=1 + self.flip)

    def _logits(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Return the (C, h, w) float32 logits of every image."""
        tiles: list[dict[tuple[int, int], Tensor]] = []
        waiting: dict[tuple[int, ...], list[tuple[int, tuple[int, int], Tensor]]] = {}
        grids = []
        for number, image in enumerate(images):
            size = (int(image.shape[1]), int(image.shape[2]))
            rows, columns = (tile_starts(size[axis], self.tile[axis], self.overlap) for axis in (0, 1))
            height, width = min(self.tile[0], size[0]), min(self.tile[1], size[1])
            grids.append((rows, columns, size))
            tiles.append({})
            for row, column in itertools.product(rows, columns):
                part = image[:, row : row + height, column : column + width]
                waiting.setdefault(tuple(part.shape), []).append((number, (row, column), part))
        for parts in waiting.values():
            for first in range(0, len(parts), self.batch):
                group = parts[first : first + self.batch]
                with torch.no_grad():
                    logits = self.network(torch.stack([part for *_, part in group]).to(self.device))
                for (number, place, _), tile in zip(group, logits, strict=True):
                    tiles[number][place] = tile
        return [blend_tiles(list(own.values()), *grid) for own, grid in zip(tiles, grids, strict=True)]


def _label_and_entropy(
    logits: Tensor, size: tuple[int, int], *, num_views: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return labels and entropies without ever holding the up-sampled logits; the softmax of the views is averaged.

    ``logits`` are (1, num_views * C, h, w), those of the views concatenated.
    """

    def kernel(strip_CRW: Tensor) -> tuple[Tensor, ...]:
        if num_views > 1:
            views = strip_CRW.view(num_views, -1, *strip_CRW.shape[1:]).softmax(dim=1)
            strip_CRW = views.mean(dim=0).clamp_min(1e-30).log()
        return entropy_and_label(strip_CRW)

    entropy, label = map_pixels(logits, size, kernel, (torch.float32, torch.uint8))
    return label[0].cpu().numpy(), entropy[0].cpu().numpy()
