"""Layout of a scene, from the first roll of the dice to the last stroke."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ripu.datasets.streets import furniture, people, structures, vehicles
from ripu.datasets.streets.canvas import Camera, Canvas, Dice
from ripu.datasets.streets.stage import ID, Stage
from ripu.datasets.streets.styles import Style, Weather

Strokes = Callable[[], None]
_END_M = 130.0


def paint_scene(style: Style, dice: Dice, height: int, width: int) -> Stage:
    """Paint a scene on a canvas of twice the final size.

    Args:
        style: The domain.
        dice: The random numbers of the scene.
        height: Rows of the final image.
        width: Columns of the final image.

    Returns:
        The stage with its two painted layers; :func:`ripu.datasets.streets.render.develop` makes the image.
    """
    rows, columns = 2 * height, 2 * width
    camera = Camera(
        focal_px=dice.within(style.focal) * columns,
        height_m=dice.within(style.camera_height_m),
        horizon_px=dice.within(style.horizon) * rows,
        center_px=(0.5 + dice.uniform(-style.yaw, style.yaw)) * columns,
        offset_m=dice.within(style.lane_m) * 0.5 + dice.uniform(-0.4, 0.4),
        curve=dice.uniform(-style.curve, style.curve) if dice.chance(0.5) else 0.0,
    )
    weather = _weather(style, dice)
    canvas = Canvas(rows, columns, ID["sky"])
    stage = Stage(canvas, camera, dice, style, weather, dice.side(), dice.uniform(0.72, 1.08))
    _Builder(stage).build()
    return stage


def _weather(style: Style, dice: Dice) -> Weather:
    names = {str(k): weight for k, (weight, _) in enumerate(style.weathers)}
    return style.weathers[int(dice.weighted(names))][1]


class _Builder:
    """Builder of one scene: the street, the lots on both sides, and everything between them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        dice, style = stage.dice, stage.style
        self.zone = dice.weighted(style.zones)
        self.lane = dice.within(style.lane_m)
        self.num_lanes = dice.integer(*style.num_lanes)
        self.parking = 2.2 if dice.chance(0.7) and self.zone != "open" else 0.4
        self.half = self.lane * self.num_lanes + self.parking
        self.pavement = dice.within(style.sidewalk_m)
        self.front = self.half + self.pavement
        self.end = dice.uniform(45, 100) if dice.chance(style.end_block) else 0.0
        self.cross = (dice.uniform(11, 42), dice.uniform(7, 11)) if dice.chance(style.crossing) else None
        self.has_tram = dice.chance(style.rates["train"]) and stage.has("train")
        self.strips = (dice.chance(style.rates["strip"]), dice.chance(style.rates["strip"]))
        self.things: list[tuple[float, Strokes]] = []

    def build(self) -> None:
        """Paint the whole scene, far things first."""
        stage, dice = self.stage, self.stage.dice
        structures.skyline(stage)
        green = self.zone != "city" and stage.has("terrain") and dice.chance(0.8)
        furniture.plain(stage, "terrain" if green else "sidewalk")
        asphalt = furniture.road(stage, self.half, self.pavement, self.strips)
        furniture.lane_marks(stage, self.half, self.lane, asphalt)
        if self.has_tram:
            furniture.rails(stage, -self.lane * 0.5)
        if self.cross:
            furniture.crossing_street(stage, *self.cross, self.half, self.pavement, asphalt)
        if self.end:
            structures.end_block(stage, self.end, -70, 70)
        lots = self._lots(-1) + self._lots(1)
        for _, strokes in sorted(lots, key=lambda lot: -lot[0]):
            strokes()
        self._furnish()
        self._traffic()
        self._people()
        for _, strokes in sorted(self.things, key=lambda thing: -thing[0]):
            strokes()
        if stage.style.bonnet and dice.chance(0.85):
            furniture.bonnet(stage)

    # ---------------------------------------------------------------- beside the street

    def _lots(self, side: int) -> list[tuple[float, Strokes]]:
        dice = self.stage.dice
        lots: list[tuple[float, Strokes]] = []
        weights = {
            "city": {"building": 0.88, "wall": 0.05, "fence": 0.03, "park": 0.04},
            "homes": {"house": 0.62, "wall": 0.1, "fence": 0.12, "park": 0.1, "building": 0.06},
            "open": {"wall": 0.24, "fence": 0.26, "park": 0.3, "building": 0.2},
        }[self.zone]
        limit = min(self.end or _END_M, _END_M)
        z = dice.uniform(2.0, 3.0)
        while z < limit:
            kind = dice.weighted(weights)
            length = dice.uniform(9, 20) if kind in ("building", "house") else dice.uniform(8, 24)
            stop = min(z + length, limit)
            if self.cross and z < self.cross[0] + self.cross[1]:
                if z >= self.cross[0] - 3.5:
                    z = self.cross[0] + self.cross[1] + 2.0
                    continue
                stop = min(stop, self.cross[0] - 2.0)
            lots.append((z, partial(self._lot, kind, side, z, stop)))
            z = stop + (0.0 if dice.chance(0.8) else dice.uniform(1, 4))
        return lots

    def _lot(self, kind: str, side: int, z0: float, z1: float) -> None:
        stage, dice = self.stage, self.stage.dice
        front = self.front
        if kind == "building":
            structures.building(
                stage,
                side,
                front + dice.uniform(0, 0.8),
                z0,
                z1,
                3.2 * dice.integer(*stage.style.floors) + dice.uniform(0.8, 2.5),
            )
            return
        if stage.has("terrain"):
            stage.canvas.begin(ID["terrain"], 0.0, (26, 24, 14))
            stage.canvas.fill(stage.ground(side * front, side * (front + 40), z0, z1), dice.tone(stage.style.terrain))
        if kind == "house":
            if dice.chance(0.5):
                structures.tree(stage, side * (front + dice.uniform(3, 9)), z1)
            structures.house(stage, side, front + dice.uniform(3, 6), z0 + 1.5, max(z0 + 4, z1 - 2))
            if dice.chance(0.4):
                structures.bush(stage, side * (front + 1.8), z0 + 2)
            self._border(dice.weighted({"fence": 0.4, "hedge": 0.25, "wall": 0.2, "none": 0.15}), side, z0, z1, 0.5)
            return
        if kind in ("wall", "fence") and dice.chance(0.35):
            structures.building(stage, side, front + dice.uniform(5, 12), z0, z1, 3.2 * dice.integer(2, 5))
        for z in sorted(
            (dice.uniform(z0, z1) for _ in range(dice.integer(0, 3) + (2 if kind == "park" else 0))), reverse=True
        ):
            structures.tree(stage, side * (front + dice.uniform(1.5, 9)), z)
        if kind == "park":
            for z in sorted((dice.uniform(z0, z1) for _ in range(dice.integer(0, 4))), reverse=True):
                structures.bush(stage, side * (front + dice.uniform(0.8, 4)), z)
            return
        self._border(kind, side, z0, z1, 1.0)

    def _border(self, kind: str, side: int, z0: float, z1: float, scale: float) -> None:
        dice, front = self.stage.dice, self.front + 0.2
        if kind == "wall":
            structures.wall(self.stage, side, front, z0, z1, dice.uniform(1.0, 3.6) * (scale + 1) / 2)
        elif kind == "fence":
            structures.fence(self.stage, side, front, z0, z1, dice.uniform(1.0, 2.4) * (scale + 1) / 2)
        elif kind == "hedge":
            structures.hedge(self.stage, side, front, z0, z1, dice.uniform(0.8, 1.8))

    # ---------------------------------------------------------------- between the lots

    def _add(self, s: float, z: float, strokes: Strokes, half_width: float = 0.5) -> None:
        """Plan a thing, unless it lies beyond the end of the street or is hidden behind a bend."""
        cam = self.stage.camera
        if z < 2.2 or (self.end and z > self.end - 4):
            return
        slope = cam.lateral(s, z) / z
        hidden = any(
            abs(slope * d + cam.offset_m - cam.curve * d * d) > self.front + half_width
            for d in (0.3 * z, 0.5 * z, 0.7 * z, 0.85 * z)
        )
        if not hidden or (self.cross and abs(z - self.cross[0] - self.cross[1] / 2) < self.cross[1] / 2):
            self.things.append((z, strokes))

    def _furnish(self) -> None:
        self._line_kerbs()
        stage, dice = self.stage, self.stage.dice
        rates = stage.style.rates
        for _ in range(stage.count(rates["sign"])):
            s, z = dice.side() * (self.half + dice.uniform(0.4, 1.2)), dice.uniform(6, 36)
            self._add(s, z, partial(furniture.sign, stage, s, z))
        for _ in range(stage.count(rates["static"])):
            s, z = dice.side() * (self.front - dice.uniform(0.5, 1.2)), dice.uniform(5, 30)
            self._add(s, z, partial(furniture.bin_or_box, stage, s, z))
        if self.cross:
            for side, z in (
                (1, self.cross[0] - 1.5),
                (-1, self.cross[0] - 1.5),
                (-1, self.cross[0] + self.cross[1] + 1),
            ):
                if dice.chance(0.8 * rates["light"]):
                    s = side * (self.half + 0.6)
                    self._add(s, z, partial(furniture.traffic_light, stage, s, z))
        elif dice.chance(0.3 * rates["light"]):
            s, z = self.half + 0.6, dice.uniform(10, 30)
            self._add(s, z, partial(furniture.traffic_light, stage, s, z))

    def _line_kerbs(self) -> None:
        stage, dice = self.stage, self.stage.dice
        rates = stage.style.rates
        for side in (-1, 1):
            kerb = side * (self.half + 0.55)
            if dice.chance(rates["lamp"]):
                z = dice.uniform(5, 20)
                step = dice.uniform(16, 28)
                while z < 110:
                    self._add(kerb, z, partial(furniture.lamp, stage, kerb, z))
                    z += step
            if dice.chance(rates["tree"]):
                z = dice.uniform(6, 16)
                step = dice.uniform(7, 14)
                while z < 100:
                    if not self._in_crossing(z):
                        self._add(kerb, z, partial(structures.tree, stage, kerb, z))
                    z += step
            if dice.chance(0.12 if self.zone != "open" else 0.3) and self.pavement > 2:
                z0 = dice.uniform(4, 20)
                z1 = z0 + dice.uniform(6, 16)
                if not self._in_crossing(z0) and not self._in_crossing(z1):
                    height = dice.uniform(0.9, 1.3)
                    edge = self.half + 0.3
                    self._add(side * edge, z0, partial(structures.fence, stage, side, edge, z0, z1, height))

    def _in_crossing(self, z: float) -> bool:
        return self.cross is not None and self.cross[0] - 5 < z < self.cross[0] + self.cross[1] + 2

    def _park(self) -> None:
        stage, dice = self.stage, self.stage.dice
        for side in (-1, 1):
            if not dice.chance(0.7):
                continue
            z = dice.uniform(3.5, 9)
            while z < 75:
                is_parked = dice.chance(stage.style.rates["parked"])
                if is_parked and not self._in_crossing(z) and not self._in_crossing(z + 5):
                    s = side * (self.half - 1.15)
                    heading = 1 if side > 0 or dice.chance(0.3) else -1
                    self._add(s, z, partial(vehicles.car, stage, s, z, heading))
                z += dice.uniform(5.6, 7)

    def _traffic(self) -> None:
        stage, dice = self.stage, self.stage.dice
        rates = stage.style.rates
        if self.parking > 1:
            self._park()
        for k in range(self.num_lanes):
            for heading in (1, -1):
                s = heading * (k + 0.5) * self.lane
                if self.has_tram and heading < 0 and k == 0:
                    z = dice.uniform(8, 30)
                    way = dice.side()
                    self._add(s, z, partial(vehicles.tram, stage, s, z, way))
                    continue
                z = dice.uniform(7, 30) if heading > 0 else dice.uniform(6, 26)
                while z < 100:
                    if dice.chance(rates["traffic"]):
                        self._vehicle(dice.weighted(stage.style.vehicles), s + dice.uniform(-0.25, 0.25), z, heading)
                    z += dice.uniform(12, 26)
        if self.cross and dice.chance(rates["across"]):
            z = self.cross[0] + self.cross[1] * dice.uniform(0.15, 0.5)
            kind = dice.weighted({"car": 0.62, **{n: 0.19 for n in ("bus", "truck") if stage.has(n)}})
            self._vehicle(kind, dice.uniform(-14, 14), z, dice.pick((2, -2)))
        for name in ("bus", "truck"):
            if stage.has(name) and dice.chance(rates[name]):
                side = dice.side()
                self._vehicle(name, side * (self.half - 1.4), dice.uniform(9, 28), side)

    def _vehicle(self, kind: str, s: float, z: float, heading: int) -> None:
        stage = self.stage
        paint = {"car": vehicles.car, "truck": vehicles.truck, "bus": vehicles.bus}[kind]
        self._add(s, z, partial(paint, stage, s, z, heading), 12.0 if abs(heading) == 2 else 0.5)

    def _people(self) -> None:
        stage, dice = self.stage, self.stage.dice
        rates = stage.style.rates
        for _ in range(stage.count(rates["people"])):
            z = dice.uniform(5, 45)
            s = dice.side() * self.half
            s += (1 if s > 0 else -1) * dice.uniform(0.4, max(0.6, self.pavement - 0.4))
            if self.cross and dice.chance(0.35):
                z, s = self.cross[0] - dice.uniform(1.2, 4), dice.uniform(-self.half, self.half)
            for _ in range(2 if dice.chance(0.3) else 1):
                self._add(s, z, partial(people.person, stage, s, z))
                s += dice.uniform(0.45, 0.7)
        for _ in range(stage.count(rates["bicycle"])):
            z, s = dice.uniform(5, 28), dice.side() * (self.half + dice.uniform(0.5, 1.3))
            for _ in range(dice.integer(1, 3)):
                view = dice.pick(("side", "oblique"))
                self._add(s, z, partial(people.bicycle, stage, s, z, False, view))
                z += dice.uniform(0.6, 1.2)
        for _ in range(stage.count(rates["motorcycle"])):
            z, s = dice.uniform(6, 28), dice.side() * (self.half - dice.uniform(-1.0, 0.8))
            view = dice.pick(("side", "oblique", "rear"))
            self._add(s, z, partial(people.motorcycle, stage, s, z, False, view))
        for _ in range(stage.count(rates["rider"])):
            z = dice.uniform(6, 34)
            ride = people.bicycle if dice.chance(0.7) else people.motorcycle
            if self.cross and dice.chance(0.5):
                z, s, view = self.cross[0] + dice.uniform(-1, 3), dice.uniform(-self.half, self.half), "side"
            else:
                s, view = (
                    dice.side() * (self.half - dice.uniform(0.3, 1.5) - self.parking),
                    dice.pick(("rear", "oblique", "rear")),
                )
            self._add(s, z, partial(ride, stage, s, z, True, view))
