"""``python -m ripu.predict checkpoint=RUN input=FOLDER output=FOLDER``: labels and uncertainty of any images.

The network and the classes are those of the checkpoint; no data set is needed. Ids, colours and (for images of the shape
that training used, with the same ``flip``) predictions are those of ``ripu.evaluate``.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from ripu.config.app import command
from ripu.config.messages import explain, quiet_libraries
from ripu.io.errors import ConfigError, RipuError
from ripu.run import restore
from ripu.run.device import make_device

if TYPE_CHECKING:  # torch takes long to import: only when something is predicted
    from ripu.inference.image_folder import Photo

_T = TypeVar("_T")

KINDS = {"labelIds": ".png", "trainIds": ".png", "color": ".png", "overlay": ".jpg", "uncertainty": ".png"}
"""What can be written for an image, and the ending of the file."""

SAME_SHAPE = 0.05
"""An image whose aspect ratio differs by less than this from that of training is resized to the size of training."""

MIN_SIDE = 32
"""No image goes through the network with a shorter side."""

MAX_NETWORK_PIXELS = 2**25
"""Larger images (after scaling) are passed over: the logits of 19 classes would take more than 2.5 GB."""

JPEG_SIDE = 65500
"""The longest side that a JPEG can have; overlays are JPEG."""

INCOMPLETE = 2
"""Exit status where some images could not be read."""


class PictureSizeError(RipuError, ValueError):
    """An image is too large at the scale that was asked for."""


def network_size(size: tuple[int, int], trained: tuple[int, int], scale: float | None) -> tuple[int, int]:
    """The size at which an image goes through the network.

    Without a scale, images of the aspect ratio of training (within :data:`SAME_SHAPE`) get the size of training, as in
    evaluation; others keep their own ratio and get as many pixels as training had.

    Args:
        size: (height, width) of the image.
        trained: (height, width) that target images had in training.
        scale: Network pixels per image pixel; None as described.

    Returns:
        (height, width), each :data:`MIN_SIDE` or more.

    Raises:
        PictureSizeError: More than :data:`MAX_NETWORK_PIXELS`.

    Example:
        >>> network_size((1024, 2048), (640, 1280), None)
        (640, 1280)
        >>> network_size((2048, 1024), (640, 1280), None)
        (1280, 640)
        >>> network_size((1024, 2048), (640, 1280), 0.25)
        (256, 512)
    """
    (height, width), (rows, columns) = size, trained
    if scale is None:
        stretch = (width / height) / (columns / rows)
        if max(stretch, 1 / stretch) < 1 + SAME_SHAPE:
            return trained
        scale = math.sqrt(rows * columns / (height * width))
    result = max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))
    if result[0] * result[1] > MAX_NETWORK_PIXELS:
        raise PictureSizeError(
            f"{height} x {width} pixels are {result[0]} x {result[1]} for the network, more than {MAX_NETWORK_PIXELS} in "
            "all; give a smaller scale"
        )
    return result


def predict(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder.

    Args:
        cfg: The composed configuration of ``conf/predict.yaml``.

    Returns:
        ``done``, ``skipped`` (finished before), ``unreadable`` (name to reason) and ``others`` (files that are no
        images).

    Raises:
        ConfigError: A value that cannot be used.
        PhotosError: Folders that cannot be used.
    """
    _check(cfg)
    source, output = Path(cfg.input), Path(cfg.output)
    path = restore.checkpoint_path(cfg.checkpoint)
    device = make_device(cfg.accelerator)
    from ripu.inference.image_folder import Finished, find_photos
    from ripu.inference.predictor import Predictor
    from ripu.inference.rendering import Painter, legend
    from ripu.io.console import Progress
    from ripu.io.writing import write_bytes

    photos, others = find_photos(source, output)

    spec, module = restore.restore(path)
    taxonomy = spec.taxonomy
    module.to(device).eval()
    size = spec.data.target_size
    tile = (max(size), max(size)) if cfg.tile is None else (int(cfg.tile[0]), int(cfg.tile[1]))
    settings = {
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "scale": cfg.scale,
        "tile": list(tile),
        "overlap": cfg.overlap,
        "flip": bool(cfg.flip),
        "opacity": cfg.opacity,
        "classes": list(taxonomy.class_names),
    }
    finished = Finished(output, settings, overwrite=cfg.overwrite)
    files = {photo.name: {kind: finished.place(kind, photo, KINDS[kind]) for kind in cfg.write} for photo in photos}
    waiting = [photo for photo in photos if not finished.has(photo, list(files[photo.name].values()))]
    write_bytes(output / "legend.png", legend(taxonomy))
    predictor = Predictor(module, device, tile, cfg.overlap, cfg.batch, bool(cfg.flip))
    unreadable: dict[str, str] = {}
    done = 0
    paint = Painter(taxonomy, cfg.opacity)

    def write(photo: Photo, picture: Any, label: Any, entropy: Any) -> Photo:
        for kind, file in files[photo.name].items():
            write_bytes(file, paint(kind, picture, label, entropy))
        return photo

    with ThreadPoolExecutor(max(1, cfg.num_workers)) as pool, Progress("predicting", len(waiting)) as progress:
        writing: list[Future[Photo]] = []

        def settle() -> None:
            nonlocal done
            for future in writing:
                finished.add(future.result())
                done += 1
                progress.add()
            writing.clear()

        most = JPEG_SIDE if "overlay" in cfg.write else None
        for group in _read(waiting, pool, cfg.batch, size, cfg.scale, most):
            good = []
            for photo, one in group:
                if isinstance(one, str):
                    unreadable[photo.name] = one
                    progress.say(f"skipped {photo.name!a}: {one}")
                    progress.add()
                else:
                    good.append((photo, *one))
            results = predictor([image for *_, image in good], [picture.shape[:2] for _, picture, _ in good])
            made = list(zip(good, _named(results, [photo.name for photo, *_ in good]), strict=True))
            settle()  # what was written while the network worked
            for (photo, picture, _), (label, entropy) in made:
                writing.append(pool.submit(write, photo, picture, label, entropy))
        settle()
    finished.close()
    return {"done": done, "skipped": len(photos) - len(waiting), "unreadable": unreadable, "others": others}


