"""Cars, lorries, buses and trams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ripu.datasets.streets.canvas import CIRCLE, Color, Pixel, mix, shade
from ripu.datasets.streets.stage import GLASS, ID, RUBBER, Stage

Profile = tuple[tuple[float, float], ...]
"""Side outline of a vehicle, from the front's foot over the roof to the rear's: (behind the front, up) in metres."""

LAMP: Color = (255, 246, 206)
TAIL: Color = (176, 24, 22)


@dataclass(frozen=True)
class Body:
    """Vehicle, as a side outline extruded over its width.

    Attributes:
        label: Class name.
        profile: Side outline.
        glass_edges: Edges of the outline that are panes (windscreen, rear window).
        width: Metres.
        panes: Side windows, each a polygon in the outline's coordinates.
        wheels: Distances of the axles behind the front.
        wheel_radius: Metres; 0 for hidden wheels.
    """

    label: str
    profile: Profile
    glass_edges: frozenset[int]
    width: float
    panes: tuple[Profile, ...]
    wheels: tuple[float, ...]
    wheel_radius: float

    @property
    def length(self) -> float:
        """Metres from front to rear."""
        return self.profile[-1][0]


_SEDAN = Body(
    "car",
    ((0, 0.24), (0, 0.72), (1.15, 0.92), (1.9, 1.4), (3.2, 1.44), (3.95, 1.02), (4.6, 0.98), (4.6, 0.24)),
    frozenset({2, 4}),
    1.8,
    (((1.45, 0.97), (2.0, 1.32), (2.5, 1.34), (2.5, 0.97)), ((2.6, 0.97), (2.6, 1.34), (3.15, 1.34), (3.7, 1.0))),
    (0.85, 3.7),
    0.33,
)
_HATCH = Body(
    "car",
    ((0, 0.24), (0, 0.78), (0.95, 0.98), (1.65, 1.48), (3.2, 1.52), (3.75, 1.0), (3.9, 0.24)),
    frozenset({2, 4}),
    1.72,
    (((1.25, 1.0), (1.75, 1.38), (2.25, 1.4), (2.25, 1.0)), ((2.35, 1.0), (2.35, 1.4), (3.1, 1.4), (3.45, 1.02))),
    (0.7, 3.2),
    0.32,
)
_SUV = Body(
    "car",
    ((0, 0.3), (0, 0.98), (1.1, 1.12), (1.7, 1.74), (4.3, 1.78), (4.7, 1.1), (4.75, 0.3)),
    frozenset({2, 4}),
    1.95,
    (
        ((1.4, 1.15), (1.85, 1.64), (2.6, 1.66), (2.6, 1.15)),
        ((2.7, 1.15), (2.7, 1.66), (3.5, 1.66), (3.5, 1.15)),
        ((3.6, 1.15), (3.6, 1.66), (4.2, 1.64), (4.45, 1.18)),
    ),
    (0.9, 3.85),
    0.38,
)
_VAN = Body(
    "car",
    ((0, 0.28), (0, 1.0), (0.55, 1.18), (1.15, 2.05), (5.0, 2.12), (5.1, 1.2), (5.1, 0.28)),
    frozenset({2, 4}),
    1.95,
    (((0.85, 1.2), (1.3, 1.85), (1.95, 1.88), (1.95, 1.2)),),
    (0.95, 4.1),
    0.36,
)
CARS = (_SEDAN, _HATCH, _SUV, _SEDAN, _HATCH, _VAN)
"""Kinds of cars; saloons and small cars are twice as likely."""


def _row(start: float, stop: float, pitch: float, low: float, high: float, post: float = 0.16) -> tuple[Profile, ...]:
    number = int((stop - start) / pitch)
    return tuple(
        (
            (start + k * pitch, low),
            (start + k * pitch, high),
            (start + (k + 1) * pitch - post, high),
            (start + (k + 1) * pitch - post, low),
        )
        for k in range(number)
    )


BUS = Body(
    "bus",
    ((0, 0.32), (0, 1.15), (0.22, 2.7), (0.3, 3.05), (11.6, 3.1), (11.7, 2.4), (11.7, 1.3), (11.7, 0.32)),
    frozenset({1, 5}),
    2.5,
    _row(0.5, 11.4, 1.36, 1.35, 2.5),
    (2.6, 8.6),
    0.5,
)
"""A city bus: one row of windows, doors, two axles."""
TRAM = Body(
    "train",
    ((0, 0.12), (-0.0, 1.0), (0.9, 2.75), (1.5, 3.5), (27.0, 3.5), (27.6, 2.75), (28.5, 1.0), (28.5, 0.12)),
    frozenset({1, 5}),
    2.6,
    _row(2.0, 26.8, 1.9, 1.2, 2.6, 0.3),
    (),
    0.0,
)
"""A tram: long, sloping ends, wheels hidden by skirts."""
_CAB = Body(
    "truck",
    ((0, 0.45), (0, 1.35), (0.25, 2.55), (0.7, 2.75), (2.1, 2.8), (2.1, 0.45)),
    frozenset({1}),
    2.4,
    (((0.4, 1.5), (0.55, 2.35), (1.5, 2.4), (1.5, 1.5)),),
    (1.1,),
    0.5,
)
_CARGO = Body("truck", ((2.3, 0.9), (2.3, 3.5), (8.6, 3.5), (8.6, 0.9)), frozenset(), 2.5, (), (5.9, 7.3), 0.5)

Place = Callable[[float, float, float], Pixel]
"""Maps (behind the front, up, across -0.5..0.5 of the width) to a canvas pixel."""


def vehicle(stage: Stage, body: Body, color: Color, s: float, z: float, heading: int, begin: bool = True) -> None:
    """Paint a vehicle.

    Args:
        stage: The scene.
        body: Its shape.
        color: Colour of its paint.
        s: Lateral position of its middle.
        z: Distance of its nearest point.
        heading: 1 drives away from the camera, -1 comes towards it; 2 and -2 cross to the right and left.
        begin: Whether it is a new object (False: a further part of the previous one).
    """
    canvas, cam = stage.canvas, stage.camera
    length, width = body.length, body.width
    if begin:
        canvas.begin(ID[body.label], z + (1.0 if abs(heading) == 2 else 2.0), (3, 3, 4), instance=True)
    along = abs(heading) == 1

    def place(u: float, y: float, v: float) -> Pixel:
        if along:
            return cam.point(s + v * width, y, z + (u if heading < 0 else length - u))
        return cam.point(s + (0.5 * length - u) * (1 if heading > 0 else -1), y, z + (v + 0.5) * width)

    start = body.profile[0][0]
    near_end = length if heading == 1 else start
    lateral = cam.lateral(s, z)
    if along:
        flank = -1 if lateral > 0 else 1
        flank_light, flank_visible = stage.face_light(flank), abs(lateral) > width / 2
        shade_s = s - stage.sun_side * (0.2 + 0.9 * stage.weather.sun)
        canvas.cast(
            stage.ground(min(s, shade_s) - width * 0.52, max(s, shade_s) + width * 0.52, max(1.5, z - 0.2), z + length)
        )
    else:
        flank, flank_light, flank_visible = -1, stage.face_light(0), True
        canvas.cast(stage.ground(s - length * 0.54, s + length * 0.54, max(1.5, z - 0.4), z + width))
    edges = [(k, body.profile[k], body.profile[k + 1]) for k in range(len(body.profile) - 1)]
    if along:
        edges.sort(key=lambda edge: -abs((edge[1][0] + edge[2][0]) / 2 - near_end))
    for k, (u0, y0), (u1, y1) in edges:
        pane = k in body.glass_edges
        upright = abs(y1 - y0) > 1.2 * abs(u1 - u0)
        light = stage.face_light(0) if upright else 1.0 + 0.18 * stage.weather.sun
        tone = mix(GLASS, stage.weather.zenith, 0.25 if upright else 0.4) if pane else color
        outline = [place(u0, y0, -0.5), place(u1, y1, -0.5), place(u1, y1, 0.5), place(u0, y0, 0.5)]
        canvas.fill(outline, shade(color if pane else tone, light))
        if pane:
            ua, ya, ub, yb = u0 + (u1 - u0) * 0.1, y0 + (y1 - y0) * 0.1, u0 + (u1 - u0) * 0.9, y0 + (y1 - y0) * 0.9
            canvas.detail([place(ua, ya, -0.43), place(ub, yb, -0.4), place(ub, yb, 0.4), place(ua, ya, 0.43)], tone)
    if along:
        _end(stage, body, color, place, near_end, heading)
    if flank_visible:
        _flank(stage, body, color, place, 0.5 * flank, flank_light)


def _flank(stage: Stage, body: Body, color: Color, place: Place, side: float, flank_light: float) -> None:
    """Paint the visible side of a vehicle, at ``side`` = -0.5 or 0.5 of its width."""
    canvas, dice = stage.canvas, stage.dice
    start, length = body.profile[0][0], body.length
    r = body.wheel_radius
    for wheel in body.wheels:
        canvas.fill([place(wheel + r * c, r + r * d, side * 0.97) for c, d in CIRCLE], RUBBER)
    canvas.fill([place(u, y, side) for u, y in body.profile], shade(color, flank_light))
    low = body.profile[0][1]
    if body is _CARGO:
        canvas.fill(
            [place(u, y, side) for u, y in ((start, 0.5), (start, low), (length, low), (length, 0.5))], (40, 40, 42)
        )
    sill = [place(u, y, side) for u, y in ((start, low), (length, low), (length, low + 0.14), (start, low + 0.14))]
    canvas.detail(sill, shade(color, 0.55 * flank_light))
    glass = mix(GLASS, stage.weather.zenith, 0.2)
    lit = stage.weather.lamps and body.label in ("bus", "train")
    for pane_outline in body.panes:
        tone = (236, 214, 160) if lit and dice.chance(0.7) else shade(glass, dice.uniform(0.8, 1.1))
        canvas.detail([place(u, y, side) for u, y in pane_outline], tone)
    _flank_details(stage, body, color, place, side, flank_light)
    for wheel in body.wheels:
        canvas.fill([place(wheel + r * c, r + r * d, side) for c, d in CIRCLE], RUBBER)
        canvas.detail(
            [place(wheel + 0.58 * r * c, r + 0.58 * r * d, side) for c, d in CIRCLE],
            shade((150, 152, 156), flank_light),
        )


def _flank_details(stage: Stage, body: Body, color: Color, place: Place, side: float, flank_light: float) -> None:
    """Paint what only some vehicles have on their side: stripe, doors, joint, lamps."""
    canvas, dice, length, low = stage.canvas, stage.dice, body.length, body.profile[0][1]

    def upright(left: float, right: float, bottom: float, top: float, tone: Color) -> None:
        corners = ((left, bottom), (left, top), (right, top), (right, bottom))
        canvas.detail([place(u, y, side) for u, y in corners], tone)

    if body.label in ("bus", "train"):
        stripe = dice.tone(((236, 236, 232), (40, 50, 90), (180, 30, 30), (40, 110, 70), (230, 190, 50)))
        corners = ((0.2, 0.75), (length - 0.2, 0.75), (length - 0.2, 1.0), (0.2, 1.0))
        canvas.detail([place(u, y, side) for u, y in corners], shade(stripe, flank_light))
        glass = mix(GLASS, stage.weather.zenith, 0.2)
        for door in (0.9, length * 0.5, length * 0.85) if body.label == "bus" else (4.0, 10.0, 17.0, 23.5):
            upright(door, door + 1.2, 0.4, 2.6, shade(glass, 0.7))
    if body.label == "train":
        upright(14.0, 14.5, 0.2, 3.4, (44, 44, 46))
    if body.label == "car":
        middle = length * 0.55
        upright(middle, middle + 0.04, low + 0.15, 0.95, shade(color, 0.7 * flank_light))
        for u, tone in ((0.02, LAMP), (length - 0.3, TAIL)):
            upright(u, u + 0.26, 0.62, 0.78, shade(tone, 0.8))


def _end(stage: Stage, body: Body, color: Color, place: Place, u: float, heading: int) -> None:
    """Paint lamps, plate, bumper and other parts of the front or rear of a vehicle."""
    canvas, dice = stage.canvas, stage.dice
    low = body.profile[0][1]
    high = body.profile[1][1] if heading < 0 else body.profile[-2][1]

    patch = partial(_patch, stage, place, u)
    light = stage.face_light(0)
    rise = high - low
    patch(-0.5, 0.5, low, low + 0.2, shade(mix(color, (40, 40, 42), 0.6), light))
    lamp = LAMP if heading < 0 else TAIL
    if not stage.weather.lamps:
        lamp = mix(lamp, (170, 170, 170) if heading < 0 else (90, 20, 20), 0.35)
    elif heading > 0:
        lamp = (250, 50, 40)
    if body.label in ("bus", "train"):
        level = low + 0.35
        patch(-0.45, -0.32, level, level + 0.25, lamp)
        patch(0.32, 0.45, level, level + 0.25, lamp)
        if body.label == "bus":
            _bus_end(stage, place, u, low)
        if body.label == "bus" and heading > 0:
            patch(-0.4, 0.4, 0.6, 1.15, shade(color, 0.7 * light))
        return
    if body is _CARGO:
        patch(-0.02, 0.02, 1.0, 3.4, shade(color, 0.6))
        patch(-0.46, 0.46, 0.95, 1.1, shade(color, 0.55))
        for v in (-0.3, -0.12, 0.12, 0.3):
            patch(v - 0.012, v + 0.012, 1.1, 3.4, shade(color, 0.72))
        canvas.fill(
            [place(u, 0.4, -0.46), place(u, 0.9, -0.46), place(u, 0.9, 0.46), place(u, 0.4, 0.46)], (38, 38, 40)
        )
        patch(-0.45, -0.32, 0.6, 0.8, lamp)
        patch(0.32, 0.45, 0.6, 0.8, lamp)
        for v in (-0.42, 0.22):
            canvas.fill([place(u, 0.0, v), place(u, 0.6, v), place(u, 0.6, v + 0.2), place(u, 0.0, v + 0.2)], RUBBER)
        return
    y = low + rise * 0.55
    patch(-0.48, -0.3, y, y + rise * 0.3, lamp)
    patch(0.3, 0.48, y, y + rise * 0.3, lamp)
    patch(-0.15, 0.15, low + 0.12, low + 0.27, (224, 222, 206) if dice.chance(0.9) else (230, 200, 70))
    if heading < 0:
        patch(-0.26, 0.26, low + rise * 0.45, low + rise * 0.75, (40, 42, 44))
    under = low - 0.13
    canvas.fill(
        [place(u, under, -0.44), place(u, low, -0.46), place(u, low, 0.46), place(u, under, 0.44)], (34, 34, 36)
    )
    for v in (-0.48, 0.35):
        canvas.fill([place(u, 0.0, v), place(u, low, v), place(u, low, v + 0.13), place(u, 0.0, v + 0.13)], RUBBER)


def _patch(stage: Stage, place: Place, u: float, v0: float, v1: float, y0: float, y1: float, tone: Color) -> None:
    stage.canvas.detail([place(u, y0, v0), place(u, y1, v0), place(u, y1, v1), place(u, y0, v1)], tone)


def _bus_end(stage: Stage, place: Place, u: float, low: float) -> None:
    """Paint the wheels and the destination display of a bus."""
    for v in (-0.46, 0.3):
        stage.canvas.fill(
            [place(u, 0.0, v), place(u, low, v), place(u, low, v + 0.16), place(u, 0.0, v + 0.16)], RUBBER
        )
    _patch(stage, place, u, -0.34, 0.34, 2.66, 2.96, (34, 34, 30))
    _patch(stage, place, u, -0.24, 0.2, 2.74, 2.88, (250, 180, 60))


def truck(stage: Stage, s: float, z: float, heading: int) -> None:
    """Paint a lorry: a cab and a box without windows."""
    cab, box = (
        stage.dice.tone(stage.style.car, 24),
        stage.dice.tone((*stage.style.car, (226, 226, 222), (200, 196, 186)), 20),
    )
    parts = [(_CARGO, box), (_CAB, cab)]
    total = _CARGO.length
    stage.canvas.begin(ID["truck"], z + 2.0, (3, 4, 6), instance=True)
    if heading == 1:
        parts.reverse()
    for body, color in parts:
        # each part is drawn in the coordinates of the whole lorry
        shift = total - body.length if heading == 1 else 0.0
        if abs(heading) == 2:
            side = 1 if heading > 0 else -1
            vehicle(stage, body, color, s + side * (total - body.length) / 2, z, heading, begin=False)
        else:
            vehicle(stage, body, color, s, z + shift, heading, begin=False)


def car(stage: Stage, s: float, z: float, heading: int) -> None:
    """Paint a saloon, small car, off-roader or van."""
    vehicle(stage, stage.dice.pick(CARS), stage.dice.tone(stage.style.car, 22), s, z, heading)


def bus(stage: Stage, s: float, z: float, heading: int) -> None:
    """Paint a city bus."""
    vehicle(stage, BUS, stage.dice.tone((*stage.style.car, (236, 236, 230), (224, 186, 60)), 20), s, z, heading)


def tram(stage: Stage, s: float, z: float, heading: int) -> None:
    """Paint a tram of two cars."""
    vehicle(stage, TRAM, stage.dice.tone((*stage.style.car, (236, 236, 230), (224, 186, 60)), 20), s, z, heading)
