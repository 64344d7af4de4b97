import itertools

import numpy as np

from ripu.annotate.splits import MOST_SPLITS, line_splits, ranked_splits


def window(radius):
    span = np.arange(-radius, radius + 1)
    return np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)


def is_separable(pixels, mask):
    """Decide with a literal search: the line through two pixels, moved and turned by a little, parts the sets."""
    for first, second in itertools.permutations(range(len(pixels)), 2):
        along = (pixels[second] - pixels[first]).astype(np.float64)
        for turn in (-1e-3, 1e-3):
            direction = np.array([along[1], -along[0]]) + turn * along
            distance = pixels @ direction
            a, b = distance[mask], distance[~mask]
            if a.min() > b.max() or b.min() > a.max():
                return True
    return False


def test_every_split_of_a_window_is_one_straight_line_and_none_is_missing():
    pixels = window(1)
    found = {mask.tobytes() for mask in line_splits(pixels)}
    for number in range(1, 2**8):  # the first pixel is always on side 0
        mask = np.array([False, *(bool(number >> bit & 1) for bit in range(8))])
        assert (mask.tobytes() in found) == is_separable(pixels, mask), mask.reshape(3, 3)


def test_the_true_border_comes_first():
    pixels = window(2)
    for angle in np.linspace(0, np.pi, 9):
        side = pixels @ np.array([np.sin(angle), np.cos(angle)]) > 0.3
        side = ~side if side[0] else side
        colors = np.where(side[:, None], 200, 50).astype(np.uint8).repeat(3, axis=1)
        wanted = "".join("1" if one else "0" for one in side)
        assert ranked_splits(pixels, colors, None)[0] == wanted
        assert ranked_splits(pixels, None, side.astype(np.uint8))[0] == wanted


def test_splits_are_few_and_start_with_zero():
    splits = ranked_splits(window(2), None, None)
    assert len(splits) == MOST_SPLITS
    assert all(split[0] == "0" and "1" in split and len(split) == 25 for split in splits)


def test_a_pixel_and_a_large_region_have_no_split():
    assert ranked_splits(window(0), None, None) == []
    assert ranked_splits(window(10), None, None) == []
    assert len(line_splits(window(0))) == 0


def test_flat_colours_and_one_predicted_class_decide_nothing():
    pixels = window(1)
    flat = np.full((9, 3), 7, dtype=np.uint8)
    assert ranked_splits(pixels, flat, np.zeros(9, np.uint8)) == ranked_splits(pixels, None, None)
