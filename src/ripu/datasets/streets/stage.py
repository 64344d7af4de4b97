"""The stage that every painter works on, and the strokes that painters share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ripu.datasets.streets.canvas import CIRCLE, Camera, Canvas, Color, Dice, Pixel
from ripu.datasets.streets.styles import Style, Weather
from ripu.datasets.taxonomy import CITYSCAPES19

ID: dict[str, int] = {
    CITYSCAPES19.class_names[train_id]: label for label, train_id in CITYSCAPES19.disk_to_train.items()
}
"""Class name -> label id of Cityscapes."""
EGO_VEHICLE = 1
STATIC = 4

Local = Callable[[float, float], Pixel]
"""Maps two local coordinates in metres to a canvas pixel."""

GLASS: Color = (58, 68, 78)
RUBBER: Color = (26, 26, 28)


@dataclass(frozen=True)
class Stage:
    """Scene in the making.

    Attributes:
        canvas: Target of the strokes.
        camera: Projection of the world.
        dice: The random numbers of this scene.
        style: The domain.
        weather: Light and air of this scene.
        sun_side: -1 if the sun is on the left, 1 if on the right.
        front_light: Brightness of faces towards the camera.
    """

    canvas: Canvas
    camera: Camera
    dice: Dice
    style: Style
    weather: Weather
    sun_side: int
    front_light: float

    def face_light(self, normal_side: int) -> float:
        """Return the brightness of an upright face that looks left (-1), at the camera (0) or right (1)."""
        if normal_side == 0:
            return 1.0 + (self.front_light - 1.0) * (0.3 + 0.7 * self.weather.sun)
        lit = 1.1 if normal_side == self.sun_side else 0.62
        return 1.0 + (lit - 1.0) * (0.25 + 0.75 * self.weather.sun)

    def has(self, name: str) -> bool:
        """Return whether a class occurs in this domain."""
        return name not in self.style.excluded

    def count(self, rate: float) -> int:
        """Return a number of things with this mean (geometric: mostly few, sometimes many)."""
        number = 0
        while number < 40 and self.dice.chance(rate / (1.0 + rate)):
            number += 1
        return number

    def board(self, s: float, z: float, stretch: float = 1.0, base: float = 0.0) -> Local:
        """Return local coordinates (right, up) of a flat thing that stands at (s, z) and faces the camera.

        Args:
            s: Lateral position of its middle.
            z: Distance.
            stretch: Factor on its width; a negative one mirrors it.
            base: Height of its foot above the ground.
        """
        return lambda u, v: self.camera.point(s + u * stretch, base + v, z)

    def oval(self, at: Local, u: float, v: float, radius_u: float, radius_v: float) -> list[Pixel]:
        """Return the outline of an ellipse in local coordinates."""
        return [at(u + radius_u * c, v + radius_v * d) for c, d in CIRCLE]

    def bar(
        self, at: Local, start: tuple[float, float], end: tuple[float, float], width: float, z: float
    ) -> list[Pixel]:
        """Return the outline of a straight bar in local coordinates, at least 1.6 canvas pixels wide."""
        half = max(width, 1.6 * z / self.camera.focal_px) / 2
        du, dv = end[0] - start[0], end[1] - start[1]
        length = math.sqrt(du * du + dv * dv) or 1.0
        nu, nv = -dv / length * half, du / length * half
        return [
            at(start[0] + nu, start[1] + nv),
            at(end[0] + nu, end[1] + nv),
            at(end[0] - nu, end[1] - nv),
            at(start[0] - nu, start[1] - nv),
        ]

    def ground(self, left: float, right: float, near: float, far: float) -> list[Pixel]:
        """Return the outline of a patch of ground between two lateral positions and two distances, along the road."""
        steps = [near + (far - near) * k * k / 100.0 for k in range(11)] if far - near > 8 else [near, far]
        return [self.camera.point(left, 0.0, z) for z in steps] + [
            self.camera.point(right, 0.0, z) for z in reversed(steps)
        ]

    def blob_shadow(self, s: float, z: float, half_width: float, half_depth: float) -> None:
        """Cast a shadow on the ground under and beside a thing."""
        reach = half_width * (0.15 + 1.3 * self.weather.sun) * -self.sun_side
        self.canvas.cast(
            [
                self.camera.point(s + reach / 2 + (half_width + abs(reach) / 2) * c, 0.0, max(1.5, z + half_depth * d))
                for c, d in CIRCLE
            ]
        )


def quad(at: Local, u0: float, u1: float, v0: float, v1: float) -> list[Pixel]:
    """Return the outline of a rectangle in local coordinates."""
    return [at(u0, v0), at(u0, v1), at(u1, v1), at(u1, v0)]
