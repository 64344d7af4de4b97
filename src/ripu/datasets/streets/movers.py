"""Vehicles, two-wheelers and people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ripu.datasets.streets.canvas import CIRCLE, Color, Pixel, mix, shade
from ripu.datasets.streets.stage import GLASS, ID, RUBBER, Local, Stage, quad

Profile = tuple[tuple[float, float], ...]
"""Outline of a vehicle's side from the front's foot over the roof to the rear's foot: (behind the front, up) in m."""

_SKIN: tuple[Color, ...] = ((224, 180, 150), (190, 140, 110), (140, 96, 70), (96, 66, 50))
_HAIR: tuple[Color, ...] = ((40, 30, 24), (90, 64, 40), (160, 130, 80), (120, 116, 112))
_LAMP: Color = (255, 246, 206)
_TAIL: Color = (176, 24, 22)


@dataclass(frozen=True)
class Body:
    """A vehicle as a side outline that is drawn out over its width.

    Attributes:
        label: Class name.
        profile: Side outline.
        glass_edges: Which edges of the outline are panes (windscreen, rear window).
        width: Metres.
        panes: Side windows, each a polygon in the outline's coordinates.
        wheels: Places of the axles behind the front.
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
"""Kinds of cars; the saloon and the small car are the common ones."""


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
        color: Of its paint.
        s: Lateral place of its middle.
        z: Distance of its nearest point.
        heading: 1 drives away from the camera, -1 comes towards it; 2 and -2 cross to the right and left.
        begin: Whether it is an object of its own (False: a further part of the one before).
    """
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
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
    for wheel in body.wheels if flank_visible else ():
        side = 0.5 * flank
        r = body.wheel_radius
        canvas.fill([place(wheel + r * c, r + r * d, side * 0.97) for c, d in CIRCLE], RUBBER)
    if flank_visible:
        side = 0.5 * flank
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
        if body.label in ("bus", "train"):
            stripe = dice.tone(((236, 236, 232), (40, 50, 90), (180, 30, 30), (40, 110, 70), (230, 190, 50)))
            canvas.detail(
                [
                    place(0.2, 0.75, side),
                    place(length - 0.2, 0.75, side),
                    place(length - 0.2, 1.0, side),
                    place(0.2, 1.0, side),
                ],
                shade(stripe, flank_light),
            )
            for door in (0.9, length * 0.5, length * 0.85) if body.label == "bus" else (4.0, 10.0, 17.0, 23.5):
                canvas.detail(
                    [
                        place(door, 0.4, side),
                        place(door, 2.6, side),
                        place(door + 1.2, 2.6, side),
                        place(door + 1.2, 0.4, side),
                    ],
                    shade(glass, 0.7),
                )
        if body.label == "train":
            canvas.detail(
                [place(14.0, 0.2, side), place(14.0, 3.4, side), place(14.5, 3.4, side), place(14.5, 0.2, side)],
                (44, 44, 46),
            )
        if body.label == "car":
            middle = length * 0.55
            canvas.detail(
                [
                    place(middle, low + 0.15, side),
                    place(middle, 0.95, side),
                    place(middle + 0.04, 0.95, side),
                    place(middle + 0.04, low + 0.15, side),
                ],
                shade(color, 0.7 * flank_light),
            )
            for u, tone in ((0.02, _LAMP), (length - 0.3, _TAIL)):
                canvas.detail(
                    [
                        place(u, 0.62, side),
                        place(u, 0.78, side),
                        place(u + 0.26, 0.78, side),
                        place(u + 0.26, 0.62, side),
                    ],
                    shade(tone, 0.8),
                )
        for wheel in body.wheels:
            r = body.wheel_radius
            canvas.fill([place(wheel + r * c, r + r * d, side) for c, d in CIRCLE], RUBBER)
            canvas.detail(
                [place(wheel + 0.58 * r * c, r + 0.58 * r * d, side) for c, d in CIRCLE],
                shade((150, 152, 156), flank_light),
            )


