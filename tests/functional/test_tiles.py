from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ripu.functional.tiles import blend_tiles, tile_starts


@given(st.integers(1, 300), st.integers(1, 80), st.floats(0.0, 0.9))
def test_tiles_cover_everything_and_overlap_enough(length: int, tile: int, overlap: float) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    for before, after in pairwise(starts):
        assert 0 < after - before <= max(1, tile - round(tile * overlap))


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.2), (4, 1.0), (4, -0.1)])
def test_what_makes_no_tiles_is_refused(tile: int, overlap: float) -> None:
    with pytest.raises(ValueError, match=f"tile={tile} .*overlap={overlap}"):
        tile_starts(10, tile, overlap)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_blending_pieces_of_a_picture_gives_the_picture(overlap: float) -> None:
    image = torch.randn(3, 37, 53, generator=torch.Generator().manual_seed(0))
    rows, columns = tile_starts(37, 16, overlap), tile_starts(53, 20, overlap)
    tiles = [image[:, row : row + 16, column : column + 20] for row in rows for column in columns]
    torch.testing.assert_close(blend_tiles(tiles, rows, columns, (37, 53)), image)


def test_there_is_no_seam_between_tiles_that_disagree() -> None:
    starts = tile_starts(100, 40, 0.25)
    tiles = [torch.full((1, 1, 40), float(number)) for number in range(len(starts))]
    line = blend_tiles(tiles, [0], starts, (1, 100))[0, 0]
    steps = line.diff()
    assert (steps >= 0).all()
    assert steps.max() < 0.2  # the jump of 1 is spread over the 10 shared pixels
    assert line[0] == 0
    assert line[-1] == len(starts) - 1


def test_one_tile_is_left_as_it_is() -> None:
    tile = torch.randn(2, 5, 6)
    assert blend_tiles([tile], [0], [0], (5, 6)) is tile
