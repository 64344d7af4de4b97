"""The description of a trained network: everything that its use needs besides the weights.

Exported files carry it as JSON (``docs/export.md`` lists the entries), so that they can be used without the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ripu.datasets.image_files import ImageReader
from ripu.datasets.proportions import Fit
from ripu.datasets.taxonomy import Taxonomy
from ripu.io.errors import ConfigError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of a network that is exported as a folder."""

VERSION = 1
"""Grows when the meaning of an entry changes."""


@dataclass(frozen=True)
class Description:
    """A trained network in words.

    Attributes:
        taxonomy: The classes.
        target_size: (height, width) that target images had in training.
        mean, std: Of each band on the 0..1 scale; the network takes images normalised by them.
        radius: k of the window of the score (Eq. 6), in pixels of the label.
        pixel: True if the run asked for pixels (PA), False for regions (RA).
        flip: Evaluations of the run average with the mirrored image.
        fixed_size: (height, width) of the only input that the file takes; None: any size.
        multiple: Height and width of inputs must be multiples of this number of pixels.
        fit: ``stretch`` if training brought all images to the training size, ``pad`` if it kept their proportions.
        image_reader: Chooses the bands of image files, and scales their values to 0..255.
        origin: Facts about the run that the network comes from.
    """

    taxonomy: Taxonomy
    target_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    radius: int
    pixel: bool
    flip: bool
    fixed_size: tuple[int, int] | None = None
    multiple: int = 1
    fit: Fit = "stretch"
    image_reader: ImageReader = field(default_factory=ImageReader)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of the JSON."""
        ids = {index: [] for index in range(self.taxonomy.num_classes)}  # type: dict[int, list[int]]
        for disk_id, train_id in self.taxonomy.disk_to_train.items():
            ids[train_id].append(disk_id)
        reader = self.image_reader
        classes = zip(self.taxonomy.class_names, self.taxonomy.class_colors, strict=True)
        return {
            "ripu": VERSION,
            "taxonomy": self.taxonomy.name,
            "classes": [
                {"name": name, "color": list(color), "ids": sorted(ids[index])}
                for index, (name, color) in enumerate(classes)
            ],
            "preprocessing": {
                "bands": None if reader.bands is None else list(reader.bands),  # from 1; null: RGB
                "band_ranges": None if reader.ranges is None else [list(pair) for pair in reader.ranges],
                "value_range": [0, 255],  # of the image; divided by the upper end before mean and std apply
                "mean": list(self.mean),
                "std": list(self.std),
                "multiple": self.multiple,
                "size": None if self.fixed_size is None else list(self.fixed_size),
                "padding": "right and bottom, border repeated",
                "training_size": list(self.target_size),
                "fit": self.fit,
            },
            "score": {"radius": self.radius, "pixel": self.pixel},
            "flip": self.flip,
            "origin": dict(self.origin),
        }


def read_description(content: Any, source: object) -> Description:
    """Make the description of an exported file that anybody may have written from its JSON.

    Args:
        content: The JSON as text, or parsed.
        source: Name of the file, for messages.

    Raises:
        ConfigError: An entry is missing or has another form, or a later version of the package wrote it.
    """
    try:
        found = json.loads(content) if isinstance(content, (str, bytes)) else content
        if int(found["ripu"]) > VERSION:
            raise ConfigError(f"{source} was exported by a later version of ripu; update this package to use it")
        shape, score, classes = found["preprocessing"], found["score"], found["classes"]
        described = Description(
            taxonomy=Taxonomy(
                name=str(found["taxonomy"]),
                class_names=tuple(str(one["name"]) for one in classes),
                class_colors=tuple(_color(one["color"]) for one in classes),
                disk_to_train={int(disk_id): index for index, one in enumerate(classes) for disk_id in one["ids"]},
            ),
            target_size=_size(shape["training_size"]),
            mean=_finite(shape["mean"]),
            std=_finite(shape["std"]),
            radius=int(score["radius"]),
            pixel=bool(score["pixel"]),
            flip=bool(found["flip"]),
            fixed_size=None if shape["size"] is None else _size(shape["size"]),
            multiple=int(shape["multiple"]),
            fit="pad" if shape["fit"] == "pad" else "stretch",
            image_reader=_reader(shape["bands"], shape["band_ranges"]),
            origin=dict(found["origin"]),
        )
        num_bands = described.image_reader.num_bands
        if not classes or {len(described.mean), len(described.std)} != {num_bands} or 0.0 in described.std:
            raise ValueError("no class, or no mean and standard deviation for each band")
        if list(shape["value_range"]) != [0, 255]:
            raise ValueError(f"values in {shape['value_range']}")
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"{source}: its description is not one that ripu.export writes ({type(error).__name__}: {error}); export "
            "the network again"
        ) from error
    return described


def _reader(bands: Any, ranges: Any) -> ImageReader:
    chosen = None if bands is None else tuple(map(int, bands))
    pairs = None if ranges is None else tuple((float(low), float(high)) for low, high in ranges)
    if chosen is not None and not (chosen and all(1 <= band <= 2**16 for band in chosen)):
        raise ValueError(f"the bands {bands}")
    num_bands = 3 if chosen is None else len(chosen)
    if pairs is not None and not (len(pairs) in (1, num_bands) and all(low < high for low, high in pairs)):
        raise ValueError(f"the ranges {ranges}")
    return ImageReader(chosen, pairs)


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    if not (1 <= int(height) <= 2**20 and 1 <= int(width) <= 2**20):
        raise ValueError(f"the size {value}")
    return int(height), int(width)


def _finite(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"the numbers {values}")
    return numbers


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"the colour {value}")
    return red, green, blue
