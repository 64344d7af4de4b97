"""The ground with lane marks and crossings, and poles, lights, signs and small things on it."""

from __future__ import annotations

from ripu.datasets.streets.canvas import Color, mix, shade
from ripu.datasets.streets.stage import EGO_VEHICLE, ID, STATIC, Local, Stage, quad

_STEEL: tuple[Color, ...] = ((96, 98, 100), (70, 74, 76), (128, 130, 132), (56, 70, 62), (110, 96, 80))
FAR_M = 240.0
"""Distance up to which the ground is painted."""


def plain(stage: Stage, label: str) -> None:
    """Paint the ground from the horizon to the bottom edge."""
    canvas, cam = stage.canvas, stage.camera
    height, width = canvas.paint.shape
    row = int(cam.horizon_px + cam.px(cam.height_m, FAR_M))
    canvas.begin(ID[label], 0.0, (10, 10, 16))
    palette = stage.style.terrain if label == "terrain" else stage.style.sidewalk
    canvas.fill([(0, row), (width, row), (width, height), (0, height)], stage.dice.tone(palette))


def road(stage: Stage, half: float, pavement: float, strips: tuple[bool, bool]) -> Color:
    """Paint the street with its kerbs, pavements and grass strips, and return the colour of the asphalt.

    Args:
        stage: The scene.
        half: Half the width of the carriageway.
        pavement: Width of each pavement.
        strips: Whether a grass strip lies between kerb and pavement, left and right.
    """
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    asphalt = dice.tone(stage.style.road, 10)
    stone = dice.tone(stage.style.sidewalk, 10)
    slab = dice.pick((0.0, 1.2, 2.0))
    for side, strip in zip((-1, 1), strips, strict=True):
        near, far = side * half, side * (half + pavement)
        canvas.begin(ID["sidewalk"], 0.0, (10, 12, 12))
        canvas.fill(stage.ground(near, far, 1.2, FAR_M), stone)
        z = 2.0
        while slab and z < 26:
            canvas.detail(stage.ground(near, far, z, z + max(0.05, 0.003 * z * z)), shade(stone, 0.88))
            z += slab + 0.02 * z
        if strip and stage.has("terrain"):
            canvas.begin(ID["terrain"], 0.0, (26, 24, 14))
            canvas.fill(
                stage.ground(near + side * 0.25, side * (half + pavement * 0.45), 1.2, FAR_M),
                dice.tone(stage.style.terrain),
            )
    canvas.begin(ID["road"], 0.0, (12, 12, 12))
    canvas.fill(stage.ground(-half, half, 1.2, FAR_M), asphalt)
    for _ in range(dice.integer(0, 4)):  # repairs and tyre tracks
        s, z = dice.uniform(-half, half * 0.6), dice.uniform(5, 40)
        canvas.detail(
            stage.ground(s, s + dice.uniform(0.8, 3), z, z + dice.uniform(2, 9)),
            shade(asphalt, dice.uniform(0.82, 1.1)),
        )
    for side in (-1, 1):
        canvas.begin(ID["sidewalk"], 0.0, (6, 6, 6))
        edge = side * half
        points = [2.0 + (FAR_M - 2.0) * k * k / 400.0 for k in range(21)]
        face = [cam.point(edge, 0.0, z) for z in points] + [cam.point(edge, 0.13, z) for z in reversed(points)]
        canvas.fill(face, shade(stone, 0.72))
        canvas.fill(stage.ground(edge, edge + side * 0.2, 1.2, FAR_M), shade(stone, 1.12))
    return asphalt