def _end(stage: Stage, body: Body, color: Color, place: Place, u: float, heading: int) -> None:
    """Lamps, plate, bumper and what else tells the front or rear of a vehicle."""
    canvas, dice = stage.canvas, stage.dice
    low = body.profile[0][1]
    high = body.profile[1][1] if heading < 0 else body.profile[-2][1]

    def patch(v0: float, v1: float, y0: float, y1: float, tone: Color) -> None:
        canvas.detail([place(u, y0, v0), place(u, y1, v0), place(u, y1, v1), place(u, y0, v1)], tone)

    light = stage.face_light(0)
    rise = high - low
    patch(-0.5, 0.5, low, low + 0.2, shade(mix(color, (40, 40, 42), 0.6), light))
    lamp = _LAMP if heading < 0 else _TAIL
    if not stage.weather.lamps:
        lamp = mix(lamp, (170, 170, 170) if heading < 0 else (90, 20, 20), 0.35)
    elif heading > 0:
        lamp = (250, 50, 40)
    if body.label == "bus" or body.label == "train":
        level = low + 0.35
        patch(-0.45, -0.32, level, level + 0.25, lamp)
        patch(0.32, 0.45, level, level + 0.25, lamp)
        if body.label == "bus":
            for v in (-0.46, 0.3):
                canvas.fill(
                    [place(u, 0.0, v), place(u, low, v), place(u, low, v + 0.16), place(u, 0.0, v + 0.16)], RUBBER
                )
            v = 2.66
            canvas.detail(
                [place(u, v, -0.34), place(u, v + 0.3, -0.34), place(u, v + 0.3, 0.34), place(u, v, 0.34)], (34, 34, 30)
            )
            canvas.detail(
                [
                    place(u, v + 0.08, -0.24),
                    place(u, v + 0.22, -0.24),
                    place(u, v + 0.22, 0.2),
                    place(u, v + 0.08, 0.2),
                ],
                (250, 180, 60),
            )
            if heading > 0:
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


def truck(stage: Stage, s: float, z: float, heading: int) -> None:
    """A lorry: a cab and a box without windows."""
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
    """A saloon, small car, off-roader or van."""
    vehicle(stage, stage.dice.pick(CARS), stage.dice.tone(stage.style.car, 22), s, z, heading)


def bus(stage: Stage, s: float, z: float, heading: int) -> None:
    """A city bus."""
    vehicle(stage, BUS, stage.dice.tone((*stage.style.car, (236, 236, 230), (224, 186, 60)), 20), s, z, heading)


def tram(stage: Stage, s: float, z: float, heading: int) -> None:
    """A tram of two cars."""
    vehicle(stage, TRAM, stage.dice.tone((*stage.style.car, (236, 236, 230), (224, 186, 60)), 20), s, z, heading)


