"""Looks and streets of the domains: a game-like source, a camera-like target, a second source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ripu.datasets.streets.canvas import Color

Range = tuple[float, float]
Palette = tuple[Color, ...]


@dataclass(frozen=True)
class Weather:
    """One kind of light and air.

    Attributes:
        sun: 0 (no shadows, all faces alike) .. 1 (hard shadows, bright and dark faces).
        haze_m: Distance at which half of the colour is haze.
        haze: Colour of the haze.
        zenith: Colour at the top of the sky.
        cloud: Colour of the clouds.
        cover: 0 (no clouds) .. 1 (covered).
        exposure: Brightness, lowest and highest factor.
        tint: Factor per channel.
        sheen: Reflection of wet ground, 0..1.
        lamps: Whether vehicles have their lamps on and windows are lit.
    """

    sun: float
    haze_m: float
    haze: Color
    zenith: Color
    cloud: Color
    cover: float
    exposure: Range
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sheen: float = 0.0
    lamps: bool = False


@dataclass(frozen=True)
class Style:
    """Everything that differs between domains.

    Attributes:
        name: Short name.
        focal: Focal length in image widths.
        camera_height_m: Height of the camera.
        horizon: Row of the horizon as a fraction of the height.
        yaw: Largest shift of the vanishing point in image widths.
        curve: Largest curvature.
        lane_m: Width of a lane.
        num_lanes: Lanes per direction, fewest and most.
        sidewalk_m: Width of a pavement.
        zones: Weights of ``city``, ``homes`` and ``open``.
        crossing: Probability of a crossing street.
        end_block: Probability that a facade closes the view.
        rates: Expected numbers or probabilities of things; see ``layout.py``.
        floors: Fewest and most floors in a city.
        vehicles: Weights of the kinds of moving vehicles.
        yellow_lines: Whether the middle line is yellow.
        american: Whether signs and lights are American.
        bonnet: Whether the camera's car is in view.
        weathers: (weight, weather) pairs.
        facade, wall, fence, car, clothes, foliage, terrain, road, sidewalk, roof: Palettes.
        saturation, contrast: Lowest and highest factor.
        lift: Grey level that black is raised to.
        blur: Fewest and most passes of a 1-2-1 filter.
        noise: Largest noise in grey levels, lowest and highest.
        grain: Factor on the textures.
        vignette: Darkening of the corners, 0..1.
        excluded: Names of classes that do not occur.
    """

    name: str
    focal: Range
    camera_height_m: Range
    horizon: Range
    yaw: float
    curve: float
    lane_m: Range
    num_lanes: tuple[int, int]
    sidewalk_m: Range
    zones: Mapping[str, float]
    crossing: float
    end_block: float
    rates: Mapping[str, float]
    floors: tuple[int, int]
    vehicles: Mapping[str, float]
    yellow_lines: bool
    american: bool
    bonnet: bool
    weathers: tuple[tuple[float, Weather], ...]
    facade: Palette
    wall: Palette
    fence: Palette
    car: Palette
    clothes: Palette
    foliage: Palette
    terrain: Palette
    road: Palette
    sidewalk: Palette
    roof: Palette
    saturation: Range
    contrast: Range
    lift: float
    blur: tuple[int, int]
    noise: Range
    grain: float
    vignette: float
    excluded: frozenset[str] = frozenset()


_SUNNY = Weather(0.95, 900.0, (196, 218, 240), (48, 112, 214), (252, 252, 255), 0.35, (0.95, 1.12), (1.06, 1.0, 0.92))
_NOON = Weather(0.9, 1400.0, (178, 214, 246), (30, 96, 206), (255, 255, 255), 0.15, (1.0, 1.18), (1.03, 1.01, 0.95))
_EVENING = Weather(1.0, 500.0, (250, 196, 130), (104, 122, 190), (255, 206, 160), 0.4, (0.86, 1.02), (1.14, 0.97, 0.8))

SOURCE = Style(
    name="source",
    focal=(0.62, 0.8),
    camera_height_m=(1.5, 2.3),
    horizon=(0.4, 0.5),
    yaw=0.1,
    curve=0.0016,
    lane_m=(3.4, 3.9),
    num_lanes=(1, 3),
    sidewalk_m=(2.5, 4.5),
    zones={"city": 0.45, "homes": 0.2, "open": 0.35},
    crossing=0.45,
    end_block=0.12,
    rates={
        "parked": 0.22,
        "traffic": 0.5,
        "people": 4.5,
        "tree": 0.35,
        "lamp": 0.55,
        "sign": 1.6,
        "light": 1.0,
        "bicycle": 0.5,
        "motorcycle": 0.5,
        "rider": 0.6,
        "static": 0.8,
        "train": 0.08,
        "truck": 0.05,
        "bus": 0.05,
        "strip": 0.2,
        "across": 0.5,
    },
    floors=(3, 12),
    vehicles={"car": 0.78, "truck": 0.13, "bus": 0.09},
    yellow_lines=True,
    american=True,
    bonnet=False,
    weathers=((0.45, _SUNNY), (0.35, _NOON), (0.2, _EVENING)),
    facade=(
        (214, 176, 132),
        (186, 112, 84),
        (228, 214, 188),
        (156, 172, 190),
        (122, 140, 160),
        (206, 150, 110),
        (170, 86, 66),
    ),
    wall=((206, 190, 160), (176, 160, 140), (190, 120, 92), (168, 168, 164)),
    fence=((120, 84, 56), (66, 70, 74), (170, 172, 176), (226, 222, 212)),
    car=(
        (190, 24, 26),
        (26, 66, 158),
        (232, 232, 230),
        (30, 30, 34),
        (226, 176, 24),
        (34, 122, 66),
        (150, 154, 160),
        (214, 98, 24),
    ),
    clothes=(
        (196, 44, 44),
        (40, 72, 150),
        (230, 226, 214),
        (40, 40, 46),
        (216, 180, 60),
        (70, 130, 80),
        (150, 100, 160),
        (150, 120, 90),
    ),
    foliage=((62, 122, 38), (84, 142, 44), (44, 98, 40), (106, 136, 50)),
    terrain=((112, 150, 58), (140, 160, 74), (188, 164, 112), (170, 140, 92)),
    road=((96, 94, 96), (110, 106, 104), (82, 82, 88)),
    sidewalk=((188, 178, 164), (170, 166, 162), (200, 188, 170)),
    roof=((140, 70, 50), (96, 84, 78), (120, 106, 92)),
    saturation=(1.15, 1.45),
    contrast=(1.05, 1.2),
    lift=0.0,
    blur=(0, 0),
    noise=(0.0, 1.0),
    grain=0.8,
    vignette=0.0,
)
"""The computer game: saturated and clean under one sun, wide streets with few people."""

_GREY = Weather(0.12, 170.0, (206, 212, 212), (186, 196, 200), (228, 232, 230), 0.9, (0.8, 1.05), (0.95, 1.02, 0.98))
_PALE = Weather(0.45, 220.0, (214, 222, 222), (150, 178, 196), (236, 238, 236), 0.5, (0.85, 1.2), (0.98, 1.03, 0.97))
_DUSK = Weather(
    0.05, 170.0, (196, 170, 160), (92, 110, 150), (206, 172, 156), 0.6, (0.58, 0.78), (0.97, 0.96, 1.06), 0.0, True
)
_FOG = Weather(0.0, 38.0, (200, 204, 204), (196, 200, 202), (204, 206, 206), 1.0, (0.78, 1.0), (0.98, 1.01, 1.0))
_RAIN = Weather(
    0.02, 95.0, (170, 178, 182), (150, 160, 168), (182, 188, 192), 1.0, (0.72, 0.92), (0.94, 1.0, 1.04), 0.42, True
)

TARGET = Style(
    name="target",
    focal=(0.85, 1.05),
    camera_height_m=(1.15, 1.4),
    horizon=(0.38, 0.46),
    yaw=0.05,
    curve=0.0012,
    lane_m=(2.9, 3.4),
    num_lanes=(1, 2),
    sidewalk_m=(2.0, 4.0),
    zones={"city": 0.6, "homes": 0.22, "open": 0.18},
    crossing=0.4,
    end_block=0.3,
    rates={
        "parked": 0.5,
        "traffic": 0.42,
        "people": 10.0,
        "tree": 0.4,
        "lamp": 0.45,
        "sign": 2.4,
        "light": 1.0,
        "bicycle": 1.7,
        "motorcycle": 0.8,
        "rider": 1.3,
        "static": 1.2,
        "train": 0.12,
        "truck": 0.03,
        "bus": 0.035,
        "strip": 0.22,
        "across": 0.4,
    },
    floors=(3, 6),
    vehicles={"car": 0.88, "truck": 0.06, "bus": 0.06},
    yellow_lines=False,
    american=False,
    bonnet=True,
    weathers=((0.36, _GREY), (0.28, _PALE), (0.11, _DUSK), (0.12, _FOG), (0.13, _RAIN)),
    facade=(
        (196, 190, 176),
        (170, 160, 144),
        (150, 146, 142),
        (184, 170, 140),
        (148, 120, 106),
        (206, 204, 200),
        (126, 128, 132),
    ),
    wall=((158, 154, 148), (136, 130, 124), (146, 112, 98), (120, 122, 122)),
    fence=((70, 76, 72), (110, 112, 112), (60, 62, 66), (126, 104, 84)),
    car=(
        (34, 36, 40),
        (70, 74, 80),
        (150, 152, 156),
        (206, 208, 210),
        (24, 26, 30),
        (54, 66, 96),
        (116, 40, 42),
        (100, 96, 86),
    ),
    clothes=(
        (36, 38, 46),
        (60, 64, 76),
        (90, 88, 86),
        (52, 58, 84),
        (124, 112, 98),
        (120, 50, 54),
        (160, 160, 160),
        (46, 66, 58),
    ),
    foliage=((74, 92, 54), (62, 80, 48), (90, 98, 58), (110, 98, 54), (84, 86, 66)),
    terrain=((104, 118, 72), (120, 122, 82), (134, 126, 100), (92, 106, 66)),
    road=((100, 100, 104), (116, 114, 116), (92, 94, 96), (126, 124, 120)),
    sidewalk=((138, 136, 136), (124, 120, 118), (150, 144, 138), (130, 122, 118)),
    roof=((116, 78, 64), (80, 76, 76), (98, 86, 80)),
    saturation=(0.55, 0.85),
    contrast=(0.8, 1.0),
    lift=10.0,
    blur=(1, 3),
    noise=(5.0, 15.0),
    grain=0.9,
    vignette=0.35,
)
"""The camera behind the windscreen: greyish, hazy, noisy, in any weather; narrow streets full of people."""

_SPRING = Weather(0.7, 700.0, (214, 226, 236), (110, 160, 220), (255, 255, 255), 0.5, (1.0, 1.2), (1.0, 1.0, 1.02))
_PASTEL = Weather(0.55, 420.0, (226, 222, 226), (160, 176, 216), (255, 250, 250), 0.6, (0.95, 1.15), (1.02, 0.99, 1.04))
_NIGHTFALL = Weather(
    0.4, 500.0, (150, 140, 170), (70, 76, 130), (190, 170, 190), 0.5, (0.62, 0.8), (0.96, 0.95, 1.12), 0.1, True
)

SYNTHIA = Style(
    name="synthia",
    focal=(0.55, 0.8),
    camera_height_m=(1.4, 4.5),
    horizon=(0.28, 0.46),
    yaw=0.2,
    curve=0.0012,
    lane_m=(3.2, 3.6),
    num_lanes=(1, 2),
    sidewalk_m=(3.0, 6.0),
    zones={"city": 0.7, "homes": 0.0, "open": 0.3},
    crossing=0.5,
    end_block=0.25,
    rates={
        "parked": 0.25,
        "traffic": 0.35,
        "people": 9.0,
        "tree": 0.45,
        "lamp": 0.5,
        "sign": 1.4,
        "light": 0.9,
        "bicycle": 0.9,
        "motorcycle": 0.7,
        "rider": 1.1,
        "static": 0.6,
        "train": 0.0,
        "truck": 0.0,
        "bus": 0.07,
        "strip": 0.3,
        "across": 0.5,
    },
    floors=(3, 9),
    vehicles={"car": 0.86, "bus": 0.14},
    yellow_lines=False,
    american=False,
    bonnet=False,
    weathers=((0.4, _SPRING), (0.35, _PASTEL), (0.25, _NIGHTFALL)),
    facade=((224, 186, 150), (232, 220, 196), (196, 140, 124), (176, 190, 206), (210, 200, 150), (150, 130, 160)),
    wall=((190, 180, 176), (160, 150, 156), (200, 150, 126)),
    fence=((90, 96, 120), (60, 66, 70), (190, 186, 186)),
    car=((210, 60, 60), (60, 110, 190), (240, 240, 240), (50, 50, 60), (230, 200, 90), (90, 170, 120), (170, 170, 180)),
    clothes=(
        (220, 90, 90),
        (80, 110, 190),
        (236, 230, 220),
        (60, 60, 70),
        (226, 200, 100),
        (110, 170, 120),
        (180, 130, 190),
    ),
    foliage=((96, 150, 70), (120, 160, 60), (70, 128, 78), (190, 150, 70), (214, 150, 160)),
    terrain=((130, 170, 90),),
    road=((104, 104, 116), (120, 118, 124), (90, 92, 104)),
    sidewalk=((196, 186, 184), (180, 176, 180), (206, 180, 160)),
    roof=((160, 90, 80), (110, 100, 110)),
    saturation=(0.95, 1.2),
    contrast=(0.95, 1.1),
    lift=4.0,
    blur=(0, 1),
    noise=(0.0, 2.0),
    grain=0.7,
    vignette=0.0,
    excluded=frozenset({"terrain", "truck", "train"}),
)
"""The virtual city: pastel, all seasons, the camera anywhere between car and balcony; no terrain, trucks or trains."""
