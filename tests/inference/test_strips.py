"""Large images predicted strip by strip: the same files as from whole images, in memory that does not grow."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ripu.inference import image_writers, photo_prediction, predictor
from ripu.inference.image_writers import JpegWriter, PngWriter, StripWriter, TiffKind, TiffWriter
from ripu.inference.predictor import Predictor
from ripu.io.writing import AtomicFile
from ripu.predict import predict
from running import compose, environment, untrained_checkpoint
from tiny import TinyNetwork


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def run(checkpoint: Path, source: Path, output: Path, *extra: str) -> dict[str, Any]:
    words = (f"checkpoint={checkpoint}", f"input={source}", f"output={output}", "accelerator=cpu")
    return predict(compose(*words, *extra, config_name="predict"))


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def read(path: Path) -> NDArray[Any]:
    with Image.open(path) as file:
        return np.asarray(file)


sides = st.integers(1, 130)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(sides, sides),
    st.tuples(st.integers(1, 300), sides),
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    st.booleans(),
    st.sampled_from([100, 3000, 2**20]),
)
def test_strips_are_those_of_the_whole_image(
    network: tuple[int, int],
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: float,
    flip: bool,
    strip_pixels: int,
) -> None:
    net = TinyNetwork(11).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *network), dtype=np.uint8))
    single = Predictor(lambda raw: net(raw.float() / 64 - 2), torch.device("cpu"), tile, overlap, 1, flip)
    ((label, entropy),) = single([image], [size])
    rows = iter(image.unbind(1))
    before, predictor._STRIP_PIXELS = predictor._STRIP_PIXELS, strip_pixels
    try:
        strips = list(
            single.stream(lambda count: torch.stack([next(rows) for _ in range(count)], dim=1), network, size)
        )
    finally:
        predictor._STRIP_PIXELS = before
    assert [top for top, *_ in strips] == np.cumsum([0, *(len(one) for _, one, _ in strips)])[:-1].tolist()
    np.testing.assert_array_equal(np.concatenate([one for _, one, _ in strips]), label)
    np.testing.assert_array_equal(np.concatenate([one for *_, one in strips]), entropy)
    assert next(rows, None) is None


@pytest.mark.parametrize("options", [(), ("scale=1", "tile=[32,40]", "overlap=0.5", "flip=true", "batch=1")])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_files_are_those_of_the_whole_image(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: tuple[str, ...]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture(170, 150)).save(source / name)
    monkeypatch.setattr(photo_prediction, "_WHOLE_PIXELS", 0)
    assert run(checkpoint, source, tmp_path / "strips", *options)["done"] == 1
    monkeypatch.undo()
    monkeypatch.setattr(photo_prediction.PhotoPredictor, "is_tall", lambda *_: False)
    assert run(checkpoint, source, tmp_path / "whole", *options)["done"] == 1
    for path in (tmp_path / "whole").rglob("a.*"):
        np.testing.assert_array_equal(read(tmp_path / "strips" / path.relative_to(tmp_path / "whole")), read(path))
    assert len(list((tmp_path / "strips").rglob("a.*"))) == 4


def test_damage_further_down_skips_the_image_and_leaves_no_file(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("bad.png", "good.png"):
        Image.fromarray(picture(400, 150)).save(source / name)
    content = (source / "bad.png").read_bytes()
    (source / "bad.png").write_bytes(content[: len(content) * 3 // 4])
    done = run(checkpoint, source, tmp_path / "out", "scale=1", "tile=[64,64]")
    assert done["done"] == 1
    assert "bad.png cannot be read as an image (its pixels are damaged or cut off after row" in str(done["unreadable"])
    assert {path.name for path in (tmp_path / "out" / "labelIds").iterdir()} == {"good.png"}
    assert run(checkpoint, source, tmp_path / "out", "scale=1", "tile=[64,64]")["skipped"] == 1


def test_a_row_of_tiles_that_is_too_wide_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_prediction, "_MOST_ROW_PIXELS", 64 * 199)
    Image.fromarray(picture(300, 200)).save(tmp_path / "a.png")
    done = run(checkpoint, tmp_path / "a.png", tmp_path / "out", "scale=1", "tile=[64,64]")
    assert "a row of tiles 64 x 200, more than 12736 in all; give a smaller scale or a lower tile" in str(done)
    assert run(checkpoint, tmp_path / "a.png", tmp_path / "low", "scale=1", "tile=[32,64]")["done"] == 1


def test_the_limit_for_images_decoded_whole_is_a_key(checkpoint: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(60, 50)).save(tmp_path / "a.jpg")
    refused = run(checkpoint, tmp_path / "a.jpg", tmp_path / "out", "max_pixels=2999")
    assert "50 x 60 pixels and has to be decoded whole" in str(refused["unreadable"])
    assert run(checkpoint, tmp_path / "a.jpg", tmp_path / "out", "max_pixels=3000")["done"] == 1


def test_a_full_disk_leaves_no_half_of_a_file(checkpoint: Path, tmp_path: Path) -> None:
    """The limit on the size of files strikes a process of its own, as a full disk would."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.random.default_rng(0).integers(0, 256, (900, 400, 3), dtype=np.uint8),
        photometric="rgb",
        extratags=[(33550, "d", 3, (1.0, 1.0, 0.0), True)],
    )
    words = [f"checkpoint={checkpoint}", f"input={tmp_path}/a.tif", f"output={tmp_path}/out", "accelerator=cpu"]
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); import ripu.predict, sys\n"
        "sys.argv = ['ripu.predict', *sys.argv[1:]]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); ripu.predict.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "scale=1", "tile=[64,64]"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1
    assert "is full" in done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".tif" or "tmp" in path.name]


