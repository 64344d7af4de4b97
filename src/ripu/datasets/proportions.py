"""The proportions of images: the size at which the network sees them (``data.fit``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Fit = Literal["stretch", "pad"]

_MIXED, _ALIKE = 0.02, 0.05  # relative differences of width / height up to which images may be stretched silently


def fitted(size: tuple[int, ...], frame: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """Return the (height, width) that an image of ``size`` is resized to for a network that is fed at ``frame``.

    Args:
        size: (height, width) of the image; more numbers are ignored.
        frame: (height, width), e.g. ``data.target_size``.
        fit: ``stretch`` to the frame, or ``pad``: the largest size inside it that keeps the proportions.

    >>> fitted((240, 180), (64, 96), "pad"), fitted((240, 180), (64, 96), "stretch")
    ((64, 48), (64, 96))
    """
    if fit == "stretch":
        return frame
    scale = min(frame[0] / size[0], frame[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def squashed(sizes: Sequence[tuple[int, int]], frame: tuple[int, int]) -> list[int]:
    """Return the positions of the images whose proportions would visibly change if they were stretched to ``frame``.

    They differ from those of the frame by more than 2 %; by more than 5 % if all images have the same proportions, as a
    data set whose size in training was chosen for them.

    >>> squashed([(64, 96), (240, 180)], (64, 96))
    [1]
    """
    ratios = [width / height for height, width in sizes]
    if not ratios:
        return []
    tolerance = _MIXED if max(ratios) / min(ratios) > 1 + _MIXED else _ALIKE
    own = frame[1] / frame[0]
    return [at for at, ratio in enumerate(ratios) if max(ratio / own, own / ratio) > 1 + tolerance]
