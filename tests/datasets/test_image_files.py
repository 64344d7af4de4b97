"""Image files become upright RGB or ids, and are resized as Pillow does."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import read_ids, read_image, resize_image, resize_label, upright_size


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_is_that_of_pillow(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    rgb = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    for ending in ("png", "tif"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(rgb).save(path, exif=exif)
        with Image.open(path) as file:
            expected = np.asarray(ImageOps.exif_transpose(file))
        with Image.open(path) as file:
            size = upright_size(file)
        assert np.array_equal(read_image(path), expected)
        assert size == expected.shape[:2]


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_damaged_exif_data_do_not_stop_reading(tmp_path: Path, ending: str) -> None:
    grey = Image.fromarray(np.zeros((32, 48), dtype=np.uint8))
    grey.save(tmp_path / f"junk.{ending}", exif=b"Exif\0\0junkjunkjunk")
    assert read_image(tmp_path / f"junk.{ending}").shape == (32, 48, 3)
    width, turn = struct.pack("<HHIf", 0x0100, 11, 1, 48.0), struct.pack("<HHII", 0x0112, 3, 1, 6)  # a fractional width
    grey.save(tmp_path / f"odd.{ending}", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + width + turn + bytes(4))
    assert read_image(tmp_path / f"odd.{ending}").shape == (48, 32, 3)


def test_labels_are_sampled_where_pillow_samples_them() -> None:
    label = np.array([[10, 11, 12, 13, 14]], dtype=np.uint8)
    assert resize_label(label, (1, 4)).tolist() == [[10, 11, 13, 14]]  # OpenCV takes columns 0, 1, 2, 3
    assert resize_label(label.T, (4, 1)).ravel().tolist() == [10, 11, 13, 14]
    rows, columns = np.indices((9, 13))
    big = (rows * 13 + columns).astype(np.uint8)
    centres = [int((i + 0.5) * 9 / 4) * 13 + int((j + 0.5) * 13 / 5) for i in range(4) for j in range(5)]
    assert resize_label(big, (4, 5)).ravel().tolist() == centres
    assert resize_label(big, (9, 13)) is big


def test_images_are_antialiased() -> None:
    stripes = np.zeros((8, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    small = resize_image(stripes, (2, 8))
    assert small.shape == (2, 8, 3)
    assert np.abs(small.astype(int) - 100).max() <= 8  # an unfiltered resize would give 0 or 200
    assert resize_image(stripes, (8, 64)) is stripes


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA", "I;16", "I;16B", "I"])
def test_one_id_per_pixel_is_read_in_whatever_mode(tmp_path: Path, mode: str) -> None:
    ids = np.arange(24).reshape(4, 6) % 2 if mode == "1" else np.arange(24).reshape(4, 6)
    path = tmp_path / ("label.tif" if mode in ("I", "I;16B") else "label.png")
    alpha = np.full(ids.shape, 200)
    if mode == "1":
        image = Image.fromarray(ids.astype(bool))
    elif mode == "I;16":
        image = Image.fromarray(ids.astype("<u2"))
    elif mode == "I;16B":
        image = Image.frombytes("I;16B", ids.shape[::-1], ids.astype(">u2").tobytes())
    elif mode == "I":
        image = Image.fromarray(ids.astype(np.int32))
    else:
        channels = {"LA": [ids, alpha], "RGB": [ids] * 3, "RGBA": [ids] * 3 + [alpha]}[mode]
        image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), mode)
    image.save(path)
    np.testing.assert_array_equal(read_ids(path), ids)


def test_a_colour_picture_is_no_label(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(SceneError, match="not one id per pixel"):
        read_ids(tmp_path / "a.png")