def _named(results: Iterator[_T], names: Sequence[str]) -> Iterator[_T]:
    """The results of images; what is wrong with one says which."""
    for name in names:
        try:
            result = next(results)
        except ValueError as error:
            raise ConfigError(f"{name!a}: {error}") from error
        yield result


def _check(cfg: DictConfig) -> None:
    """Refuse values that cannot be used, before anything is read."""
    examples = {"checkpoint": "RUN", "input": "FOLDER", "output": "FOLDER"}
    for key, value in examples.items():
        if OmegaConf.is_missing(cfg, key):
            raise ConfigError(f"{key}={value} is missing; give a checkpoint, a folder of images and one for results")
    unknown = [kind for kind in cfg.write if kind not in KINDS]
    if unknown or not cfg.write:
        raise ConfigError(f"write={list(cfg.write)} is not allowed; choose among {list(KINDS)}")
    if cfg.scale is not None and not 0 < cfg.scale <= 16:
        raise ConfigError(f"scale={cfg.scale} is not allowed; it must be above 0 and at most 16")
    if cfg.tile is not None and (len(cfg.tile) != 2 or min(cfg.tile) < MIN_SIDE):
        raise ConfigError(f"tile={list(cfg.tile)} is not allowed; give [height, width], each {MIN_SIDE} or more")
    for key, allowed in (("overlap", (0.0, 0.9)), ("opacity", (0.0, 1.0))):
        if not allowed[0] <= cfg[key] <= allowed[1]:
            raise ConfigError(f"{key}={cfg[key]} is not allowed; it must lie in {allowed[0]}..{allowed[1]}")
    if cfg.batch < 1 or cfg.num_workers < 0:
        raise ConfigError(f"batch={cfg.batch} must be 1 or more, num_workers={cfg.num_workers} 0 or more")


def _read(
    photos: Sequence[Photo],
    pool: ThreadPoolExecutor,
    batch: int,
    trained: tuple[int, int],
    scale: float | None,
    most_side: int | None,
) -> Iterator[list[tuple[Photo, Any]]]:
    """Groups of images, read ahead by one group: (image, image at network size) or the reason why there is none."""
    import numpy as np
    import torch

    from ripu.datasets.errors import SceneError
    from ripu.datasets.image_files import read_image, resize_image

    def read(photo: Photo) -> Any:
        try:
            picture = read_image(photo.path)
            height, width = picture.shape[:2]
            if most_side is not None and max(height, width) > most_side:
                raise PictureSizeError(
                    f"{height} x {width} pixels are too many for an overlay, which is a JPEG of at most {most_side} a side; "
                    "leave overlay out of write"
                )
            size = network_size((height, width), trained, scale)
        except (SceneError, PictureSizeError) as error:
            return str(error)
        resized = resize_image(picture, size)
        return picture, torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))

    def start(first: int) -> list[Future[Any]]:
        return [pool.submit(read, photo) for photo in photos[first : first + batch]]

    ahead = start(0)
    for first in range(0, len(photos), batch):
        now, ahead = ahead, start(first + batch)
        yield list(zip(photos[first : first + batch], [future.result() for future in now], strict=True))


def summary(results: Mapping[str, Any], output: Path) -> str:
    """What was done, for people: a few lines."""
    lines = [f"{results['done']} images predicted in {output}"]
    if results["skipped"]:
        lines.append(f"{results['skipped']} were finished before")
    if results["others"]:
        lines.append(f"{results['others']} other files were left alone")
    unreadable = results["unreadable"]
    if unreadable:
        names = ", ".join(ascii(name) for name in list(unreadable)[:5]) + (", ..." if len(unreadable) > 5 else "")
        lines.append(f"{len(unreadable)} could not be read: {names}")
    return "\n".join(lines)


@command("predict", _check)
def main(cfg: DictConfig) -> None:
    """The command line."""
    quiet_libraries()
    try:
        results = predict(cfg)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        explain(error)
        sys.exit(1)
    print(summary(results, Path(cfg.output)))
    if results["unreadable"]:
        sys.exit(INCOMPLETE)


if __name__ == "__main__":
    main()