def lane_marks(stage: Stage, half: float, lane: float, asphalt: Color) -> None:
    """Paint the middle line, lane dashes and sometimes a line along the kerb."""
    canvas, dice = stage.canvas, stage.dice
    canvas.begin(ID["road"], 0.0, (12, 12, 12))
    white = mix((232, 232, 228), asphalt, dice.uniform(0.05, 0.45))
    middle = mix((232, 180, 40), asphalt, dice.uniform(0.05, 0.3)) if stage.style.yellow_lines else white
    if stage.style.yellow_lines:
        for s in (-0.22, 0.1):
            canvas.detail(stage.ground(s, s + 0.12, 1.2, 120), middle)
    elif dice.chance(0.8):
        _dashes(stage, -0.07, 0.14, 3.0, 6.0, white)
    for k in range(1, int(half / lane)):
        for side in (-1, 1):
            _dashes(stage, side * k * lane - 0.06, 0.12, 3.0, 7.0, white)
    if dice.chance(0.5):
        for side in (-1, 1):
            canvas.detail(stage.ground(side * (half - 0.45), side * (half - 0.33), 1.2, 120), white)
    if dice.chance(0.3):
        s, z = lane * 0.5, dice.uniform(7, 16)
        canvas.detail(stage.ground(s - 0.12, s + 0.12, z, z + 2.6), white)
        canvas.detail(
            [stage.camera.point(u, 0, v) for u, v in ((s - 0.45, z + 2.4), (s, z + 4.2), (s + 0.45, z + 2.4))], white
        )


def _dashes(stage: Stage, s: float, width: float, length: float, gap: float, color: Color) -> None:
    z = stage.dice.uniform(1.5, 4)
    while z < 110:
        stage.canvas.detail(stage.ground(s, s + width, z, z + length), color)
        z += length + gap


def rails(stage: Stage, s: float) -> None:
    """Paint the two rails of a tramway in the road."""
    for side in (-0.72, 0.72):
        for offset, tone in ((-0.09, (60, 60, 62)), (-0.03, (150, 150, 152))):
            stage.canvas.detail(stage.ground(s + side + offset, s + side - offset, 1.2, 180), tone)


def crossing_street(stage: Stage, z: float, width: float, half: float, pavement: float, asphalt: Color) -> None:
    """Paint a street from left to right, with a zebra crossing in front of it."""
    canvas = stage.canvas
    canvas.begin(ID["sidewalk"], 0.0, (10, 12, 12))
    stone = stage.dice.tone(stage.style.sidewalk, 10)
    for side in (-1, 1):
        canvas.fill(stage.ground(side * half, side * 90, z - 2.5, z + width + 2.5), stone)
    canvas.begin(ID["road"], 0.0, (12, 12, 12))
    canvas.fill(stage.ground(-90, 90, z, z + width), asphalt)
    if z - 4.5 > 3:
        white = mix((232, 232, 228), asphalt, stage.dice.uniform(0.05, 0.35))
        canvas.detail(stage.ground(-half, half, z - 4.4, z - 0.6), asphalt)
        if stage.dice.chance(0.75):
            s = -half + 0.4
            while s < half - 0.5:
                canvas.detail(stage.ground(s, s + 0.5, z - 4.2, z - 1.0), white)
                s += 1.05
        canvas.detail(stage.ground(0.1, half, z - 5.6, z - 5.2), white)


def post(stage: Stage, s: float, z: float, height: float, width: float) -> Color:
    """Paint a pole and return its colour."""
    color = shade(stage.dice.tone(_STEEL), stage.face_light(0))
    stage.canvas.begin(ID["pole"], z, (3, 3, 4))
    at = stage.board(s, z)
    stage.canvas.fill(stage.bar(at, (0, 0), (0, height), width, z), color)
    thin = max(width, 1.6 * z / stage.camera.focal_px)
    stage.canvas.detail(quad(at, -thin / 2, -thin / 5, 0, height), shade(color, 1.2 if stage.sun_side < 0 else 0.75))
    stage.canvas.fill(quad(at, -thin * 0.9, thin * 0.9, 0, 0.35), shade(color, 0.85))
    return color


def lamp(stage: Stage, s: float, z: float) -> None:
    """Paint a street lamp whose arm reaches over the road."""
    dice, canvas = stage.dice, stage.canvas
    height = dice.uniform(5, 8.5)
    color = post(stage, s, z, height, dice.uniform(0.16, 0.26))
    at = stage.board(s, z)
    reach = dice.uniform(1.0, 2.4) * (-1 if s > 0 else 1)
    canvas.fill(stage.bar(at, (0, height - 0.1), (reach, height + 0.35), 0.1, z), color)
    tone = (255, 232, 170) if stage.weather.lamps else (206, 208, 206)
    canvas.fill(stage.oval(at, reach * 1.1, height + 0.32, 0.4, 0.13), tone)


