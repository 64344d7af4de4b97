"""Tiles of images that are too large for one forward pass: overlapping, blended without seams.

Legend: C classes, H W size of the image, h w size of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return the starts of tiles along one side, evenly spread so that the first and the last touch the border.

    Args:
        length: Length of the side in pixels.
        tile: Length of a tile in pixels, at least 1.
        overlap: Least share of a tile that neighbours have in common, in [0, 1).

    Raises:
        ValueError: The tile or the overlap is out of range.

    >>> tile_starts(10, 4, 0.25)
    [0, 3, 6]
    >>> tile_starts(4, 4, 0.5)
    [0]
    """
    if tile < 1 or not 0.0 <= overlap < 1.0:
        raise ValueError(f"tile={tile} must be 1 or more and overlap={overlap} a share in [0, 1)")
    if length <= tile:
        return [0]
    stride = max(1, tile - round(tile * overlap))
    gaps = -(-(length - tile) // stride)
    return [round(number * (length - tile) / gaps) for number in range(gaps + 1)]


def blend_tiles(tiles: Sequence[Tensor], rows: Sequence[int], columns: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Blend the logits of tiles by a mean in which a tile counts less near its inner borders.

    Weights fall linearly to almost 0 over the overlap, which avoids seams.

    Args:
        tiles: (C, h, w) logits of every tile, all of one size, row by row as in ``rows`` x ``columns``.
        rows: First row of each row of tiles.
        columns: First column of each column of tiles.
        size: (H, W) of the result, which is (C, H, W) float32.
    """
    if len(tiles) == 1:
        return tiles[0].float()
    num_classes, height, width = tiles[0].shape
    device = tiles[0].device
    down, across = _weights(rows, height, device), _weights(columns, width, device)
    total_CHW, weight_HW = torch.zeros((num_classes, *size), device=device), torch.zeros(size, device=device)
    for number, logits_Chw in enumerate(tiles):
        row, column = divmod(number, len(columns))
        weight_hw = down[row][:, None] * across[column]
        part = (slice(rows[row], rows[row] + height), slice(columns[column], columns[column] + width))
        total_CHW[:, part[0], part[1]] += logits_Chw.float() * weight_hw
        weight_HW[part] += weight_hw
    return total_CHW.div_(weight_HW)


class RowBlender:
    """Blends tiles as :func:`blend_tiles` does, but holds little more than the rows that a row of tiles covers.

    Tiles are added row by row of tiles. After each row, :meth:`complete` returns the logits that no later tile changes.
    """

    def __init__(
        self,
        rows: Sequence[int],
        columns: Sequence[int],
        tile: tuple[int, int],
        size: tuple[int, int],
        like_Chw: Tensor,
        spare: int,
    ) -> None:
        """Make room for the logits.

        Args:
            rows, columns: Of :func:`tile_starts`.
            tile, size: (height, width) of a tile, and of the image.
            like_Chw: Logits of any tile.
            spare: Most complete rows that :meth:`forget` is asked to keep.
        """
        device = like_Chw.device
        self._rows, self._columns, self._tile, self._height = rows, columns, tile, size[0]
        self._down, self._across = _weights(rows, tile[0], device), _weights(columns, tile[1], device)
        self._spare, self._kept = spare, 0
        self._total_CRW = torch.zeros((like_Chw.shape[0], spare + tile[0], size[1]), device=device)
        self._weight_hW = torch.zeros((tile[0], size[1]), device=device)

    def add(self, row: int, column: int, logits_Chw: Tensor) -> None:
        """Add the logits of a tile, by the numbers of its row and column of tiles."""
        weight_hw = self._down[row][:, None] * self._across[column]
        part = slice(self._columns[column], self._columns[column] + self._tile[1])
        self._total_CRW[:, self._spare :, part] += logits_Chw.float() * weight_hw
        self._weight_hW[:, part] += weight_hw

    def complete(self, row: int) -> tuple[int, Tensor]:
        """Return the kept and the newly complete rows once row number ``row`` of tiles is added.

        These are the number of the first one, and (C, R, W) logits until :meth:`forget` is called.
        """
        count, spare = self._num_complete(row), self._spare
        self._total_CRW[:, spare : spare + count].div_(self._weight_hW[:count])
        return self._rows[row] - self._kept, self._total_CRW[:, spare - self._kept : spare + count]

    def forget(self, row: int, kept: int) -> None:
        """Keep only the last ``kept`` complete rows, and make room for the next row of tiles."""
        assert kept <= self._spare
        self._kept = kept
        count = self._num_complete(row)
        for plane_RW in (*self._total_CRW, self._weight_hW):  # one after the other: a copy of all would double them
            rows = len(plane_RW) - count
            plane_RW[:rows] = plane_RW[count:].clone()
            plane_RW[rows:] = 0.0

    def _num_complete(self, row: int) -> int:
        end = self._rows[row + 1] if row + 1 < len(self._rows) else self._height
        return end - self._rows[row]


def _weights(starts: Sequence[int], tile: int, device: torch.device) -> list[Tensor]:
    """Return the (tile,) weights of each tile along a side: 1, falling over what it shares with its neighbours."""
    position = torch.arange(tile, device=device, dtype=torch.float32)
    weights = []
    for number, start in enumerate(starts):
        weight = torch.ones(tile, device=device)
        if number > 0 and (shared := starts[number - 1] + tile - start) > 0:
            weight = torch.minimum(weight, (position + 0.5) / shared)
        if number + 1 < len(starts) and (shared := start + tile - starts[number + 1]) > 0:
            weight = torch.minimum(weight, (tile - position - 0.5) / shared)
        weights.append(weight)
    return weights