def person(stage: Stage, s: float, z: float) -> None:
    """Someone on foot."""
    canvas, dice = stage.canvas, stage.dice
    size = dice.uniform(0.9, 1.08) if dice.chance(0.9) else dice.uniform(0.6, 0.75)
    canvas.begin(ID["person"], z, (4, 4, 4), instance=True)
    stage.blob_shadow(s, z, 0.35, 0.25)
    frame = stage.board(s, z, size * dice.side() * dice.uniform(0.75, 1.1))
    at: Local = lambda u, v: frame(u, v * size)  # noqa: E731
    top, bottom = dice.tone(stage.style.clothes), dice.tone(stage.style.clothes)
    skin, hair = dice.tone(_SKIN), dice.tone(_HAIR)
    stride = dice.uniform(0.03, 0.3)
    light = stage.face_light(0)
    canvas.fill(stage.bar(at, (-0.07, 0.88), (-stride, 0.06), 0.17, z), shade(bottom, light * 0.88))
    canvas.fill(stage.bar(at, (0.07, 0.88), (stride, 0.06), 0.17, z), shade(bottom, light))
    for foot in (-stride, stride):
        canvas.fill(
            [at(foot - 0.08, 0), at(foot - 0.08, 0.09), at(foot + 0.17, 0.05), at(foot + 0.17, 0)], (38, 32, 30)
        )
    _arm(stage, at, z, -0.21, -0.26 - dice.uniform(0, 0.12), top, skin, light * 0.85)
    if dice.chance(0.25):  # a coat or a skirt
        canvas.fill([at(-0.17, 0.9), at(-0.24, 0.5), at(0.24, 0.5), at(0.17, 0.9)], shade(top, light * 0.95))
    canvas.fill(
        [
            at(-0.08, 1.5),
            at(-0.23, 1.42),
            at(-0.19, 1.1),
            at(-0.18, 0.82),
            at(0.18, 0.82),
            at(0.19, 1.1),
            at(0.23, 1.42),
            at(0.08, 1.5),
        ],
        shade(top, light),
    )
    _arm(stage, at, z, 0.21, 0.26 + dice.uniform(0, 0.14), top, skin, light * 0.94)
    if dice.chance(0.3):
        u = dice.side() * 0.3
        canvas.fill(quad(at, u - 0.13, u + 0.13, 0.55, 0.9), dice.tone(stage.style.clothes))
    _head(stage, at, 0.0, 1.62, skin, hair, light)


def _arm(
    stage: Stage, at: Local, z: float, shoulder: float, hand: float, sleeve: Color, skin: Color, light: float
) -> None:
    stage.canvas.fill(stage.bar(at, (shoulder, 1.4), (hand, 0.88), 0.11, z), shade(sleeve, light))
    stage.canvas.fill(stage.oval(at, hand, 0.84, 0.055, 0.065), skin)


def _head(stage: Stage, at: Local, u: float, v: float, skin: Color, hair: Color, light: float) -> None:
    canvas = stage.canvas
    canvas.fill(stage.oval(at, u, v + 0.03, 0.115, 0.14), shade(hair, light))
    canvas.fill(stage.oval(at, u + 0.015, v - 0.02, 0.092, 0.115), shade(skin, light))


def bicycle(stage: Stage, s: float, z: float, ridden: bool = False, view: str = "side") -> None:
    """A bicycle seen from the side, at an angle or from behind; with a rider when it is ridden."""
    canvas, dice = stage.canvas, stage.dice
    canvas.begin(ID["bicycle"], z, instance=True)
    stretch = dice.side() * (1.0 if view == "side" else dice.uniform(0.4, 0.7))
    color = dice.tone(stage.style.car, 24)
    stage.blob_shadow(s, z, 0.5 if view != "rear" else 0.15, 0.2)
    if view == "rear":
        at = stage.board(s, z)
        canvas.fill(stage.oval(at, 0, 0.34, 0.05, 0.34), RUBBER)
        canvas.fill(stage.bar(at, (0, 0.5), (0, 0.95), 0.06, z), color)
        canvas.fill(stage.bar(at, (-0.28, 1.03), (0.28, 1.03), 0.05, z), (40, 40, 42))
        canvas.fill(stage.bar(at, (-0.1, 0.93), (0.1, 0.93), 0.09, z), RUBBER)
        canvas.fill(stage.oval(at, 0, 0.68, 0.05, 0.05), _TAIL)
        if ridden:
            _rider(stage, at, z, 0.0, upright=True)
        return
    at = stage.board(s, z, stretch)
    canvas.claim([at(-0.52, 0.34), at(-0.25, 0.9), at(0.4, 0.95), at(0.52, 0.34), at(0, 0.2)])
    for hub in (-0.53, 0.53):
        canvas.ring(stage.oval(at, hub, 0.34, 0.36, 0.35), stage.oval(at, hub, 0.34, 0.29, 0.28), RUBBER)
        for end in ((0.3, 0.0), (0.0, 0.3), (0.21, 0.21), (0.21, -0.21)):
            if stage.camera.px(0.3, z) > 14:
                canvas.detail(
                    stage.bar(at, (hub - end[0], 0.34 - end[1]), (hub + end[0], 0.34 + end[1]), 0.01, z),
                    (120, 120, 122),
                )
        canvas.detail(stage.oval(at, hub, 0.34, 0.05, 0.05), (90, 90, 92))
    for start, end in (
        ((-0.53, 0.34), (-0.05, 0.3)),
        ((-0.53, 0.34), (-0.2, 0.78)),
        ((-0.05, 0.3), (-0.22, 0.88)),
        ((-0.2, 0.78), (0.38, 0.8)),
        ((-0.05, 0.3), (0.38, 0.76)),
        ((0.53, 0.34), (0.37, 0.98)),
    ):
        canvas.fill(stage.bar(at, start, end, 0.055, z), color)
    canvas.fill(stage.bar(at, (0.3, 1.02), (0.46, 0.98), 0.06, z), (40, 40, 42))
    canvas.fill(stage.bar(at, (-0.36, 0.92), (-0.1, 0.92), 0.08, z), RUBBER)
    if dice.chance(0.3):
        canvas.fill(quad(at, 0.42, 0.72, 0.75, 1.0), (110, 90, 66))
    if ridden:
        _rider(stage, at, z, -0.1, upright=False)


