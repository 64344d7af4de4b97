"""Images in the style of the other domain: a folder of them, and colour transfer, which makes a simple one.

``FOLDER/source/`` has source images in the style of the target, ``FOLDER/target/`` target images in the style of the
source; either may be missing. Below it, the file of a scene has the name of the scene or, beside where that would be,
that of its own image file: ``target/rome/rome_000000_000001.png`` or
``target/rome/rome_000000_000001_leftImg8bit.png``, with any ending of an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import SUFFIXES, files_below, read_header
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.io.errors import ConfigError

PARTS = ("source", "target")


def with_translated(scenes: SceneDataset, folder: Path) -> SceneDataset:
    """Return scenes that know their images in the style of the other domain, ``Scene.translated``.

    Raises:
        SceneError: A scene has none, or several; names the first ones.
        ConfigError: ``data.value_range`` is for values of another depth.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        if path.suffix.lower() in SUFFIXES:
            files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    found = [_files_of(scene, files) for scene in scenes.scenes]
    for is_missing, fault, remedy in (
        (True, "lacks images", "translate them, too"),
        (False, "has several", "keep one"),
    ):
        wrong = [
            scene.image_id
            for scene, own in zip(scenes.scenes, found, strict=True)
            if (not own if is_missing else len(own) > 1)
        ]
        if wrong:
            raise SceneError(
                f"{folder} {fault} of {len(wrong)} of the {len(scenes)} scenes of {scenes.name}: {wrong[:3]}; {remedy}"
            )
    known = tuple(replace(scene, translated=own[0]) for scene, own in zip(scenes.scenes, found, strict=True))
    if scenes.image_reader.ranges is not None:
        _check_depth(scenes.scenes[0].image, found[0][0])
    return replace(scenes, scenes=known)


def _check_depth(image: Path, translated: Path) -> None:
    """Refuse to read two images of different depths in the same range of values."""
    with suppress(SceneError):  # left to the code that needs the images
        own, other = read_header(image).bits, read_header(translated).bits
        if own == other:
            return
        raise ConfigError(
            f"{translated} has values of {other} bits, and {image} of {own}, so data.value_range cannot fit both; give "
            f"translations of {own} bits, or images and translations of 8 bits and data.value_range=bit_depth (python "
            "-m ripu.translate writes 8 bits)"
        )


def _files_of(scene: Scene, files: dict[str, list[Path]]) -> list[Path]:
    own_name = (PurePosixPath(scene.image_id).parent / scene.image.stem).as_posix()
    return [path for name in dict.fromkeys((scene.image_id, own_name)) for path in files.get(name, ())]


@dataclass(frozen=True)
class ColorStatistics:
    """Mean and standard deviation of the pixels of a domain in CIE Lab, (3,) float64 each."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, images: Iterable[NDArray[np.uint8]]) -> ColorStatistics:
        """Return those of the pixels of at least one image, (H, W, 3) uint8 RGB each."""
        count, total, squares = 0, np.zeros(3), np.zeros(3)
        for image in images:
            lab = _to_lab(image).reshape(-1, 3).astype(np.float64)
            count, total, squares = count + len(lab), total + lab.sum(axis=0), squares + np.square(lab).sum(axis=0)
        mean = total / count
        return cls(mean, np.sqrt(np.maximum(squares / count - np.square(mean), 0.0)))


def transferred(image: NDArray[np.uint8], own: ColorStatistics, wanted: ColorStatistics) -> NDArray[np.uint8]:
    """Return an image whose colours follow the statistics of another domain (Reinhard et al. 2001), (H, W, 3) uint8.

    In CIE Lab, each value becomes ``(value - own.mean) / own.deviation * wanted.deviation + wanted.mean``; colours that
    RGB does not have are clipped. A channel without deviation only moves to the other mean.
    """
    gain = np.divide(wanted.deviation, own.deviation, out=np.ones(3), where=own.deviation > 1e-9)
    lab = (_to_lab(image) - own.mean) * gain + wanted.mean
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB)
    found: NDArray[np.uint8] = np.rint(np.clip(rgb, 0.0, 1.0) * 255.0).astype(np.uint8)
    return found


def _to_lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab).astype(np.float32, copy=False)
