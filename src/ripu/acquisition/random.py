"""Random scores from a counter and a key: the same on every machine, device and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_logits
from ripu.io.errors import ConfigError

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class RandomScore:
    """Independent uniform scores in [0, 1) (RAND): the pixel's number in the stream of the image's key."""

    needs_image: ClassVar[bool] = False

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`. Only the number and device of the logits matter."""
        check_logits(logits)
        if len(keys) != logits.shape[0]:
            raise ConfigError(f"{len(keys)} keys for a batch of {logits.shape[0]}: pass one key per image.")
        maps = [uniform_map(key, size, logits.device) for key in keys]
        return ScoreMaps(torch.stack(maps) if maps else torch.empty((0, *size), device=logits.device))


def uniform_map(key: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Return (H, W) float32 multiples of 2^-24 in [0, 1) from SplitMix64 (Steele et al., OOPSLA 2014).

    Raises:
        ConfigError: The key, which is the seed, is not in 0 .. 2^64 - 1.

    >>> uniform_map(7, (1, 2), torch.device("cpu")).tolist()
    [[0.38982969522476196, 0.016788244247436523]]
    """
    if not 0 <= key < 1 << 64:
        raise ConfigError(f"key {key} must lie in 0 .. 2**64 - 1.")
    height, width = size
    counter = torch.arange(1, height * width + 1, dtype=torch.int64, device=device)
    # int64 products and sums wrap around as unsigned ones do; only right shifts differ, hence the masks.
    state = counter.mul_(_signed(_GAMMA)).add_(_signed(key))
    state = (state ^ _shifted(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shifted(state, 27)) * _signed(_MIX_2)
    state = state ^ _shifted(state, 31)
    return _shifted(state, 40).float().mul_(2.0**-24).reshape(height, width)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def _shifted(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)
