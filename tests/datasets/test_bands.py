"""Images of more than 8 bits or other bands than RGB: bands, ranges, percentiles, and faults with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.support.bombs import bomb

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader, as_rgb, read_header, read_image, read_values, resize_image
from ripu.datasets.value_ranges import check_ranges, measure_ranges, spread

RAMP = (np.arange(24 * 32).reshape(24, 32) // 14 * 75).astype(np.uint16)  # 55 values of 12 bits, 0 to 4050


def twelve_bits(path: Path, values: np.ndarray = RAMP) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("num_bands", [2, 3, 4, 7])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_band_of_a_tiff_is_read_as_stored(
    tmp_path: Path, dtype: type, num_bands: int, planar: str, compression: str | None
) -> None:
    values = np.random.default_rng(0).integers(0, 250, (9, 13, num_bands)).astype(dtype)
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, planarconfig=planar, photometric="minisblack", compression=compression)
    header = read_header(path)
    assert (header.size, header.num_bands, header.bits) == ((9, 13), num_bands, np.dtype(dtype).itemsize * 8)
    np.testing.assert_array_equal(read_values(path, all_bands=True), values)
    wanted = (num_bands, 1)
    read = ImageReader(bands=wanted, ranges=((0, 255),))(path)
    np.testing.assert_array_equal(read, values[..., [num_bands - 1, 0]].astype(np.uint8))
    colour = ImageReader(ranges=((0, 255),))(path)
    np.testing.assert_array_equal(colour, as_rgb(values.astype(np.uint8)))


@pytest.mark.parametrize("turn", range(1, 9))
def test_many_bands_are_turned_upright_like_three(tmp_path: Path, turn: int) -> None:
    values = np.random.default_rng(1).integers(0, 255, (5, 8, 7), dtype=np.uint8)
    tag = [(274, "H", 1, turn, True)]
    for name, part in (("seven.tif", values), ("three.tif", values[..., :3])):
        kind = "rgb" if part.shape[2] == 3 else "minisblack"
        tifffile.imwrite(tmp_path / name, part, photometric=kind, planarconfig="contig", extratags=tag)
    np.testing.assert_array_equal(
        ImageReader(bands=(1, 2, 3))(tmp_path / "seven.tif"), read_image(tmp_path / "three.tif")
    )
    assert read_header(tmp_path / "seven.tif").size == read_image(tmp_path / "three.tif").shape[:2]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_png_keeps_its_16_bits(tmp_path: Path, mode: str) -> None:
    import cv2

    values = np.random.default_rng(2).integers(0, 4096, (9, 13, len(mode)), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3][: len(mode)]])
    assert read_header(tmp_path / "a.png").bits == 16
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), values[..., :3])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rint(values[..., :3] / 257).astype(np.uint8))
    exact = np.clip(np.rint(values[..., :3] * (255 / 4095)), 0, 255)
    np.testing.assert_array_equal(ImageReader(ranges=((0, 4095),))(tmp_path / "a.png"), exact.astype(np.uint8))
    cut = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(SceneError, match=r"b\.png"):
        read_image(tmp_path / "b.png")


def test_a_range_keeps_the_levels_of_12_bits(tmp_path: Path) -> None:
    path = twelve_bits(tmp_path / "a.png")
    assert len(np.unique(RAMP)) == 55
    assert len(np.unique(read_image(path))) < 20  # the whole range: as ever
    read = ImageReader(ranges=((0, 4095),))(path)
    assert len(np.unique(read)) > 50
    np.testing.assert_array_equal(read[..., 0], np.rint(RAMP * (255 / 4095)))
    own = ImageReader(bands=(1,), ranges=((0, 100),))(path)  # values outside are clipped
    assert own.shape == (24, 32, 1)
    assert set(np.unique(own)) == {0, 191, 255}


def test_integers_that_use_few_of_their_bits_are_refused_with_the_remedies(tmp_path: Path) -> None:
    paths = [twelve_bits(tmp_path / f"{number}.png", RAMP // (number + 1)) for number in range(3)]
    with pytest.raises(SceneError) as caught:
        check_ranges(paths, ImageReader())
    for words in ("0.png", "is 4050", "[0,4095]", "data.value_range=percentiles", "[0,65535]"):
        assert words in str(caught.value)
    with pytest.raises(SceneError, match=r"; *|value_range=\[0,4095\]") as caught:
        check_ranges(paths, ImageReader(), "value_range")
    assert "percentiles" not in str(caught.value)
    check_ranges(paths, ImageReader(ranges=((0, 65535),)))
    twelve_bits(tmp_path / "2.png", RAMP * 4)  # one image that uses them: the others are dark
    check_ranges(paths, ImageReader())


def test_floats_keep_their_meaning_and_obey_a_range(tmp_path: Path) -> None:
    shares = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    for name, factor in (("unit", 1), ("byte", 255)):
        Image.fromarray(shares * factor).save(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.tif")[..., 0], np.rint(shares * 255))
    read = ImageReader(ranges=((-1, 1),))(tmp_path / "unit.tif")
    assert (read.min(), read.max()) == (128, 255)
    check_ranges([tmp_path / "unit.tif"], ImageReader())


def test_bands_that_nothing_reads_are_named_but_not_transparency(tmp_path: Path) -> None:
    values = np.zeros((24, 32, 4), np.uint8)
    tifffile.imwrite(tmp_path / "four.tif", values, photometric="rgb", extrasamples=["unspecified"])
    Image.fromarray(values, "RGBA").save(tmp_path / "clear.png")
    paths = [tmp_path / "four.tif", tmp_path / "clear.png"]
    assert check_ranges(paths, ImageReader()) == [tmp_path / "four.tif"]
    assert check_ranges(paths, ImageReader(bands=(1, 2, 3, 4))) == []  # transparency, if asked for
    Image.fromarray(values[..., :3]).save(tmp_path / "three.png")
    with pytest.raises(SceneError, match=r"three\.png has 3 bands, but data.bands=\[1, 4\] asks for band 4"):
        check_ranges([*paths, tmp_path / "three.png"], ImageReader(bands=(1, 4)))


def test_several_pages_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = np.zeros((8, 9, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "stack.tif") as file:
        file.write(page, photometric="rgb")
        file.write(page, photometric="rgb")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(page, photometric="rgb")
        file.write(page[::2, ::2], photometric="rgb", subfiletype=1)
    frames = [Image.fromarray(page), Image.fromarray(page + 9)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    pages = {name: read_header(tmp_path / name).num_pages for name in ("stack.tif", "pyramid.tif", "film.png")}
    assert pages == {"stack.tif": 2, "pyramid.tif": 1, "film.png": 2}
    check_ranges([tmp_path / "pyramid.tif"], ImageReader())
    assert not caplog.records
    check_ranges([tmp_path / "pyramid.tif", tmp_path / "stack.tif"], ImageReader())
    assert "stack.tif, ...): only the first page is read; write the others as files of their own" in caplog.text


def test_percentiles_are_those_of_numpy_and_always_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    stacks = [rng.integers(0, 3000, (20, 30, 5), dtype=np.uint16) for _ in range(3)]
    paths = []
    for number, values in enumerate(stacks):
        paths.append(tmp_path / f"{number}.tif")
        tifffile.imwrite(paths[-1], values, photometric="minisblack", planarconfig="contig")
    reader = ImageReader(bands=(5, 2))
    found = measure_ranges(paths, reader)
    expected = [np.percentile(np.stack(stacks)[..., band], (1, 99)).tolist() for band in (4, 1)]
    np.testing.assert_allclose(found, expected)
    assert measure_ranges(paths, reader) == found
    (tmp_path / "3.tif").write_bytes(b"II*\0junk")
    assert measure_ranges([*paths, tmp_path / "3.tif"], reader, skips=True) == found
    with pytest.raises(SceneError, match=r"3\.tif"):
        measure_ranges([*paths, tmp_path / "3.tif"], reader)
    flat = twelve_bits(tmp_path / "flat.png", np.full((4, 4), 7, np.uint16))
    assert measure_ranges([flat], ImageReader(bands=(1,))) == [[7.0, 8.0]]
    assert spread(100, 3) == [0, 50, 99]


def test_damaged_and_absurd_tiffs_of_many_bands_end_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    whole = path.read_bytes()
    for cut in (6, 40, 300, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(SceneError, match=r"a\.tif"):
            read_values(path, all_bands=True)
    path.write_bytes(whole.replace(np.uint16(64).tobytes() + b"\0\0", np.uint32(2**20).tobytes(), 2))
    with pytest.raises(SceneError, match=r"a\.tif"):
        read_values(path, all_bands=True)
    bomb(tmp_path / "b.png", 10**5, 10**5, bits=16, color=2)
    with pytest.raises(SceneError, match=r"b\.png"):
        read_values(tmp_path / "b.png")


def test_compression_that_needs_a_further_package_is_named(tmp_path: Path) -> None:
    codecs = pytest.importorskip("tifffile")
    values = np.zeros((16, 16, 4), np.uint16)
    try:
        codecs.imwrite(tmp_path / "a.tif", values, compression="lzw", photometric="minisblack", planarconfig="contig")
    except Exception:  # without imagecodecs: change the tag of a file that is stored plainly
        codecs.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
        raw = (tmp_path / "a.tif").read_bytes()
        tag = np.array([259, 3], "<u2").tobytes() + np.array([1, 1], "<u4").tobytes()
        lzw = np.array([259, 3], "<u2").tobytes() + np.array([1, 5], "<u4").tobytes()
        assert raw.count(tag) == 1
        (tmp_path / "a.tif").write_bytes(raw.replace(tag, lzw))
        with pytest.raises(SceneError, match=r"needs the package imagecodecs.*install ripu\[tiff\]"):
            read_values(tmp_path / "a.tif")
        return
    np.testing.assert_array_equal(read_values(tmp_path / "a.tif"), values[..., :4])


def test_bands_are_resized_one_by_one() -> None:
    image = np.random.default_rng(4).integers(0, 255, (32, 48, 4), dtype=np.uint8)
    image[..., 3] = 0  # taken for transparency, it would blacken the others
    small = resize_image(image, (16, 24))
    np.testing.assert_array_equal(small[..., :3], resize_image(np.ascontiguousarray(image[..., :3]), (16, 24)))
    assert not small[..., 3].any()