def traffic_light(stage: Stage, s: float, z: float) -> None:
    """Paint lights on a pole, sometimes with a second set on an arm over the road."""
    dice, canvas = stage.dice, stage.canvas
    american = stage.style.american
    height = dice.uniform(3.3, 3.9)
    arm = dice.chance(0.75 if american else 0.4)
    color = post(stage, s, z, 6.2 if arm else height, 0.18)
    at = stage.board(s, z)
    state = dice.integer(0, 2)
    toward = -1 if s > 0 else 1
    box: Color = dice.tone(((206, 164, 30), (40, 40, 38))) if american else dice.tone(((36, 40, 38), (44, 60, 50)), 8)
    owner = canvas.current
    if arm:
        reach = dice.uniform(3, 5.5) * toward
        canvas.fill(stage.bar(at, (0, 6.0), (reach, 6.1), 0.14, z), color)
        _light_box(stage, at, reach, 5.45, state, box, z)
        canvas.resume(owner, z)
    _light_box(stage, at, toward * 0.05, height - 0.5, state, box, z)


def _light_box(stage: Stage, at: Local, u: float, v: float, state: int, box: Color, z: float) -> None:
    canvas = stage.canvas
    canvas.begin(ID["traffic light"], z, instance=False)
    canvas.fill(quad(at, u - 0.24, u + 0.24, v - 0.62, v + 0.62), box)
    canvas.detail(quad(at, u - 0.18, u + 0.18, v - 0.56, v + 0.56), shade(box, 0.55))
    for k, (bright, dim) in enumerate(
        (((255, 60, 40), (78, 24, 20)), ((255, 190, 50), (80, 60, 18)), ((70, 255, 170), (16, 64, 44)))
    ):
        canvas.detail(stage.oval(at, u, v + 0.37 - 0.37 * k, 0.15, 0.16), bright if k == state else dim)


def sign(stage: Stage, s: float, z: float) -> None:
    """Paint one or two traffic signs on a pole."""
    dice, canvas = stage.dice, stage.canvas
    height = dice.uniform(2.4, 3.2)
    post(stage, s, z, height + 0.3, 0.09)
    at = stage.board(s, z)
    kinds = (
        ("diamond", "octagon", "green", "limit")
        if stage.style.american
        else ("blue", "warn", "ring", "priority", "yield", "plate")
    )
    for k in range(1 if dice.chance(0.75) else 2):
        canvas.begin(ID["traffic sign"], z)
        _face(stage, at, height - 0.85 * k, dice.pick(kinds), dice.uniform(0.36, 0.48))


