"""Buildings, walls, fences and plants beside the street."""

from __future__ import annotations

from ripu.datasets.streets.canvas import Color, mix, shade
from ripu.datasets.streets.stage import GLASS, ID, Local, Stage, quad

_LIT: Color = (246, 212, 138)
_SHOP: tuple[Color, ...] = ((150, 40, 44), (36, 80, 110), (52, 92, 60), (200, 170, 80), (60, 60, 66), (170, 90, 50))


def facade(  # noqa: C901  one face from bottom to top; its parts share a dozen measures
    stage: Stage, at: Local, length: float, height: float, z: float, color: Color, light: float, shop: bool
) -> None:
    """Paint windows, floors, doors and shop fronts on a face with local coordinates (along 0..length, up 0..height)."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    floor = dice.uniform(2.9, 3.6)
    kind = dice.weighted({"tall": 0.4, "wide": 0.25, "pair": 0.2, "ribbon": 0.15})
    pitch = {"tall": 2.2, "wide": 3.4, "pair": 2.8, "ribbon": 6.0}[kind]
    glass = mix(GLASS, stage.weather.zenith, dice.uniform(0.05, 0.45))
    frame = mix(color, dice.pick(((236, 234, 228), (70, 66, 62), color)), 0.6)
    visible = abs(at(length, 1.0)[0] - at(0.0, 1.0)[0])
    columns = max(1, int(length / pitch))
    while columns > 1 and visible / columns < 5:
        columns -= 1 + columns // 3
    floors = max(1, int((height - 0.8) / floor))
    if cam.px(floor, z) < 5:
        for level in range(floors):
            canvas.detail(
                quad(at, 0.5, length - 0.5, level * floor + 1.2, level * floor + 2.4),
                shade(mix(color, glass, 0.5), light),
            )
        return
    if dice.chance(0.6):
        canvas.detail(quad(at, 0, length, height - 0.7, height), shade(mix(color, (232, 228, 220), 0.3), light))
    if dice.chance(0.35):
        for level in range(1, floors):
            canvas.detail(
                quad(at, 0, length, level * floor - 0.12, level * floor + 0.12),
                shade(mix(color, (230, 226, 216), 0.35), light),
            )
    if shop:
        _shop_fronts(stage, at, length, color, glass, light)
    elif dice.chance(0.8):
        door = dice.uniform(0.2, 0.8) * length
        canvas.detail(
            quad(at, door, min(length, door + 1.3), 0.0, 2.3),
            shade(dice.tone(((84, 60, 44), (60, 70, 66), (110, 40, 36))), light),
        )
    step = length / columns
    low, high = (0.9, 2.5) if kind in ("tall", "pair") else (1.0, 2.4)
    share = {"tall": 0.42, "wide": 0.62, "pair": 0.7, "ribbon": 0.94}[kind]
    for level in range(int(shop), floors):
        for column in range(columns):
            u0 = (column + 0.5 - share / 2) * step
            u1 = (column + 0.5 + share / 2) * step
            v0, v1 = level * floor + low, min(level * floor + high, height - 0.3)
            if v1 <= v0:
                continue
            roll = dice.uniform(0, 1)
            pane = _LIT if stage.weather.lamps and roll < 0.3 else shade(glass, 0.75 + 0.5 * roll)
            if cam.px(0.2, z) > 1.5:
                canvas.detail(quad(at, u0 - 0.12, u1 + 0.12, v0 - 0.14, v1 + 0.1), shade(frame, light))
            canvas.detail(quad(at, u0, u1, v0, v1), shade(pane, 0.4 + 0.6 * light))
            if kind == "pair" and cam.px(0.3, z) > 2:
                middle = (u0 + u1) / 2
                canvas.detail(quad(at, middle - 0.12, middle + 0.12, v0, v1), shade(frame, light))
            if roll > 0.93 and kind != "ribbon":
                canvas.detail(
                    quad(at, u0 - 0.3, u1 + 0.3, v0 - 0.25, v0 + 0.55), shade(mix(color, (70, 70, 72), 0.5), light)
                )


def _shop_fronts(stage: Stage, at: Local, length: float, color: Color, glass: Color, light: float) -> None:
    canvas, dice = stage.canvas, stage.dice
    accent = dice.tone(_SHOP)
    canvas.detail(quad(at, 0.3, length - 0.3, 0.0, 2.9), shade(mix(color, (60, 58, 56), 0.5), light))
    shops = max(1, int(length / 5.0))
    for k in range(shops):
        u0, u1 = 0.5 + k * (length - 0.6) / shops, (k + 1) * (length - 0.6) / shops
        pane = _LIT if dice.chance(0.65 if stage.weather.lamps else 0.12) else glass
        canvas.detail(quad(at, u0, u1 - 1.3, 0.6, 2.4), shade(pane, light))
        canvas.detail(quad(at, u1 - 1.1, u1 - 0.2, 0.0, 2.3), shade(mix(pane, (40, 34, 30), 0.6), light))
        canvas.detail(quad(at, u0 - 0.1, u1, 2.4, 3.0), shade(dice.tone(_SHOP) if dice.chance(0.4) else accent, light))


def building(stage: Stage, side: int, front: float, z0: float, z1: float, height: float, depth: float = 14.0) -> None:
    """Paint a block with a flat roof: its street face from z0 to z1 and its face towards the camera."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    color = dice.tone(stage.style.facade)
    s = side * front
    shop = dice.chance(0.5) and stage.style.zones["city"] > 0
    canvas.begin(ID["building"], z0, (6, 10, 14))
    if cam.lateral(s, z0) * side > 0:
        light = stage.face_light(0)
        end: Local = lambda u, v: cam.point(s + side * u, v, z0)  # noqa: E731
        canvas.fill(quad(end, 0, depth, 0, height), shade(color, light))
        if dice.chance(0.6):
            facade(stage, end, depth, height, z0, color, light, False)
    light = stage.face_light(-side)
    street: Local = lambda u, v: cam.point(s, v, z0 + u)  # noqa: E731
    canvas.fill(quad(street, 0, z1 - z0, 0, height), shade(color, light))
    facade(stage, street, z1 - z0, height, z0, color, light, shop)
    if stage.sun_side == side:
        reach = min(front * 1.4, height * 0.8) * stage.weather.sun
        canvas.cast(stage.ground(s - side * reach, s, z0, z1))


