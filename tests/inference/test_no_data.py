"""Pixels without data in GeoTIFFs have no class."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geotiffs import PLACE, picture, run, write_geo
from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader
from ripu.datasets.image_rows import open_rows
from ripu.inference import photo_prediction
from running import untrained_checkpoint

rasterio = pytest.importorskip("rasterio")

KINDS = "write=[labelIds,trainIds,color,overlay,uncertainty]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("mark", ["nodata", "alpha", "nan"])
@pytest.mark.parametrize("strips", [False, True])
def test_pixels_without_data_have_no_class(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, strips: bool
) -> None:
    if strips:
        monkeypatch.setattr(photo_prediction, "_WHOLE_PIXELS", 0)
    values = np.clip(picture(), 1, 255)
    hole = np.zeros(values.shape[:2], dtype=bool)
    hole[20:40, 30:90] = True
    if mark == "alpha":
        values = np.dstack([values, np.where(hole, 0, 255).astype(np.uint8)])
        write_geo(tmp_path / "a.tif", values, photometric="RGB", ALPHA="YES")
    elif mark == "nodata":
        values[hole] = 0
        write_geo(tmp_path / "a.tif", values, nodata=0)
    else:
        floats = values.astype(np.float32) / 255
        floats[hole] = np.nan
        write_geo(tmp_path / "a.tif", floats, nodata=math.nan)
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(tmp_path / "out" / "labelIds" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, hole)
    with rasterio.open(tmp_path / "out" / "uncertainty" / "a.tif") as file:
        np.testing.assert_array_equal(np.isnan(file.read(1)), hole)
    with rasterio.open(tmp_path / "out" / "color" / "a.tif") as file:
        assert not file.read()[:, hole].any()


def grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return values[..., :1]


DECODED: dict[str, tuple[Callable[[NDArray[np.uint8]], NDArray[Any]], dict[str, Any]]] = {
    # what makes an image of colours 1..255 the values of a file, and the options of that file
    "a palette": (lambda values: grey(values) % 16 + 1, {"photometric": "PALETTE"}),
    "16 values": (lambda values: grey(values) % 15 + 1, {"NBITS": 4}),
    "black and white": (lambda values: np.ones_like(grey(values)), {"NBITS": 1}),
    "0 is white": (grey, {"photometric": "MINISWHITE"}),
    "0 is white, 16 values": (lambda values: grey(values) % 15 + 1, {"NBITS": 4, "photometric": "MINISWHITE"}),
    "grey": (grey, {}),
    "colour": (lambda values: values, {"photometric": "RGB"}),
    "16 bits": (lambda values: grey(values) * np.uint16(200), {}),
    "big-endian": (lambda values: grey(values) * np.uint16(200), {"ENDIANNESS": "BIG"}),
    "floats": (lambda values: grey(values) / np.float32(255), {}),
    "four bands of 16 bits": (lambda values: values[..., [0, 1, 2, 0]] * np.uint16(200), {}),
    "grey and a band of no meaning": (lambda values: values[..., :2], {}),
}


@pytest.mark.parametrize("form", DECODED)
@pytest.mark.parametrize("strips", [False, True])
def test_values_without_data_of_images_that_are_decoded_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, strips: bool
) -> None:
    monkeypatch.setattr(tiff_pages.TiffWindows, "is_possible", lambda self: False)
    monkeypatch.setattr(photo_prediction, "_WHOLE_PIXELS", 0 if strips else 2**24)
    change, options = DECODED[form]
    values = change(np.clip(picture(), 1, 254))
    hole = np.zeros(values.shape[:2], dtype=bool)
    hole[20:40, 30:90] = True
    values[hole] = 0
    write_geo(tmp_path / "a.tif", values, nodata=0, **options)
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(tmp_path / "out" / "labelIds" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, hole)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("kind", ["YES", "PREMULTIPLIED", "NO"])
@pytest.mark.parametrize("windows", [False, True])
def test_transparency_of_images_that_are_decoded_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bands: int, kind: str, windows: bool
) -> None:
    if not windows:
        monkeypatch.setattr(tiff_pages.TiffWindows, "is_possible", lambda self: False)
    values = np.clip(picture(), 1, 254)[..., :bands]
    hole = np.zeros(values.shape[:2], dtype=bool)
    hole[20:40, 30:90] = True
    values = np.dstack([values, np.where(hole, 0, 255).astype(np.uint8)])
    write_geo(tmp_path / "a.tif", values, photometric="RGB" if bands == 3 else "MINISBLACK", ALPHA=kind)
    with open_rows(tmp_path / "a.tif", ImageReader()) as rows:
        assert rows.is_decoded == (not windows or kind == "PREMULTIPLIED")
        np.testing.assert_array_equal(rows(0, 150)[~hole], np.repeat(values, 3, 2)[~hole][:, : 3 * bands : bands])
    assert run(checkpoint, tmp_path / "a.tif", tmp_path / "out", KINDS)["done"] == 1
    with rasterio.open(tmp_path / "out" / "labelIds" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, hole & (kind != "NO"))


@pytest.mark.parametrize("form", ["tiles", "one strip", "without compression"])
def test_a_mask_inside_the_file_says_where_there_are_no_data(checkpoint: Path, tmp_path: Path, form: str) -> None:
    hole = np.zeros((150, 131), dtype=bool)  # rows of bits end within a byte
    hole[20:40, 30:91] = True
    options = {
        "tiles": {"compress": "jpeg", "photometric": "YCBCR"},
        "one strip": {"tiled": False, "blockysize": 150},
        "without compression": {"tiled": False, "blockysize": 7, "compress": None},
    }[form]
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 150, "width": 131}
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **options}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:25833", transform=PLACE, **profile) as file:
            file.write(np.moveaxis(np.clip(picture(150, 131), 1, 255), 2, 0))
            file.write_mask(~hole)
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.build_overviews([2])  # whose masks are not meant
    for name, words in (("whole", ()), ("strips", ("scale=1", "tile=[48,64]"))):
        assert run(checkpoint, tmp_path / "a.tif", tmp_path / name, KINDS, *words)["done"] == 1
        with rasterio.open(tmp_path / name / "labelIds" / "a.tif") as file:
            np.testing.assert_array_equal(file.read(1) == 255, hole)
        with rasterio.open(tmp_path / name / "uncertainty" / "a.tif") as file:
            np.testing.assert_array_equal(np.isnan(file.read(1)), hole)


def test_a_mask_that_is_decoded_whole_has_the_limit_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hole = np.zeros((70, 64), dtype=bool)
    hole[:20] = True
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 70, "width": 64}
    for name, more in {"tiles": {"tiled": True, "compress": "deflate"}, "rows": {"blockysize": 7}}.items():
        sides = {"blockxsize": 64, "blockysize": 64} if name == "tiles" else {}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(tmp_path / f"{name}.tif", "w", **profile, **more, **sides) as file,
        ):
            file.write(np.moveaxis(picture(70, 64), 2, 0))
            file.write_mask(~hole)
    for name, most in (("tiles", 1), ("rows", 70 * 64)):
        with open_rows(tmp_path / f"{name}.tif", ImageReader(most_pixels=most)) as rows:
            assert rows.mask is rows.mask
            assert rows.mask is not None
            np.testing.assert_array_equal(rows.mask.missing(10, 40), hole[10:40])
    monkeypatch.setattr(tiff_pages, "_LONGEST_SEGMENT", 1)  # every strip is a long one
    with open_rows(tmp_path / "rows.tif", ImageReader(most_pixels=70 * 64)) as rows:
        assert rows.mask is not None
        np.testing.assert_array_equal(rows.mask.missing(10, 40), hole[10:40])
    with open_rows(tmp_path / "rows.tif", ImageReader(most_pixels=70 * 64 - 1)) as rows:
        assert rows(0, 70).shape == (70, 64, 3)  # read in parts
        assert rows.mask is not None
        with pytest.raises(SceneError, match=r"rows\.tif: its mask has 64 x 70 pixels .* larger max_pixels"):
            rows.mask.missing(0, 1)
