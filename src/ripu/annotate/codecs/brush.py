"""Label Studio's run-length encoding of brush strokes.

It is the format of @thi.ng/rle-pack: 32 bits for the number of values, 5 for the bits of a value less one, four times 4
for the bits of a length less one; then blocks of a bit (1: one value repeated, 0: as many values), 2 bits that choose
one of the four sizes, the length less one, and the value or values. The values are the
channels R, G, B, A of each pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.codecs.masks import Mask
from ripu.annotate.codecs.reading import MalformedError

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_MOST_RUN = 1 << _LENGTH_BITS[-1]


def encode_brush(mask: NDArray[np.uint8]) -> list[int]:
    """Return the bytes of a mask.

    Args:
        mask: (h, w) uint8; pixels other than 0 are painted.
    """
    values = mask.reshape(-1) > 0
    head = f"{_CHANNELS * len(values):032b}{_VALUE_BITS - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    starts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    blocks = []
    for start, end in itertools.pairwise(starts):
        value = "1" * _VALUE_BITS if values[start] else "0" * _VALUE_BITS
        for first in range(_CHANNELS * start, _CHANNELS * end, _MOST_RUN):
            length = min(_CHANNELS * end - first, _MOST_RUN)
            kind = next(kind for kind, bits in enumerate(_LENGTH_BITS) if length <= 1 << bits)
            blocks.append(f"1{kind:02b}{length - 1:0{_LENGTH_BITS[kind]}b}{value}")
    text = head + "".join(blocks)
    bits = np.frombuffer(text.encode(), dtype=np.uint8) - ord("0")
    return [int(byte) for byte in np.packbits(bits)]


def decode_brush(rle: Sequence[object], height: int, width: int, where: str) -> Mask:
    """Return the painted pixels, (h, w) bool: those that are not fully transparent.

    Args:
        rle: Bytes.
        height: Rows of the picture.
        width: Columns of the picture.
        where: Their place in the file, for the message.

    Raises:
        MalformedError: They are not such an encoding, or have another size.
    """
    damaged = MalformedError(f"{where}: its brush mask is damaged, or does not have {height} x {width} pixels")
    if not all(type(byte) is int and 0 <= byte < 256 for byte in rle):
        raise damaged
    bits = np.unpackbits(np.asarray(rle, dtype=np.uint8))
    digits = (bits + ord("0")).tobytes()
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise damaged
        return int(digits[place - count : place], 2)

    size = height * width * _CHANNELS
    if take(32) != size:
        raise damaged
    value_bits = take(5) + 1
    length_bits = [take(4) + 1 for _ in range(4)]
    painted = np.zeros(size, dtype=np.bool_)
    at = 0
    while at < size:
        is_run = take(1)
        end = at + take(length_bits[take(2)]) + 1
        count = value_bits * (1 if is_run else end - at)
        if end > size or place + count > len(bits):
            raise damaged
        painted[at:end] = bits[place : place + count].reshape(-1, value_bits).any(axis=1)
        at, place = end, place + count
    mask: Mask = painted.reshape(height, width, _CHANNELS)[:, :, -1]
    return mask
