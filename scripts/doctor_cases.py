"""Send unusual and hostile files through doctor, training, prediction and masks: ``make doctor-cases``.

Each file takes the place of an image, a label, a mask or a COCO file in a small data set of its own. Every command has
to end in the right value or in one line that names the file or the key. ``--cases FOLDER`` adds the files of a folder
whose names begin with ``image``, ``label``, ``mask`` or ``coco``. The exit status is 1 if any command ends otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import numpy as np
import tifffile
from PIL import Image

from bombs import bomb

SECONDS = 120  # a command that takes longer hangs
HEIGHT, WIDTH = 24, 32
Make = Callable[[Path], object]


def plain_label() -> np.ndarray[Any, np.dtype[np.uint8]]:
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    label[:8] = 1
    label[16:24, 10:20] = 2
    return label


def plain_image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3))
    return (plain_label()[..., None] * 70 + noise).astype(np.uint8)


def png(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def saved(array: Any, kind: str, mode: str | None = None, **options: Any) -> Make:
    def make(path: Path) -> None:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(path, kind, **options)

    return make


def broken_checksum(path: Path) -> None:
    content = bytearray(png(plain_image()))
    content[content.index(b"IDAT") + 20] ^= 255
    path.write_bytes(content)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(plain_image().transpose(1, 0, 2)[::-1]).save(path, "JPEG", exif=exif)


def bad_exif(path: Path) -> None:
    Image.fromarray(plain_image()).save(path, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")


def frames(kind: str) -> Make:
    def make(path: Path) -> None:
        first, second = Image.fromarray(plain_image()), Image.fromarray(255 - plain_image())
        first.save(path, kind, save_all=True, append_images=[second])

    return make


def nan_float(path: Path) -> None:
    values = plain_image()[..., 0].astype(np.float32) / 255
    values[3, 5] = np.nan
    Image.fromarray(values).save(path, "TIFF")


def geotiff(**options: Any) -> Make:
    place = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]

    def make(path: Path) -> None:
        more = options.get("tags", [])
        kept = {key: value for key, value in options.items() if key != "tags"}
        tifffile.imwrite(path, plain_image(), photometric="rgb", extratags=[*place, *more], **kept)

    return make


def cut_tiles(path: Path) -> None:
    tifffile.imwrite(path, plain_image(), photometric="rgb", tile=(16, 16), compression="zlib")
    os.truncate(path, path.stat().st_size * 2 // 3)


def beside(suffix: str, text: str) -> Make:
    def make(path: Path) -> None:
        Image.fromarray(plain_image()).save(path)
        path.with_name(path.stem + suffix.replace("NAME", path.name)).write_text(text)

    return make


def tall(path: Path) -> None:
    Image.fromarray(np.repeat(plain_image(), 40, axis=0)).save(path)


def coco(change: Callable[[dict[str, Any]], object] = lambda content: None) -> Make:
    names = ["ground", "sky", "crack"]
    mask = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    content: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(("0", "1", "2", "x"))
        ],
        "annotations": [
            {"image_id": number, "category_id": label, "segmentation": shape, "iscrowd": label % 2}
            for number in range(4)
            for label, shape in ((1, mask), (2, [[0, 0, 9, 0, 9, 8, 0, 8]]), (3, [[20, 2, 30, 2, 30, 20, 20, 20]]))
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }

    def make(path: Path) -> None:
        changed = json.loads(json.dumps(content))
        change(changed)
        path.write_text(json.dumps(changed))

    return make


def polygon(points: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["annotations"][1].update(segmentation=points)


IMAGES: dict[str, tuple[str, Make]] = {
    "empty": (".png", lambda path: path.write_bytes(b"")),
    "text": (".png", lambda path: path.write_text("not a picture")),
    "zeros": (".png", lambda path: path.write_bytes(bytes(5000))),
    "truncated png": (".png", lambda path: path.write_bytes(png(plain_image())[:900])),
    "truncated jpeg": (".jpg", lambda path: (saved(plain_image(), "JPEG")(path), os.truncate(path, 700))),
    "broken checksum": (".png", broken_checksum),
    "bomb": (".png", lambda path: bomb(path, 100_000, 100_000)),
    "gif under another name": (".png", saved(plain_image(), "GIF")),
    "animated png": (".png", frames("PNG")),
    "animated webp": (".webp", frames("WEBP")),
    "several pages": (".tif", frames("TIFF")),
    "palette with transparency": (".png", saved(plain_image(), "PNG", "P", transparency=0)),
    "grey and alpha": (".png", saved(plain_image(), "PNG", "LA")),
    "rgba": (".png", saved(plain_image(), "PNG", "RGBA")),
    "cmyk": (".jpg", saved(plain_image(), "JPEG", "CMYK")),
    "one bit": (".png", saved(plain_image(), "PNG", "1")),
    "sixteen bits": (".png", saved(plain_image()[..., 0].astype(np.uint16) * 257, "PNG")),
    "float with nan": (".tif", nan_float),
    "rotated by exif": (".jpg", rotated),
    "damaged exif": (".jpg", bad_exif),
    "tiled": (".tif", lambda path: tifffile.imwrite(path, plain_image(), photometric="rgb", tile=(16, 16))),
    "cut tiles": (".tif", cut_tiles),
    "big-endian bigtiff": (
        ".tif",
        lambda path: tifffile.imwrite(path, plain_image(), photometric="rgb", bigtiff=True, byteorder=">"),
    ),
    "interlaced bomb": (".png", lambda path: bomb(path, 100_000, 100_000, interlaced=True)),
    "tall": (".png", tall),
    "geotiff": (".tif", geotiff(tile=(16, 16), compression="zlib")),
    "geotiff with nodata": (".tif", geotiff(tags=[(42113, "s", 0, "0", True)])),
    "geotiff with an orientation": (".tif", geotiff(tags=[(274, "H", 1, 6, True)])),
    "aux.xml with entities": (
        ".png",
        beside(".png.aux.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><PAMDataset>&b;</PAMDataset>"),
    ),
    "world file": (".png", beside(".pgw", "1\n0\n0\n-1\n0\n0\n")),
    "one pixel": (".png", saved(plain_image()[:1, :1], "PNG")),
    "one row": (".png", saved(plain_image()[:1], "PNG")),
    "folder": (".png", lambda path: path.mkdir()),
    "pipe": (".png", lambda path: os.mkfifo(path)),
    "link to nothing": (".png", lambda path: path.symlink_to("nowhere.png")),
    "link to itself": (".png", lambda path: path.symlink_to(path.name)),
    "accents é and spaces": (".png", saved(plain_image(), "PNG")),
    "line\nbreak": (".png", saved(plain_image(), "PNG")),
    "brackets [1] {2} $HOME": (".png", saved(plain_image(), "PNG")),
}
LABELS: dict[str, tuple[str, Make]] = {
    "empty": (".png", lambda path: path.write_bytes(b"")),
    "truncated": (".png", lambda path: path.write_bytes(png(plain_label())[:60])),
    "unknown id": (".png", saved(np.full((HEIGHT, WIDTH), 77, np.uint8), "PNG")),
    "all void": (".png", saved(np.full((HEIGHT, WIDTH), 255, np.uint8), "PNG")),
    "another size": (".png", saved(plain_label()[:-5], "PNG")),
    "colours": (".png", saved(plain_image(), "PNG")),
    "equal channels": (".png", saved(np.repeat(plain_label()[..., None], 3, 2), "PNG")),
    "palette": (".png", saved(plain_label(), "PNG", "P")),
    "sixteen bits": (".png", saved(plain_label().astype(np.uint16), "PNG")),
    "float": (".tif", saved(plain_label().astype(np.float32), "TIFF")),
    "jpeg": (".jpg", saved(plain_label() * 100, "JPEG")),
    "bomb": (".png", lambda path: bomb(path, 100_000, 100_000)),
    "pipe": (".png", lambda path: os.mkfifo(path)),
}


COCO: dict[str, tuple[str, Make]] = {
    "instances": (".json", coco()),
    "empty": (".json", lambda path: path.write_bytes(b"")),
    "not json": (".json", lambda path: path.write_text("{")),
    "other json": (".json", lambda path: path.write_text("[1, 2]")),
    "deep": (".json", lambda path: path.write_text("[" * 100_000)),
    "unknown category": (".json", coco(lambda content: content["categories"].append({"id": 9, "name": "tram"}))),
    "no category": (".json", coco(lambda content: content.update(categories=[]))),
    "an image is missing": (".json", coco(lambda content: content["images"].pop())),
    "an image twice": (".json", coco(lambda content: content["images"].append(dict(content["images"][0], id=7)))),
    "another size": (".json", coco(lambda content: content["images"][0].update(height=5))),
    "huge": (".json", coco(lambda content: content["images"][0].update(height=10**6, width=10**6))),
    "far polygon": (".json", coco(polygon([[0, 0, 1e12, 0, 5, 5]]))),
    "short polygon": (".json", coco(polygon([[0, 0, 1, 1]]))),
    "polygon of text": (".json", coco(polygon([["a", "b", 1, 1, 2, 2]]))),
    "wrong runs": (".json", coco(polygon({"size": [HEIGHT, WIDTH], "counts": [5, -3]}))),
    "wrong text": (".json", coco(polygon({"size": [HEIGHT, WIDTH], "counts": "~~~"}))),
}


def build(folder: Path, kind: str, name: str, suffix: str, make: Make) -> Path:
    """Write a data set of four pairs, one of them with the file; return the file."""
    stem = name if kind == "image" and suffix else "x"
    for place in ("images", "labels", "masks"):
        (folder / place).mkdir(parents=True)
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(png(plain_image()))
        (folder / "labels" / f"{number}.png").write_bytes(png(plain_label()))
        (folder / "masks" / f"{number}.png").write_bytes(png(plain_label()))
    own = {"image": ".png", "label": ".png", "mask": ".png", **({} if kind == "coco" else {kind: suffix})}
    (folder / "images" / f"{stem}{own['image']}").write_bytes(png(plain_image()))
    (folder / "labels" / f"{stem}{own['label']}").write_bytes(png(plain_label()))
    (folder / "masks" / f"{stem}{own['mask']}").write_bytes(png(plain_label()))
    if kind == "coco":
        path = folder / "labels.json"
    else:
        path = folder / f"{kind}s" / f"{stem}{suffix}"
        path.unlink()
    make(path)
    return path


def data_set(folder: Path) -> list[str]:
    labels = "labels.json" if (folder / "labels.json").exists() else "labels"
    part = f"{{images: images, labels: {labels}}}"
    return [
        "dataset=folder",
        f"dataset.root='{folder}'",
        "dataset.classes=[ground,sky,crack]",
        f"dataset.source={part}",
        f"dataset.target={part}",
        f"dataset.val={part}",
    ]


def training(folder: Path, run: Path, *more: str) -> list[str]:
    return [
        *data_set(folder),
        f"paths.output_dir='{run}'",
        "model._target_=tiny.TinyNetwork",
        "data.source_size=[32,48]",
        "data.target_size=[32,48]",
        "data.num_workers=0",
        "trainer.max_steps=3",
        "pretrain_steps=1",
        "selection_steps=[2]",
        "trainer.accelerator=cpu",
        "evaluation.pictures=0",
        "evaluation.gallery=0",
        *more,
    ]


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"it hangs: nothing after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(call: Callable[[], str]) -> tuple[bool, str]:
    """Return whether a command ended well, and its value or line."""
    from ripu.io.errors import line_of

    quiet = io.StringIO()
    try:
        with time_limit(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            return True, call()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        line = line_of(error)
        is_good = line is not None and len(line.strip().splitlines()) == 1
        return is_good, line if line is not None else f"{type(error).__name__}: {error}"


def commands(folder: Path, path: Path, kind: str, trained: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    from ripu.config.checks import checked_spec
    from ripu.doctor.__main__ import doctor
    from ripu.predict import predict
    from ripu.train import train
    from running import compose

    def examined() -> str:
        report = doctor(compose(*data_set(folder), "num_workers=1", config_name="doctor"))
        found = [f"{one['level']}: {one['what']}" for one in report["findings"]]
        return f"{report['verdict']} ({'; '.join(found)[:150]})"

    def trained_on(*more: str) -> Callable[[], str]:
        def run() -> str:
            results = train(checked_spec(compose(*training(folder, folder / f"run{len(more)}", *more))))
            return f"trained, mIoU {results['mIoU']:.1f}"

        return run

    def predicted() -> str:
        words = (f"checkpoint='{trained}'", f"input='{folder / 'images'}'", f"output='{folder / 'out'}'")
        results = predict(compose(*words, "accelerator=cpu", config_name="predict"))
        return f"{results['done']} predicted; {'; '.join(results['unreadable'].values())[:150]}"

    if kind != "mask":
        yield "doctor", examined
        yield "train", trained_on()
    if kind == "image":
        yield "predict", predicted
    if kind in ("label", "mask"):
        yield "masks", trained_on(f"start.labels='{folder / 'masks'}'", "start.missing_masks=allow")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, help="a folder of further files: image*, label*, mask*, coco*")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.WARNING)
    cases = [("image", name, suffix, make) for name, (suffix, make) in IMAGES.items()]
    cases += [("label", name, suffix, make) for name, (suffix, make) in LABELS.items()]
    cases += [("mask", name, suffix, make) for name, (suffix, make) in LABELS.items()]
    cases += [("coco", name, suffix, make) for name, (suffix, make) in COCO.items()]
    for file in sorted(arguments.cases.iterdir()) if arguments.cases else ():
        kind = next((kind for kind in ("image", "label", "mask", "coco") if file.name.startswith(kind)), None)
        if kind is not None:
            content = file.read_bytes()
            cases.append((kind, file.stem, file.suffix, lambda path, content=content: path.write_bytes(content)))
    return run_cases([case for case in cases if arguments.only in case[1]])


def run_cases(cases: list[tuple[str, str, str, Make]]) -> int:
    from running import untrained_checkpoint

    bad = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        trained = untrained_checkpoint(Path(temporary))
        for number, (kind, name, suffix, make) in enumerate(cases):
            folder = Path(temporary) / str(number)
            path = build(folder, kind, name, suffix, make)
            for word, call in commands(folder, path, kind, trained):
                is_good, said = outcome(call)
                bad += not is_good
                shown = said.replace(str(folder), "").replace("\n", " / ")
                print(f"{'ok ' if is_good else 'BAD'} {kind} {name!r:28} {word:8} {shown[:220]}", flush=True)
    print(f"{len(cases)} files, {bad} commands that ended badly, {time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
