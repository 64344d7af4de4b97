"""Development of painted layers into an image: light, air, lens and sensor.

Integer and elementwise IEEE float arithmetic only, so that the bytes do not depend on the machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.streets.canvas import Color, Dice
from ripu.datasets.streets.layout import paint_scene
from ripu.datasets.streets.stage import Stage
from ripu.datasets.streets.styles import Style

Floats = NDArray[np.float32]


def render(
    style: Style, dice: Dice, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """Make one scene.

    Args:
        style: The domain.
        dice: The random numbers of the scene.
        height: Rows.
        width: Columns.

    Returns:
        RGB image (H, W, 3) uint8, Cityscapes label ids (H, W) uint8, instance numbers (H, W) uint16 (0: none).
    """
    stage = paint_scene(style, dice, height, width)
    owner = stage.canvas.owner[1::2, 1::2]
    label = np.asarray(stage.canvas.classes, dtype=np.uint8)[owner]
    instance = np.asarray(stage.canvas.instances, dtype=np.uint16)[owner]
    return develop(stage), label, instance


def develop(stage: Stage) -> NDArray[np.uint8]:
    """Return the image of a painted stage.

    Args:
        stage: The result of :func:`paint_scene`, with layers of (2H, 2W).

    Returns:
        RGB image (H, W, 3) uint8.
    """
    canvas, weather, style, dice = stage.canvas, stage.weather, stage.style, stage.dice
    small = canvas.paint[1::2, 1::2]
    height, width = small.shape
    horizon = stage.camera.horizon_px / 2
    rows = np.arange(height, dtype=np.float32)[:, None]

    is_sky = small == 0
    sky = _sky(stage, height, width, horizon)
    image = _halve(np.asarray(canvas.colors, dtype=np.uint8)[canvas.paint])
    image = np.where(is_sky[..., None], sky, image)

    depth_table = np.asarray(canvas.depths, dtype=np.float32)
    depth = depth_table[small]
    is_ground = depth == 0
    ground_depth = np.float32(stage.camera.focal_px / 2 * stage.camera.height_m) / np.maximum(
        rows + np.float32(0.5) - np.float32(horizon), np.float32(0.5)
    )
    depth = np.where(is_ground, ground_depth, depth)

    grains = np.asarray(canvas.grains, dtype=np.float32) * np.float32(style.grain / 128.0)
    grain = grains[small]
    texture = np.zeros((height, width), dtype=np.float32)
    for k, cell in enumerate((1, 3, 16)):
        texture += grain[..., k] * (_value_noise(dice, height, width, cell) - np.float32(127.5))
    image += texture[..., None]

    shadow = _halve(canvas.shadow[..., None])[..., 0] * np.float32(1 / 255)
    darkness = np.float32(0.18 + 0.37 * weather.sun)
    image *= (np.float32(1) - darkness * shadow * is_ground)[..., None]

    if weather.sheen:
        image = _sheen(image, is_ground, horizon, weather.sheen, dice)

    weight = depth / (depth + np.float32(weather.haze_m))
    weight = np.where(is_sky, np.float32(0), weight)[..., None]
    image += weight * (_vector(weather.haze) - image)

    image = _grade(image, style, dice, weather.exposure, weather.tint)
    for _ in range(dice.integer(*style.blur)):
        image = _soften(image)
    if style.vignette:
        across = (np.arange(width, dtype=np.float32) / np.float32(width) - np.float32(0.5))[None, :]
        down = rows / np.float32(height) - np.float32(0.5)
        image *= (np.float32(1) - np.float32(style.vignette) * (across * across + down * down))[..., None]
    strength = np.float32(dice.within(style.noise) / 255.0)
    if strength > 0:
        speckle = dice.noise((height, width, 3)).astype(np.float32) + dice.noise((height, width, 3)) - np.float32(255)
        image += speckle * strength
    return np.asarray(np.clip(np.floor(image + np.float32(0.5)), 0, 255), dtype=np.uint8)


def _vector(color: Color) -> Floats:
    return np.asarray(color, dtype=np.float32)


def _halve(layer: NDArray[np.uint8]) -> Floats:
    """Return the mean of each 2x2 block."""
    wide = layer.astype(np.uint16)
    total = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
    mean: Floats = total.astype(np.float32) * np.float32(0.25)
    return mean


def _value_noise(dice: Dice, height: int, width: int, cell: int) -> Floats:
    """Return noise 0..255 with grains `cell` pixels apart, interpolated bilinearly."""
    if cell == 1:
        return dice.noise((height, width)).astype(np.float32)
    knots = dice.noise((height // cell + 2, width // cell + 2)).astype(np.float32)
    row, column = np.arange(height), np.arange(width)
    weight_r = ((row % cell).astype(np.float32) / np.float32(cell))[:, None]
    weight_c = ((column % cell).astype(np.float32) / np.float32(cell))[None, :]
    lines = knots[row // cell] + weight_r * (knots[row // cell + 1] - knots[row // cell])
    return np.asarray(lines[:, column // cell] + weight_c * (lines[:, column // cell + 1] - lines[:, column // cell]))


def _sky(stage: Stage, height: int, width: int, horizon: float) -> Floats:
    """Return a gradient from the zenith to the haze, with clouds in three octaves."""
    weather, dice = stage.weather, stage.dice
    rise = np.clip(np.arange(height, dtype=np.float32) / np.float32(max(horizon, 1.0)), 0, 1)[:, None, None]
    zenith, haze, cloud = _vector(weather.zenith), _vector(weather.haze), _vector(weather.cloud)
    sky = zenith + rise * rise * (haze - zenith)
    sky = np.broadcast_to(sky, (height, width, 3))
    unit = max(2, width // 128)
    field = np.zeros((height, width), dtype=np.float32)
    for octave, share in ((16, 0.55), (6, 0.3), (2, 0.15)):
        noise = _value_noise(dice, height, width // 2 + 1, octave * unit)
        field += np.float32(share / 255.0) * np.repeat(noise, 2, axis=1)[:, :width]
    cover = np.float32(0.72 - 0.45 * weather.cover)
    amount = np.clip((field - cover) * np.float32(5.0), 0, 1)[..., None] * np.float32(0.85)
    tone = cloud * (np.float32(0.86) + np.float32(0.14) * field[..., None])
    return np.asarray(sky + amount * (tone - sky), dtype=np.float32)


def _sheen(image: Floats, is_ground: NDArray[np.bool_], horizon: float, strength: float, dice: Dice) -> Floats:
    """Let wet ground mirror the other side of the horizon, smeared and in puddles."""
    height, width = is_ground.shape
    row = np.arange(height)
    mirror = np.clip((2 * int(horizon) - row), 0, height - 1)
    smear = image
    for _ in range(3):
        smear = _soften(smear)
    reflected = smear[mirror]
    puddles = _value_noise(dice, height, width, max(4, width // 24)) * np.float32(strength / 255.0) + np.float32(
        strength * 0.4
    )
    weight = np.where(is_ground, puddles, np.float32(0))[..., None]
    return np.asarray(image * (np.float32(1) - np.float32(0.25) * (weight > 0)) + weight * (reflected - image))


def _grade(
    image: Floats, style: Style, dice: Dice, exposure: tuple[float, float], tint: tuple[float, float, float]
) -> Floats:
    """Apply tint, exposure, saturation, contrast and black level."""
    gain = np.asarray(tint, dtype=np.float32) * np.float32(dice.within(exposure))
    image = image * gain
    grey = (image[..., 0] * np.float32(0.3) + image[..., 1] * np.float32(0.59) + image[..., 2] * np.float32(0.11))[
        ..., None
    ]
    image = grey + np.float32(dice.within(style.saturation)) * (image - grey)
    image = np.float32(118) + np.float32(dice.within(style.contrast)) * (image - np.float32(118))
    lift = np.float32(style.lift)
    return np.asarray(np.clip(lift + image * ((np.float32(255) - lift) / np.float32(255)), 0, 255))


def _soften(image: Floats) -> Floats:
    """Apply one pass of a 1-2-1 filter in both directions."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    image = (padded[:-2] + padded[2:]) * np.float32(0.25) + padded[1:-1] * np.float32(0.5)
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return np.asarray((padded[:, :-2] + padded[:, 2:]) * np.float32(0.25) + padded[:, 1:-1] * np.float32(0.5))
