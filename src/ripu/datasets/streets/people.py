"""Pedestrians, bicycles, motorcycles and their riders."""

from __future__ import annotations

from ripu.datasets.streets.canvas import Color, shade
from ripu.datasets.streets.stage import ID, RUBBER, Local, Stage, quad
from ripu.datasets.streets.vehicles import LAMP, TAIL

_SKIN: tuple[Color, ...] = ((224, 180, 150), (190, 140, 110), (140, 96, 70), (96, 66, 50))
_HAIR: tuple[Color, ...] = ((40, 30, 24), (90, 64, 40), (160, 130, 80), (120, 116, 112))


def person(stage: Stage, s: float, z: float) -> None:
    """Paint a pedestrian."""
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
    """Paint a bicycle seen from the side, at an angle or from behind, with a rider if it is ridden."""
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
        canvas.fill(stage.oval(at, 0, 0.68, 0.05, 0.05), TAIL)
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
    """Paint a motorcycle or scooter, with a rider if it is ridden."""
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
        canvas.fill(stage.oval(at, 0, 0.74, 0.12, 0.06), TAIL)
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
    canvas.fill(stage.oval(at, 0.6, 0.88, 0.1, 0.11), LAMP if stage.weather.lamps else (210, 210, 200))
    if dice.chance(0.4):
        canvas.fill([at(0.5, 0.7), at(0.45, 1.0), at(0.62, 1.22), at(0.72, 0.8)], shade(color, 1.1))
    if ridden:
        _rider(stage, at, z, -0.2, upright=False, helmet=True)


def _rider(stage: Stage, at: Local, z: float, seat: float, upright: bool, helmet: bool = False) -> None:
    """Paint the rider of the two-wheeler that was painted last."""
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