def _face(stage: Stage, at: Local, v: float, kind: str, r: float) -> None:
    canvas = stage.canvas
    white, red, blue = (232, 232, 228), (196, 32, 36), (34, 80, 170)
    if kind == "diamond":
        canvas.fill([at(0, v - r * 1.2), at(-r * 1.2, v), at(0, v + r * 1.2), at(r * 1.2, v)], (236, 186, 36))
        canvas.detail(quad(at, -r * 0.12, r * 0.12, v - r * 0.5, v + r * 0.5), (30, 30, 30))
    elif kind == "octagon":
        canvas.fill(
            [
                at(r * c, v + r * d)
                for c, d in (
                    (1, 0.42),
                    (0.42, 1),
                    (-0.42, 1),
                    (-1, 0.42),
                    (-1, -0.42),
                    (-0.42, -1),
                    (0.42, -1),
                    (1, -0.42),
                )
            ],
            red,
        )
        canvas.detail(quad(at, -r * 0.7, r * 0.7, v - r * 0.2, v + r * 0.2), white)
    elif kind == "green":
        canvas.fill(quad(at, -r * 2.4, r * 2.4, v - r * 0.8, v + r * 0.8), (26, 106, 66))
        canvas.detail(quad(at, -r * 1.9, r * 1.2, v + r * 0.1, v + r * 0.4), white)
        canvas.detail(quad(at, -r * 1.9, r * 1.8, v - r * 0.45, v - r * 0.15), white)
    elif kind == "limit":
        canvas.fill(quad(at, -r * 0.75, r * 0.75, v - r, v + r), white)
        canvas.detail(quad(at, -r * 0.45, r * 0.45, v - r * 0.6, v + r * 0.1), (30, 30, 30))
    elif kind == "blue":
        canvas.fill(stage.oval(at, 0, v, r, r), blue)
        canvas.detail([at(-r * 0.3, v - r * 0.5), at(-r * 0.1, v + r * 0.6), at(r * 0.5, v + r * 0.1)], white)
    elif kind == "warn":
        canvas.fill([at(-r * 1.1, v - r * 0.8), at(0, v + r * 1.1), at(r * 1.1, v - r * 0.8)], red)
        canvas.detail([at(-r * 0.7, v - r * 0.58), at(0, v + r * 0.66), at(r * 0.7, v - r * 0.58)], white)
    elif kind == "yield":
        canvas.fill([at(-r * 1.1, v + r * 0.8), at(0, v - r * 1.1), at(r * 1.1, v + r * 0.8)], red)
        canvas.detail([at(-r * 0.66, v + r * 0.54), at(0, v - r * 0.6), at(r * 0.66, v + r * 0.54)], white)
    elif kind == "ring":
        canvas.fill(stage.oval(at, 0, v, r, r), red)
        canvas.detail(stage.oval(at, 0, v, r * 0.72, r * 0.72), white)
        canvas.detail(quad(at, -r * 0.35, r * 0.35, v - r * 0.3, v + r * 0.3), (40, 40, 40))
    elif kind == "priority":
        canvas.fill([at(0, v - r), at(-r, v), at(0, v + r), at(r, v)], white)
        canvas.detail([at(0, v - r * 0.7), at(-r * 0.7, v), at(0, v + r * 0.7), at(r * 0.7, v)], (232, 190, 50))
    else:
        canvas.fill(
            quad(at, -r * 1.6, r * 1.6, v - r * 0.6, v + r * 0.6), (228, 198, 70) if stage.dice.chance(0.5) else white
        )
        canvas.detail(quad(at, -r * 1.2, r * 0.9, v - r * 0.15, v + r * 0.2), (40, 40, 40))


def bin_or_box(stage: Stage, s: float, z: float) -> None:
    """Paint a litter bin, bench or cabinet: `static`, a void class."""
    dice, canvas = stage.dice, stage.canvas
    canvas.begin(STATIC, z, (6, 6, 6))
    at = stage.board(s, z)
    color = dice.tone(((60, 90, 70), (110, 112, 110), (70, 72, 76), (150, 90, 50)))
    half, height = dice.uniform(0.2, 0.6), dice.uniform(0.7, 1.3)
    canvas.fill(quad(at, -half, half, 0, height), shade(color, stage.face_light(0)))
    canvas.fill(quad(at, -half * 1.1, half * 1.1, height, height + 0.1), shade(color, 0.7))


def bonnet(stage: Stage) -> None:
    """Paint the bonnet of the camera's car along the bottom edge: `ego vehicle`, a void class."""
    dice, canvas = stage.dice, stage.canvas
    height, width = canvas.paint.shape
    top = dice.uniform(0.94, 0.965)
    canvas.begin(EGO_VEHICLE, 2.0, (2, 2, 3))
    shape = (
        (0.0, 1.0),
        (0.02, 0.985),
        (0.12, 0.35),
        (0.3, 0.08),
        (0.5, 0.0),
        (0.7, 0.08),
        (0.88, 0.35),
        (0.98, 0.985),
        (1.0, 1.0),
    )
    for inset, tone in ((0.0, (52, 54, 58)), (0.22, (70, 74, 78)), (0.55, (44, 46, 50))):
        outline = [(int(u * width), int((top + (1 - top) * (v * (1 - inset) + inset)) * height)) for u, v in shape]
        canvas.fill([*outline, (width, height), (0, height)], tone)