def house(stage: Stage, side: int, front: float, z0: float, z1: float) -> None:
    """Paint a small house with a pitched roof."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    color, roof = dice.tone(stage.style.facade), dice.tone(stage.style.roof)
    s, depth = side * front, dice.uniform(7, 10)
    eaves, ridge = dice.uniform(3.2, 6.2), dice.uniform(2.2, 3.6)
    canvas.begin(ID["building"], z0, (6, 9, 12))
    light = stage.face_light(0)
    end: Local = lambda u, v: cam.point(s + side * u, v, z0)  # noqa: E731
    gable = [end(0, 0), end(0, eaves), end(depth / 2, eaves + ridge), end(depth, eaves), end(depth, 0)]
    canvas.fill(gable, shade(color, light))
    facade(stage, end, depth, eaves, z0, color, light, False)
    light = stage.face_light(-side)
    street: Local = lambda u, v: cam.point(s, v, z0 + u)  # noqa: E731
    canvas.fill(quad(street, 0, z1 - z0, 0, eaves), shade(color, light))
    facade(stage, street, z1 - z0, eaves, z0, color, light, False)
    slope = [
        cam.point(s - side * 0.3, eaves - 0.2, z0 - 0.2),
        cam.point(s + side * depth / 2, eaves + ridge, z0 - 0.2),
        cam.point(s + side * depth / 2, eaves + ridge, z1),
        cam.point(s - side * 0.3, eaves - 0.2, z1),
    ]
    canvas.fill(slope, shade(roof, 0.5 + 0.5 * light), (14, 10, 8))


def end_block(stage: Stage, z: float, left: float, right: float) -> None:
    """Paint facades across the street that close the view."""
    canvas, dice = stage.canvas, stage.dice
    edge = left
    while edge < right:
        length = dice.uniform(10, 20)
        height = 3.2 * dice.integer(*stage.style.floors) + 1
        color = dice.tone(stage.style.facade)
        canvas.begin(ID["building"], z, (6, 10, 14))
        at = stage.board(edge, z)
        canvas.fill(quad(at, 0, length, 0, height), shade(color, stage.face_light(0)))
        facade(stage, at, length, height, z, color, stage.face_light(0), dice.chance(0.5))
        edge += length


def skyline(stage: Stage) -> None:
    """Paint hills, woods and far buildings along the horizon."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    edge = -260.0
    rows = stage.dice.chance(stage.style.zones["city"])
    while edge < 260:
        width = dice.uniform(14, 40)
        height = dice.uniform(6, 40 if rows else 16)
        z = dice.uniform(190, 260)
        if dice.chance(0.6 if rows else 0.25):
            canvas.begin(ID["building"], z)
            at = stage.board(edge + width / 2 - cam.curve * z * z, z)
            canvas.fill(quad(at, -width / 2, width / 2, 0, height), shade(dice.tone(stage.style.facade), 0.9))
        else:
            canvas.begin(ID["vegetation"], z, (10, 10, 8))
            at = stage.board(edge + width / 2 - cam.curve * z * z, z)
            color = dice.tone(stage.style.foliage)
            canvas.fill(stage.oval(at, 0, 0, width * 0.9, dice.uniform(5, 14)), shade(color, 0.85))
        edge += width * 0.7