def written(path: Path, make: Callable[[AtomicFile], StripWriter], image: NDArray[Any], step: int) -> Path:
    with AtomicFile(path) as file:
        writer = make(file)
        for top in range(0, len(image), step):
            writer.write(image[top : top + step])
        writer.finish()
        file.publish()
    return path


def as_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    with Image.open(buffer) as file:
        return np.asarray(file)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 600)), st.integers(1, 300))
def test_written_images_are_whole(tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], step: int) -> None:
    folder = tmp_path_factory.mktemp("written")
    rgb, grey = picture(*size), picture(*size)[..., 0]
    png = written(folder / "a.png", lambda file: PngWriter(file, size, is_rgb=True), rgb, step)
    np.testing.assert_array_equal(read(png), rgb)
    palette = bytes(range(256)) * 3
    indexed = written(folder / "b.png", lambda file: PngWriter(file, size, palette=palette), grey, step)
    np.testing.assert_array_equal(read(indexed), grey)
    jpeg = written(folder / "a.jpg", lambda file: JpegWriter(file, size), rgb, step)
    np.testing.assert_array_equal(read(jpeg), as_jpeg(rgb))
    for kind, values in (
        (TiffKind(np.uint8, num_bands=3), rgb),
        (TiffKind(np.uint8, colors=np.zeros((256, 3), np.uint8)), grey),
        (TiffKind(np.float32), grey / np.float32(7)),
    ):
        tiff = written(folder / "a.tif", lambda file, kind=kind: TiffWriter(file, size, kind), values, step)  # type: ignore[misc]
        np.testing.assert_array_equal(tifffile.imread(tiff), values)


@pytest.mark.parametrize("size", [(30, 65_500), (65_500, 20)])
def test_the_longest_sides_of_a_jpeg(tmp_path: Path, size: tuple[int, int]) -> None:
    rgb = picture(*size)
    path = written(tmp_path / "a.jpg", lambda file: JpegWriter(file, size), rgb, 1000)
    np.testing.assert_array_equal(read(path), as_jpeg(rgb))


def test_large_tiffs_are_big_tiffs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writers, "_MOST_CLASSIC_BYTES", 1000)
    grey = picture(600, 300)[..., 0]
    path = written(tmp_path / "a.tif", lambda file: TiffWriter(file, (600, 300), TiffKind(np.uint8)), grey, 77)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), grey)


_MEASURED = """
import re, sys
from pathlib import Path
from running import compose
from ripu.predict import predict
assert predict(compose(*sys.argv[1:], config_name="predict"))["done"] == 1
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with the peak of the process of the tests
print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_memory_does_not_grow_with_the_height(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    peaks = {}
    for rows in (64, 1500, 3000, 12_000):
        path = tmp_path / f"{rows}{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(path, picture(rows, 1000), photometric="rgb", tile=(256, 256), compression="zlib")
        else:
            Image.fromarray(picture(rows, 1000)).save(path)
        words = [f"checkpoint={checkpoint}", f"input={path}", f"output={tmp_path}/{rows}", "accelerator=cpu"]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words, "scale=1", "tile=[256,256]"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        peaks[rows] = int(done.stdout.split()[-1])
    print(f"\n| {suffix} |", " | ".join(f"{peak * 1024 / 1e6:.0f}" for peak in peaks.values()), "|")  # docs/running.md
    decoded = 4 * 1000 * 12_000 / 1024 if suffix == ".jpg" else 0  # held whole
    assert max(peaks.values()) < 1.05 * peaks[1500] + decoded, peaks
