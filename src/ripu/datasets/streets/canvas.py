"""Canvas, camera and dice of the street scenes.

A scene is painted far to near (painter's algorithm) on two layers at twice the final size: `paint` holds the colour
entry of a pixel, `owner` the object it belongs to. Image and label therefore come from the same strokes.

Only integer polygon filling and float operations that IEEE 754 defines exactly (+, -, *, /, sqrt, floor) are used, so
that a seed gives the same pixels on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""RGB, each 0..255."""
Pixel = tuple[int, int]
"""Column and row on the canvas (twice the final size)."""

T = TypeVar("T")

_LIMIT_PX = 16_000  # keeps far-off corners inside OpenCV's fixed-point range
_QUARTER = [((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)) for t in (0.0, 0.2, 0.4142, 0.668)]
CIRCLE: tuple[tuple[float, float], ...] = tuple(
    (c * a - s * b, s * a + c * b) for a, b in ((1, 0), (0, 1), (-1, 0), (0, -1)) for c, s in _QUARTER
)
"""Sixteen points of the unit circle by its rational parametrisation (no sine, hence the same everywhere)."""


class Dice:
    """Random numbers of one scene; they depend on (seed, domain, index) alone.

    Args:
        seed: Seed of the whole data set, >= 0.
        domain: Number of the set (source, target train, ...), >= 0.
        index: Number of the scene in its set, >= 0.
    """

    def __init__(self, seed: int, domain: int, index: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, domain, index))))

    def uniform(self, low: float, high: float) -> float:
        """Return a float in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def within(self, bounds: tuple[float, float]) -> float:
        """Return a float in [bounds[0], bounds[1])."""
        return self.uniform(bounds[0], bounds[1])

    def integer(self, low: int, high: int) -> int:
        """Return an int in low..high, both included."""
        return int(self._generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self._generator.random()) < probability

    def side(self) -> int:
        """Return -1 or 1."""
        return 1 if self.chance(0.5) else -1

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self._generator.integers(0, len(options)))]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """Return one of the keys, with probability proportional to its value."""
        left = float(self._generator.random()) * sum(weights.values())
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return next(iter(weights))

    def tone(self, palette: Sequence[Color], spread: int = 14) -> Color:
        """Return a colour of the palette, varied a little in brightness and in each channel."""
        red, green, blue = self.pick(palette)
        light = self.integer(-spread, spread)
        jitter = [self.integer(-spread // 2, spread // 2) for _ in range(3)]
        return clip_color(red + light + jitter[0], green + light + jitter[1], blue + light + jitter[2])

    def noise(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return independent bytes 0..255."""
        return self._generator.integers(0, 256, size=shape, dtype=np.uint8)


def clip_color(red: float, green: float, blue: float) -> Color:
    """Round each channel down and clip it to 0..255."""
    return min(255, max(0, int(red))), min(255, max(0, int(green))), min(255, max(0, int(blue)))


def shade(color: Color, factor: float) -> Color:
    """Return the colour made darker (factor < 1) or brighter (> 1)."""
    return clip_color(color[0] * factor, color[1] * factor, color[2] * factor)


def mix(first: Color, second: Color, weight: float) -> Color:
    """Return (1 - weight) * first + weight * second."""
    return clip_color(*(a + (b - a) * weight for a, b in zip(first, second, strict=True)))


@dataclass(frozen=True)
class Camera:
    """Pinhole camera that looks along the road; units are metres and canvas pixels.

    Attributes:
        focal_px: Focal length.
        height_m: Height above the road.
        horizon_px: Row of the horizon.
        center_px: Column of the vanishing point of a straight road.
        offset_m: Lateral position of the camera; 0 is the middle of the road, right is positive.
        curve: The road's middle lies at curve * z**2.
    """

    focal_px: float
    height_m: float
    horizon_px: float
    center_px: float
    offset_m: float
    curve: float

    def point(self, s: float, y: float, z: float) -> Pixel:
        """Return the pixel of a point (metres): `s` right of the road's middle, `y` above the ground, `z` > 0 ahead."""
        scale = self.focal_px / z
        column = self.center_px + (s - self.offset_m + self.curve * z * z) * scale
        row = self.horizon_px + (self.height_m - y) * scale
        return (
            min(_LIMIT_PX, max(-_LIMIT_PX, math.floor(column + 0.5))),
            min(_LIMIT_PX, max(-_LIMIT_PX, math.floor(row + 0.5))),
        )

    def px(self, metres: float, z: float) -> float:
        """Return the size on the canvas of a length seen at right angles at distance z."""
        return metres * self.focal_px / z

    def lateral(self, s: float, z: float) -> float:
        """Return the distance of a point to the right of the line of sight (metres)."""
        return s - self.offset_m + self.curve * z * z