def motorcycle(stage: Stage, s: float, z: float, ridden: bool = False, view: str = "side") -> None:
    """A motorcycle or scooter: thick wheels, tank, engine, exhaust; with a rider when it is ridden."""
    canvas, dice = stage.canvas, stage.dice
    canvas.begin(ID["motorcycle"], z, (3, 3, 3), instance=True)
    color = dice.tone(stage.style.car, 24)
    stage.blob_shadow(s, z, 0.8 if view != "rear" else 0.4, 0.3)
    if view == "rear":
        at = stage.board(s, z)
        canvas.fill(stage.oval(at, 0, 0.32, 0.11, 0.32), RUBBER)
        canvas.fill([at(-0.2, 0.45), at(-0.24, 0.85), at(0.24, 0.85), at(0.2, 0.45)], shade(color, 0.9))
        canvas.fill(stage.bar(at, (-0.42, 1.05), (0.42, 1.05), 0.07, z), (36, 36, 38))
        for side in (-0.42, 0.42):
            canvas.fill(stage.oval(at, side, 1.2, 0.09, 0.06), (40, 40, 44))
        canvas.fill(stage.oval(at, 0, 0.74, 0.12, 0.06), _TAIL)
        canvas.fill(quad(at, -0.1, 0.1, 0.48, 0.62), (220, 216, 200))
        canvas.fill(stage.bar(at, (0.26, 0.3), (0.26, 0.45), 0.12, z), (130, 130, 134))
        if ridden:
            _rider(stage, at, z, 0.0, upright=True, helmet=True)
        return
    at = stage.board(s, z, dice.side() * (1.0 if view == "side" else dice.uniform(0.45, 0.75)))
    for hub in (-0.72, 0.72):
        canvas.fill(stage.oval(at, hub, 0.31, 0.32, 0.31), RUBBER)
        canvas.detail(stage.oval(at, hub, 0.31, 0.17, 0.16), (128, 128, 132))
    canvas.fill([at(-0.42, 0.3), at(-0.3, 0.62), at(0.36, 0.66), at(0.42, 0.3)], (58, 58, 62))  # engine
    canvas.detail(stage.oval(at, 0.05, 0.42, 0.17, 0.14), (132, 132, 138))
    canvas.fill(stage.bar(at, (0.72, 0.31), (0.45, 1.0), 0.1, z), (140, 142, 146))
    canvas.fill([at(-0.12, 0.66), at(0.0, 0.92), at(0.4, 0.94), at(0.5, 0.7)], color)  # tank
    canvas.fill([at(-0.95, 0.78), at(-0.9, 0.9), at(-0.1, 0.82), at(0.0, 0.68), at(-0.7, 0.6)], (34, 32, 32))  # seat
    canvas.fill([at(-1.0, 0.72), at(-0.95, 0.82), at(-0.5, 0.7), at(-0.5, 0.55)], color)
    canvas.fill(stage.bar(at, (-0.95, 0.34), (0.1, 0.26), 0.1, z), (150, 150, 154))
    canvas.fill(stage.bar(at, (0.28, 1.12), (0.52, 1.0), 0.07, z), (36, 36, 38))
    canvas.fill(stage.oval(at, 0.6, 0.88, 0.1, 0.11), _LAMP if stage.weather.lamps else (210, 210, 200))
    if dice.chance(0.4):
        canvas.fill([at(0.5, 0.7), at(0.45, 1.0), at(0.62, 1.22), at(0.72, 0.8)], shade(color, 1.1))
    if ridden:
        _rider(stage, at, z, -0.2, upright=False, helmet=True)