def wall(stage: Stage, side: int, front: float, z0: float, z1: float, height: float) -> None:
    """Paint a wall without windows: bricks, stone or concrete panels, with a coping."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    s = side * front
    color = dice.tone(stage.style.wall if dice.chance(0.75) else stage.style.facade)
    light = stage.face_light(-side)
    canvas.begin(ID["wall"], z0, (10, 12, 16))
    if cam.lateral(s, z0) * side > 0:
        canvas.fill(
            quad(lambda u, v: cam.point(s + side * u, v, z0), 0, 0.35, 0, height), shade(color, stage.face_light(0))
        )
    at: Local = lambda u, v: cam.point(s, v, z0 + u)  # noqa: E731
    length = z1 - z0
    canvas.fill(quad(at, 0, length, 0, height), shade(color, light))
    kind = dice.weighted({"brick": 0.4, "panel": 0.4, "plain": 0.2})
    joint = shade(color, 0.78 * light)
    if kind == "brick":
        course = max(0.22, 5 * z0 / cam.focal_px)
        for k in range(1, int(height / course)):
            canvas.detail(quad(at, 0, length, k * course, k * course + course * 0.2), joint)
    elif kind == "panel":
        for k in range(1, int(length / 2.5) + 1):
            canvas.detail(quad(at, k * 2.5 - 0.1, k * 2.5 + 0.06, 0, height), joint)
    if dice.chance(0.3):
        u = dice.uniform(0, length * 0.7)
        canvas.detail(quad(at, u, u + min(2.5, length * 0.3), 0.5, height * 0.75), dice.tone(stage.style.car, 30))
    canvas.fill(quad(at, 0, length, height - 0.12, height + 0.06), shade(color, min(1.15, light * 1.15)))


def fence(stage: Stage, side: int, front: float, z0: float, z1: float, height: float, across: bool = False) -> None:
    """Paint a see-through fence: posts, rails and bars, or a mesh; its gaps belong to it."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    s = side * front
    color = shade(dice.tone(stage.style.fence), stage.face_light(-side))
    canvas.begin(ID["fence"], z0)
    length = z1 - z0
    at: Local = (lambda u, v: cam.point(s + u, v, z0)) if across else (lambda u, v: cam.point(s, v, z0 + u))
    canvas.claim(quad(at, 0, length, 0, height))
    kind = dice.weighted({"bars": 0.5, "rails": 0.2, "pickets": 0.3})
    spacing = {"bars": 0.28, "rails": 1.6, "pickets": 0.24}[kind]
    thick = {"bars": 0.05, "rails": 0.1, "pickets": 0.15}[kind]
    u = 0.0
    while u < length:
        z = z0 if across else z0 + u
        gap = max(spacing, 7 * z / cam.focal_px * (1.0 if across else max(1.0, z / (2.0 * abs(s) + 1.0))))
        top = height if kind != "pickets" else height - 0.08
        canvas.detail(quad(at, u, min(length, u + max(thick, gap * 0.3)), 0.03, top), color)
        u += gap
    for level in (0.12, 0.88) if kind == "bars" else (0.3, 0.75) if kind == "pickets" else (0.35, 0.65, 0.95):
        canvas.detail(quad(at, 0, length, height * level, height * level + 0.08), shade(color, 1.12))
    u = 0.0
    while u < length:
        canvas.fill(quad(at, u, min(length, u + 0.14), 0, height + 0.08), shade(color, 0.85))
        u += 2.5