class Canvas:
    """Two layers, `paint` and `owner`, with the tables of their numbers; entry 0 of both is the sky.

    Args:
        height: Rows of the canvas.
        width: Columns of the canvas.
        sky_id: Label id of the sky.
    """

    def __init__(self, height: int, width: int, sky_id: int) -> None:
        self.paint: NDArray[np.uint16] = np.zeros((height, width), dtype=np.uint16)
        self.owner: NDArray[np.uint16] = np.zeros((height, width), dtype=np.uint16)
        self.shadow: NDArray[np.uint8] = np.zeros((height, width), dtype=np.uint8)
        self.colors: list[Color] = [(128, 160, 200)]
        self.depths: list[float] = [1000.0]
        self.grains: list[Color] = [(0, 0, 0)]
        self.classes: list[int] = [sky_id]
        self.instances: list[int] = [0]
        self._depth = 1000.0
        self._grain: Color = (0, 0, 0)
        self._num_instances = 0
        self._paints: dict[tuple[Color, float, Color], int] = {}

    def begin(self, label_id: int, depth_m: float, grain: Color = (0, 0, 0), instance: bool = False) -> None:
        """Start an object, to which everything filled from here on belongs.

        Args:
            label_id: Its label id.
            depth_m: Its distance, for haze; 0 for the ground, whose distance follows from the row.
            grain: Strength 0..255 of its fine, middle and coarse texture.
            instance: Whether it gets its own instance number.
        """
        if instance:
            self._num_instances += 1
        self.classes.append(label_id)
        self.instances.append(self._num_instances if instance else 0)
        self._depth = depth_m
        self._grain = grain
        assert len(self.classes) < 65_536

    def resume(self, owner: int, depth_m: float) -> None:
        """Continue with the class and instance of an earlier object (see :attr:`current`)."""
        self.classes.append(self.classes[owner])
        self.instances.append(self.instances[owner])
        self._depth = depth_m

    @property
    def current(self) -> int:
        """Number of the object begun last."""
        return len(self.classes) - 1

    def fill(self, points: Sequence[Pixel], color: Color, grain: Color | None = None) -> None:
        """Fill a polygon in both layers."""
        self._fill(self.paint, [points], self._entry(color, grain))
        self._fill(self.owner, [points], self.current)

    def detail(self, points: Sequence[Pixel], color: Color, grain: Color | None = None) -> None:
        """Fill a polygon in the paint layer only: a detail inside the area that the object owns already."""
        self._fill(self.paint, [points], self._entry(color, grain))

    def ring(self, outer: Sequence[Pixel], inner: Sequence[Pixel], color: Color) -> None:
        """Paint the area between two outlines; the hole belongs to the object as well."""
        self._fill(self.paint, [outer, inner], self._entry(color, None))
        self._fill(self.owner, [outer], self.current)

    def claim(self, points: Sequence[Pixel]) -> None:
        """Give a polygon to the object without painting it (gaps between the bars of a fence)."""
        self._fill(self.owner, [points], self.current)

    def cast(self, points: Sequence[Pixel]) -> None:
        """Put a polygon of the ground in the shade."""
        self._fill(self.shadow, [points], 255)

    def _entry(self, color: Color, grain: Color | None) -> int:
        key = (color, self._depth, self._grain if grain is None else grain)
        if key not in self._paints:
            self._paints[key] = len(self.colors)
            self.colors.append(color)
            self.depths.append(key[1])
            self.grains.append(key[2])
            assert len(self.colors) < 65_536
        return self._paints[key]

    @staticmethod
    def _fill(layer: NDArray[np.uint16] | NDArray[np.uint8], loops: Sequence[Sequence[Pixel]], value: int) -> None:
        height, width = layer.shape
        first = loops[0]
        if max(x for x, _ in first) < 0 or min(x for x, _ in first) >= width:
            return
        if max(y for _, y in first) < 0 or min(y for _, y in first) >= height:
            return
        cv2.fillPoly(layer, [np.array(loop, dtype=np.int32) for loop in loops], (value,))
