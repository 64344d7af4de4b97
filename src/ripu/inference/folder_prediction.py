"""Prediction of a folder of images: network sizes, reading ahead, and rendering and writing in the background."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import ImageReader, as_rgb, resize_image
from ripu.datasets.proportions import Fit, fitted
from ripu.datasets.taxonomy import Taxonomy
from ripu.datasets.value_ranges import check_ranges
from ripu.inference.input_images import Finished, Photo, find_photos
from ripu.inference.palette import heat
from ripu.inference.predictor import Predictor
from ripu.io.console import Progress
from ripu.io.errors import ConfigError, RipuError
from ripu.io.writing import write_bytes

KINDS = {"labelIds": ".png", "trainIds": ".png", "color": ".png", "overlay": ".jpg", "uncertainty": ".png"}
"""Kinds of files that an image can get, with their suffixes."""

_log = logging.getLogger(__name__)
_SAME_SHAPE = 0.05  # relative difference of aspect ratios up to which an image gets the size of training
_MIN_SIDE = 32  # no image goes through the network with a shorter side
_MAX_NETWORK_PIXELS = 2**25  # larger images are skipped: the logits of 19 classes would take more than 2.5 GB
_JPEG_SIDE = 65500  # the longest side that a JPEG can have


class PictureSizeError(RipuError, ValueError):
    """An image is too large at the given scale."""


@dataclass(frozen=True)
class Options:
    """Options of a prediction; see ``conf/predict.yaml``."""

    write: tuple[str, ...]  # kinds of files, out of KINDS
    scale: float | None
    tile: list[int] | None
    overlap: float
    flip: bool
    opacity: float
    overwrite: bool
    batch: int
    num_workers: int


def network_size(
    size: tuple[int, int], trained: tuple[int, int], scale: float | None, fit: Fit = "stretch"
) -> tuple[int, int]:
    """Return the size at which an image goes through the network.

    Without a scale, a network trained with ``data.fit=pad`` sees an image as in evaluation. With ``stretch``, images of
    the aspect ratio of training (within 5 %) get the size of training, as in evaluation; others keep their own ratio
    and get as many pixels as training had.

    Args:
        size, trained: (height, width) of the image, and of target images in training.
        scale: Network pixels per image pixel; None as described.
        fit: ``data.fit`` in training.

    Raises:
        PictureSizeError: More than 2**25 pixels.

    Example:
        >>> network_size((1024, 2048), (640, 1280), None)
        (640, 1280)
        >>> network_size((2048, 1024), (640, 1280), None)
        (1280, 640)
        >>> network_size((1024, 2048), (640, 1280), 0.25)
        (256, 512)
    """
    (height, width), (rows, columns) = size, trained
    if scale is None and fit == "pad":
        return fitted(size, trained, fit)
    if scale is None:
        stretch = (width / height) / (columns / rows)
        if max(stretch, 1 / stretch) < 1 + _SAME_SHAPE:
            return trained
        scale = math.sqrt(rows * columns / (height * width))
    result = max(_MIN_SIDE, round(height * scale)), max(_MIN_SIDE, round(width * scale))
    if result[0] * result[1] > _MAX_NETWORK_PIXELS:
        raise PictureSizeError(
            f"{height} x {width} pixels are {result[0]} x {result[1]} for the network, more than {_MAX_NETWORK_PIXELS} "
            "in all; give a smaller scale"
        )
    return result


def predict_folder(
    source: Path,
    output: Path,
    module: torch.nn.Module,
    taxonomy: Taxonomy,
    trained_size: tuple[int, int],
    checkpoint_sha256: str,
    device: torch.device,
    options: Options,
    reader: ImageReader,
    fit: Fit = "stretch",
) -> dict[str, Any]:
    """Predict every image of a folder.

    Args:
        source: The folder, or one image.
        output: Gets a folder for each kind of file.
        module, device: Maps raw images (B, 3, h, w) uint8 to logits, on the device.
        taxonomy: The classes.
        trained_size: (height, width) that target images had in training.
        checkpoint_sha256: Digest of the checkpoint; finished images of another one are refused.
        options: See ``conf/predict.yaml``.
        reader: Reads the images.
        fit: ``data.fit`` in training.

    Returns:
        ``done``, ``skipped`` (finished before), ``unreadable`` (name to reason) and ``others`` (files that are not
        images).

    Raises:
        PhotosError: Folders that cannot be used.
        SceneError: Values that use few of their bits, or bands that are missing.
    """
    photos, others = find_photos(source, output)
    if unread := check_ranges([photo.path for photo in photos], reader, "value_range", skips=True):
        _log.warning("images have more bands than this network reads (%s, ...); only colour is used", unread[0])
    tile = options.tile or 2 * [max(trained_size)]
    settings = {
        "checkpoint_sha256": checkpoint_sha256,
        "scale": options.scale,
        "tile": tile,
        "overlap": options.overlap,
        "flip": options.flip,
        "opacity": options.opacity,
        "classes": list(taxonomy.class_names),
        "bands": reader.bands and list(reader.bands),
        "value_range": reader.ranges and [list(pair) for pair in reader.ranges],
    }
    finished = Finished(output, settings, overwrite=options.overwrite)
    files = {photo.name: {kind: finished.place(kind, photo, KINDS[kind]) for kind in options.write} for photo in photos}
    waiting = [photo for photo in photos if not finished.has(photo, list(files[photo.name].values()))]
    write_bytes(output / "legend.png", _legend(taxonomy))
    predictor = Predictor(module, device, (tile[0], tile[1]), options.overlap, options.batch, options.flip)
    unreadable: dict[str, str] = {}
    done = 0

    def write(photo: Photo, picture: Any, label: Any, entropy: Any) -> Photo:
        for kind, file in files[photo.name].items():
            write_bytes(file, _render(kind, picture, label, entropy, taxonomy, options.opacity))
        return photo

    with ThreadPoolExecutor(max(1, options.num_workers)) as pool, Progress("predicting", len(waiting)) as progress:
        writing: list[Future[Photo]] = []

        def settle() -> None:
            nonlocal done
            for future in writing:
                finished.add(future.result())
                done += 1
                progress.add()
            writing.clear()

        for group in _read(waiting, pool, trained_size, options, reader, fit):
            good = []
            for photo, found in group:
                if isinstance(found, str):
                    unreadable[photo.name] = found
                    progress.say(f"skipped {photo.name!a}: {found}")
                    progress.add()
                else:
                    good.append((photo, *found))
            results = predictor([image for *_, image in good], [picture.shape[:2] for _, picture, _ in good])
            made = []
            for photo, picture, _ in good:
                try:
                    made.append((photo, picture, *next(results)))
                except ValueError as error:
                    raise ConfigError(f"{photo.name!a}: {error}") from error
            settle()  # files that were written while the network worked
            writing += [pool.submit(write, *parts) for parts in made]
        settle()
    finished.close()
    return {"done": done, "skipped": len(photos) - len(waiting), "unreadable": unreadable, "others": others}


def _read(
    photos: Sequence[Photo],
    pool: ThreadPoolExecutor,
    trained_size: tuple[int, int],
    options: Options,
    reader: ImageReader,
    fit: Fit,
) -> Iterator[list[tuple[Photo, Any]]]:
    """Yield groups of images, one read ahead: (image, image at network size), or the reason for skipping it."""

    def read(photo: Photo) -> Any:
        try:
            picture = reader(photo.path)
            height, width = picture.shape[:2]
            if "overlay" in options.write and max(height, width) > _JPEG_SIDE:
                raise PictureSizeError(
                    f"{height} x {width} pixels are too many for an overlay, which is a JPEG of at most {_JPEG_SIDE} a "
                    "side; leave overlay out of write"
                )
            size = network_size((height, width), trained_size, options.scale, fit)
        except (SceneError, PictureSizeError) as error:
            return str(error)
        resized = resize_image(picture, size)
        return as_rgb(picture), torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))

    def start(first: int) -> list[Future[Any]]:
        return [pool.submit(read, photo) for photo in photos[first : first + options.batch]]

    ahead = start(0)
    for first in range(0, len(photos), options.batch):
        now, ahead = ahead, start(first + options.batch)
        yield list(zip(photos[first : first + options.batch], [future.result() for future in now], strict=True))


def _render(
    kind: str,
    picture: NDArray[np.uint8],
    label: NDArray[np.uint8],
    entropy: NDArray[np.float32],
    taxonomy: Taxonomy,
    opacity: float,
) -> bytes:
    """Return the bytes of one kind of file; uncertainty is a palette image, index 0 for 0 nats and 255 for log C."""
    if kind == "labelIds":
        return _encoded(Image.fromarray(taxonomy.to_disk_ids(label)))
    if kind == "trainIds":
        return _encoded(Image.fromarray(label))
    if kind == "color":
        return _encoded(Image.fromarray(taxonomy.colorize(label)))
    if kind == "overlay":
        mixed = np.rint(picture * (1 - opacity) + taxonomy.colorize(label) * opacity).astype(np.uint8)
        return _encoded(Image.fromarray(mixed), "JPEG", quality=90)
    largest = math.log(taxonomy.num_classes) if taxonomy.num_classes > 1 else 1.0
    image = Image.fromarray(np.clip(np.rint(entropy * (255.0 / largest)), 0, 255).astype(np.uint8), mode="P")
    image.putpalette(heat(np.arange(256.0)[None], 255.0).tobytes())
    return _encoded(image)


def _encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _legend(taxonomy: Taxonomy) -> bytes:
    """Render a small picture that names the colours."""
    line, font = 24, ImageFont.load_default(14)
    sheet = Image.new("RGB", (240, line * taxonomy.num_classes + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, color) in enumerate(zip(taxonomy.class_names, taxonomy.class_colors, strict=True)):
        top = 4 + number * line
        draw.rectangle((6, top + 3, 36, top + line - 4), fill=color)
        draw.text((46, top + 3), name, fill="black", font=font)
    return _encoded(sheet)


def summary(results: Mapping[str, Any], output: Path) -> str:
    """Return the results of :func:`predict_folder` as a few lines."""
    lines = [f"{results['done']} images predicted in {output}"]
    if results["skipped"]:
        lines.append(f"{results['skipped']} were finished before")
    if results["others"]:
        lines.append(f"{results['others']} other files were left alone")
    if unreadable := results["unreadable"]:
        names = ", ".join(ascii(name) for name in list(unreadable)[:5]) + (", ..." if len(unreadable) > 5 else "")
        lines.append(f"{len(unreadable)} could not be read: {names}")
    return "\n".join(lines)
