"""Images read and resized row by row: the same values as when they are read whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bombs import bomb
from ripu.datasets import resized_rows
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader, resize_image
from ripu.datasets.image_rows import open_rows
from ripu.datasets.resized_rows import ResizedRows


def picture(height: int = 97, width: int = 131) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def check(path: Path, *, is_decoded: bool, reader: ImageReader | None = None) -> None:
    """Compare rows, from top to bottom and again from further up, with the whole image."""
    for own in [reader] if reader else [ImageReader(), ImageReader((1,))]:
        whole = own(path)
        with open_rows(path, own) as rows:
            assert rows.is_decoded == is_decoded
            assert rows.size == whole.shape[:2]
            parts = [rows(top, min(top + 11, rows.size[0])) for top in range(0, rows.size[0], 11)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
            np.testing.assert_array_equal(rows(3, 9), whole[3:9])


def read_all(path: Path, error: Exception | None = None) -> None:
    with warnings.catch_warnings(), open_rows(path, ImageReader()) as rows:
        warnings.simplefilter("ignore")
        for top, bottom in rows.blocks():
            rows(top, bottom)
        if error is not None:
            raise error


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("num_bands", [1, 3, 4, 7])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 7},
        {"tile": (32, 48)},
        {"compression": "zlib", "rowsperstrip": 10},
        {"compression": "zlib", "tile": (16, 16), "planarconfig": "separate"},
        {"byteorder": ">", "bigtiff": True},
        {"bigtiff": True, "tile": (32, 32), "compression": "zlib"},
    ],
    ids=str,
)
def test_windows_of_a_tiff(tmp_path: Path, dtype: str, num_bands: int, layout: dict[str, Any]) -> None:
    values = np.repeat(picture()[..., :1], num_bands, axis=2).astype(dtype)
    if dtype == "f4":
        values /= 255.0
    options = {"planarconfig": "contig" if num_bands > 1 else None, **layout}
    if options["planarconfig"] == "separate" and num_bands > 1:
        values = np.moveaxis(values, 2, 0)
    elif num_bands == 1:
        values, options["planarconfig"] = values[..., 0], None
    kind = "rgb" if num_bands in (3, 4) else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=kind, **options)
    check(tmp_path / "a.tif", is_decoded=False)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_rows_are_those_of_the_upright_image(tmp_path: Path, turn: int, name: str) -> None:
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, picture(), photometric="rgb", extratags=[(274, "H", 1, turn, True)])
    else:
        exif = Image.Exif()
        exif[274] = turn
        Image.fromarray(picture()).save(tmp_path / name, exif=exif)
    in_parts = turn <= 4 if name == "a.tif" else turn == 1 and name == "a.png"
    check(tmp_path / name, is_decoded=not in_parts)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_rows_of_a_png(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        Image.fromarray(picture()[..., 0].astype(np.uint16) * 200).save(tmp_path / "a.png")
    else:
        Image.fromarray(picture()).convert(mode).save(tmp_path / "a.png")
    check(tmp_path / "a.png", is_decoded=False)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_rows_of_a_small_palette(tmp_path: Path, bits: int) -> None:
    Image.fromarray(picture()).quantize(2**bits).save(tmp_path / "a.png", bits=bits)
    check(tmp_path / "a.png", is_decoded=False)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "CMYK", {}),
        ("a.bmp", "RGB", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.ppm", "RGB", {}),
        ("a.tif", "1", {"compression": "group4"}),
        ("a.tif", "P", {}),
        ("a.tif", "CMYK", {}),
    ],
)
def test_what_is_decoded_whole(tmp_path: Path, name: str, mode: str, options: dict[str, Any]) -> None:
    Image.fromarray(picture()).convert(mode).save(tmp_path / name, **options)
    check(tmp_path / name, is_decoded=True, reader=ImageReader())


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw"])
def test_tiffs_that_pillow_decodes_have_the_same_values_by_windows(tmp_path: Path, compression: str) -> None:
    pytest.importorskip("imagecodecs")
    Image.fromarray(picture(400, 300)).save(tmp_path / "a.tif", compression=compression)
    check(tmp_path / "a.tif", is_decoded=False)
    if compression == "jpeg":  # colours at half the size, as most programs store them
        tifffile.imwrite(tmp_path / "b.tif", picture(400, 300), photometric="rgb", compression="jpeg", tile=(128, 128))
        check(tmp_path / "b.tif", is_decoded=False)


def test_the_range_of_floats_is_that_of_the_whole_file(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(40, 30)
    tifffile.imwrite(tmp_path / "unit.tif", values)
    values[-1, -1] = 200.0  # so all of it lies in 0..255
    tifffile.imwrite(tmp_path / "bytes.tif", values)
    for name in ("unit.tif", "bytes.tif"):
        check(tmp_path / name, is_decoded=False, reader=ImageReader())


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(picture(400, 300)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SceneError, match=rf"{name} cannot be read as an image"):
        read_all(path)


def test_a_damaged_png_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(400, 300)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"a\.png cannot be read"), open_rows(path, ImageReader()) as rows:
        rows(0, 400)


def test_the_limit_of_what_is_decoded_whole_can_be_lifted(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(picture(60, 50)).save(path)
    small = ImageReader(most_pixels=2999)
    with pytest.raises(SceneError, match=r"a\.bmp has 50 x 60 pixels .* up to 2999 .*larger max_pixels.*tiled TIFF"):
        with open_rows(path, small):
            pass
    check(path, is_decoded=True, reader=ImageReader(most_pixels=3000))
    Image.fromarray(picture(60, 50)).save(tmp_path / "a.png")
    with open_rows(tmp_path / "a.png", small) as rows:  # nothing is decoded whole
        assert rows(0, 60).shape == (60, 50, 3)
    bomb(tmp_path / "interlaced.png", 100_000, 100_000, interlaced=True)
    with pytest.raises(SceneError, match=r"100000 x 100000 .*max_pixels=10000000000 \(it then takes about 37\.3 GiB"):
        with open_rows(tmp_path / "interlaced.png", ImageReader()):
            pass


def test_errors_of_whoever_uses_the_rows_stay_theirs(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(picture()).save(tmp_path / name)
        with pytest.raises(OSError, match=r"^mine$"):
            read_all(tmp_path / name, OSError("mine"))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 120), st.integers(1, 90)),
    st.tuples(st.integers(1, 120), st.integers(1, 90)),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 40),
    st.sampled_from([1, 500, 2**20]),
    st.integers(0, 2**32 - 1),
)
def test_resizing_by_rows_is_pillows(
    size: tuple[int, int], target: tuple[int, int], bands: int, step: int, block: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 2, (*size, bands), dtype=np.uint8) * 255
    before, resized_rows._BLOCK_VALUES = resized_rows._BLOCK_VALUES, block
    try:
        rows = ResizedRows(lambda top, bottom: image[top:bottom], size, target)
        parts = [rows.read(min(step, target[0] - top)) for top in range(0, target[0], step)]
    finally:
        resized_rows._BLOCK_VALUES = before
    np.testing.assert_array_equal(np.concatenate(parts), resize_image(image, target))


@pytest.mark.parametrize("size", [(64, 96), (90, 70)])
def test_images_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    image = picture(240, 320)
    expected = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_image(image, size), expected)