def _rider(stage: Stage, at: Local, z: float, seat: float, upright: bool, helmet: bool = False) -> None:
    """Someone on the two-wheeler that was painted last."""
    canvas, dice = stage.canvas, stage.dice
    canvas.begin(ID["rider"], z, (4, 4, 4), instance=True)
    top, bottom = dice.tone(stage.style.clothes), dice.tone(stage.style.clothes)
    skin, hair = dice.tone(_SKIN), dice.tone(_HAIR)
    light = stage.face_light(0)
    if upright:
        for side in (-1, 1):
            canvas.fill(stage.bar(at, (side * 0.12, 0.95), (side * 0.22, 0.55), 0.16, z), shade(bottom, light))
            canvas.fill(
                stage.bar(at, (side * 0.22, 0.58), (side * 0.17, 0.2 + 0.08 * side), 0.12, z),
                shade(bottom, light * 0.85),
            )
            canvas.fill(stage.bar(at, (side * 0.2, 1.42), (side * 0.34, 1.06), 0.1, z), shade(top, light * 0.9))
        canvas.fill(
            [at(-0.16, 0.9), at(-0.22, 1.42), at(-0.07, 1.52), at(0.07, 1.52), at(0.22, 1.42), at(0.16, 0.9)],
            shade(top, light),
        )
        head = (0.0, 1.66)
    else:
        knee = dice.uniform(0.22, 0.34)
        canvas.fill(stage.bar(at, (seat - 0.05, 0.95), (knee, 0.75), 0.17, z), shade(bottom, light))
        canvas.fill(stage.bar(at, (knee, 0.77), (0.06, dice.uniform(0.2, 0.34)), 0.13, z), shade(bottom, light * 0.88))
        canvas.fill(
            [
                at(seat - 0.16, 0.92),
                at(seat + 0.06, 1.42),
                at(seat + 0.26, 1.46),
                at(seat + 0.3, 1.28),
                at(seat + 0.12, 0.9),
            ],
            shade(top, light),
        )
        canvas.fill(stage.bar(at, (seat + 0.22, 1.36), (0.38, 1.06), 0.1, z), shade(top, light * 0.85))
        head = (seat + 0.28, 1.6)
    if helmet or dice.chance(0.4):
        tone = dice.tone(stage.style.car, 24)
        canvas.fill(stage.oval(at, head[0], head[1] + 0.02, 0.14, 0.16), shade(tone, light))
        canvas.detail(stage.oval(at, head[0] + 0.03, head[1] - 0.03, 0.09, 0.07), (30, 30, 34) if helmet else skin)
    else:
        _head(stage, at, head[0], head[1], skin, hair, light)