def crown(stage: Stage, s: float, z: float, center: float, radius_u: float, radius_v: float, color: Color) -> None:
    """Paint leaves: a heap of discs, bright on the sun's side and dark below."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    at = stage.board(s, z)
    size = cam.px(radius_u, z)
    number = 10 if size < 12 else 26 if size < 60 else 60
    canvas.fill(stage.oval(at, 0, center, radius_u * 0.8, radius_v * 0.8), shade(color, 0.8), (26, 26, 12))
    for k in range(number):
        while True:
            u, v = dice.uniform(-1, 1), dice.uniform(-1, 1)
            if u * u + v * v < 1:
                break
        light = 0.86 + 0.16 * v + 0.14 * u * stage.sun_side * stage.weather.sun + dice.uniform(-0.08, 0.08)
        leaf = shade(color, light)
        r = (0.34 if k < number // 2 else 0.17) * dice.uniform(0.7, 1.25)
        canvas.fill(
            stage.oval(at, u * radius_u * 0.85, center + v * radius_v * 0.85, r * radius_u, r * radius_v * 1.05),
            leaf,
            (30, 24, 8),
        )


def tree(stage: Stage, s: float, z: float) -> None:
    """Paint a broad, pointed, palm-like or nearly bare tree with its trunk."""
    canvas, dice = stage.canvas, stage.dice
    color = dice.tone(stage.style.foliage, 20)
    bark = dice.tone(((92, 74, 58), (110, 96, 80), (70, 62, 54)))
    at = stage.board(s, z)
    canvas.begin(ID["vegetation"], z, (12, 12, 6))
    weights = (
        {"broad": 0.7, "conifer": 0.15, "palm": 0.15}
        if stage.style.american
        else {"broad": 0.7, "conifer": 0.1, "bare": 0.2}
    )
    kind = dice.weighted(weights)
    height = dice.uniform(4.5, 10)
    stage.blob_shadow(s, z, 2.0, 1.6)
    if kind == "broad":
        radius = height * dice.uniform(0.24, 0.36)
        canvas.fill(stage.bar(at, (0, 0), (0, height * 0.6), 0.28, z), bark)
        crown(stage, s, z, height * 0.68, radius, height * 0.32, color)
    elif kind == "conifer":
        canvas.fill(stage.bar(at, (0, 0), (0, height * 0.3), 0.25, z), bark)
        for k in range(5):
            low, wide = height * (0.12 + 0.17 * k), height * (0.22 - 0.035 * k)
            canvas.fill(
                [at(-wide, low), at(0, low + height * 0.32), at(wide, low)], shade(color, 0.7 + 0.07 * k), (26, 20, 6)
            )
    elif kind == "palm":
        height *= 1.1
        lean = dice.uniform(-0.6, 0.6)
        canvas.fill(stage.bar(at, (0, 0), (lean, height), 0.3, z), mix(bark, (150, 130, 100), 0.5))
        for k in range(9):
            u = -2.2 + 0.55 * k
            drop = height - 0.15 * u * u - dice.uniform(0, 0.8)
            canvas.fill(
                [
                    at(lean, height + 0.2),
                    at(lean + u * 0.55, height + 0.8 - abs(u) * 0.1),
                    at(lean + u, drop),
                    at(lean + u * 0.5, height),
                ],
                shade(color, dice.uniform(0.65, 1.05)),
            )
    else:
        canvas.fill(stage.bar(at, (0, 0), (0, height * 0.75), 0.24, z), bark)
        for _ in range(12):
            v = height * dice.uniform(0.35, 0.72)
            u1, v1 = dice.uniform(-1, 1) * height * 0.28, v + height * dice.uniform(0.1, 0.3)
            canvas.fill(stage.bar(at, (0, v), (u1, v1), 0.09, z), shade(bark, dice.uniform(0.8, 1.1)))
            if dice.chance(0.6):
                canvas.fill(stage.oval(at, u1, v1, 0.5, 0.4), mix(color, bark, 0.4), (30, 20, 4))


def hedge(stage: Stage, side: int, front: float, z0: float, z1: float, height: float) -> None:
    """Paint a clipped hedge along the street."""
    canvas, dice, cam = stage.canvas, stage.dice, stage.camera
    s = side * front
    color = dice.tone(stage.style.foliage)
    canvas.begin(ID["vegetation"], z0, (26, 26, 8))
    canvas.fill(
        quad(lambda u, v: cam.point(s + side * u, v, z0), 0, 0.8, 0, height), shade(color, 0.9 * stage.face_light(0))
    )
    at: Local = lambda u, v: cam.point(s, v, z0 + u)  # noqa: E731
    light = 0.85 * stage.face_light(-side)
    canvas.fill(quad(at, 0, z1 - z0, 0, height), shade(color, light))
    u = 0.4
    while u < z1 - z0:
        bump = dice.uniform(0.2, 0.4)
        local = stage.board(s, z0 + u)
        canvas.fill(
            stage.oval(local, 0, height - 0.05, bump, bump * 0.6),
            shade(color, light + dice.uniform(0, 0.25)),
            (30, 24, 8),
        )
        canvas.fill(
            stage.oval(local, 0, dice.uniform(0.2, height), bump, bump * 0.7),
            shade(color, light + dice.uniform(-0.15, 0.12)),
            (30, 24, 8),
        )
        u += 0.5 + u * 0.05


def bush(stage: Stage, s: float, z: float) -> None:
    """Paint a low round shrub."""
    stage.canvas.begin(ID["vegetation"], z, (26, 26, 8))
    radius = stage.dice.uniform(0.5, 1.3)
    crown(stage, s, z, radius * 0.7, radius, radius * 0.8, stage.dice.tone(stage.style.foliage, 20))
