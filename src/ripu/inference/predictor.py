"""Labels and uncertainty of images of any size, tile by tile."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.functional import entropy_and_label, join_views, map_pixels, mean_of_views
from ripu.functional.pixels import Rows, source_rows, span_rows
from ripu.functional.tiles import RowBlender, blend_tiles, tile_starts

_STRIP_PIXELS = 2**20  # of the results that are made at a time


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
            views = [view[None] for view in logits[number :: len(images)]]
            yield _label_and_entropy(join_views(*views), size, len(views))

    def stream(
        self, read: Callable[[int], Tensor], network_size: tuple[int, int], size: tuple[int, int]
    ) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32]]]:
        """Predict an image of any height strip by strip; a row of tiles and its logits are the most that is held.

        The results are those of a call with the whole image.

        Args:
            read: ``read(count)`` returns the next rows of the image at network size, (bands, count, w) uint8.
            network_size: (height, width) of the image at network size.
            size: (height, width) of the results.

        Yields:
            The number of the first row, and train ids and entropies as in a call, strip by strip from top to bottom.
        """
        rows, columns = (tile_starts(network_size[axis], self.tile[axis], self.overlap) for axis in (0, 1))
        tile = (min(self.tile[0], network_size[0]), min(self.tile[1], network_size[1]))
        blenders: list[RowBlender] = []
        held, top, span = read(tile[0]), 0, 1
        for number, start in enumerate(rows):
            if number:
                count = start - rows[number - 1]
                held = torch.cat([held[:, count:], read(count)], dim=1)
            for view, image in enumerate([held, held.flip(-1)] if self.flip else [held]):
                for column, logits in self._row_of_tiles(image, columns, tile[1]):
                    if view == len(blenders):
                        span = span_rows(logits.shape[1], size, logits.device)
                        spare = 2 + -(-span * network_size[0] // size[0])
                        blenders.append(RowBlender(rows, columns, tile, network_size, logits[0], spare))
                    for place, part in enumerate(logits, column):
                        blenders[view].add(number, place, part)
            first_row, views = _complete(blenders, number)
            last_row = first_row + views[0].shape[1]
            for first, bottom in _spans(network_size[0], size, top, last_row, span):
                above, below = source_rows(network_size[0], size[0], (first, bottom))
                own = join_views(*(logits[None, :, above - first_row : below - first_row] for logits in views))
                found = _label_and_entropy(own, size, len(views), Rows(above, network_size[0], (first, bottom)))
                yield first, *found
                top = bottom
            above = source_rows(network_size[0], size[0], (top, top + 1))[0] if top < size[0] else last_row
            for blender in blenders:
                blender.forget(number, max(0, last_row - above))

    def _row_of_tiles(self, image: Tensor, columns: Sequence[int], width: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of the first tile and the (B, C, h, w) logits of each batch of a row of tiles."""
        for first in range(0, len(columns), self.batch):
            places = columns[first : first + self.batch]
            tiles = torch.stack([image[:, :, column : column + width] for column in places])
            with torch.no_grad():
                yield first, self.network(tiles.to(self.device))

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


def _complete(blenders: Sequence[RowBlender], number: int) -> tuple[int, list[Tensor]]:
    """Return the complete rows after a row of tiles: the first one's number, and the logits of each view."""
    found = [blender.complete(number) for blender in blenders]
    return found[0][0], [logits for _, logits in found]


def _spans(height: int, size: tuple[int, int], top: int, last: int, span: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows of the results, from ``top`` on, that are blended from logits above row ``last``.

    They begin at multiples of ``span``.
    """
    while top < size[0]:
        ends = [top + span * count for count in range(1, 1 + max(1, _STRIP_PIXELS // (span * size[1])))]
        ends = [end for end in ends if end < size[0]] + ([size[0]] if ends[-1] >= size[0] else [])
        count = bisect_left(ends, last + 1, key=lambda end: source_rows(height, size[0], (end - 1, end))[1])
        if count == 0:
            return
        yield top, ends[count - 1]
        top = ends[count - 1]


def _label_and_entropy(
    logits: Tensor, size: tuple[int, int], num_views: int, rows: Rows | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return labels and entropies without ever holding the up-sampled logits; the softmax of the views is averaged.

    ``logits`` are (1, num_views * C, h, w); see :func:`ripu.functional.join_views`.
    """

    def kernel(strip_CRW: Tensor) -> tuple[Tensor, ...]:
        return entropy_and_label(mean_of_views(strip_CRW, num_views))

    entropy, label = map_pixels(logits, size, kernel, (torch.float32, torch.uint8), rows)
    return label[0].cpu().numpy(), entropy[0].cpu().numpy()
