"""Mapillary Vistas 1.2 with the 19 classes of Cityscapes.

The ``config_v1.2.json`` of the data set names its labels; the id of a label is its place in that list. Published tables
from its 66 labels to the 19 classes contradict one another, so each entry here follows from the definitions of the
classes (https://www.cityscapes-dataset.com/dataset-overview/). Labels of the same name belong together. Of the others:

- road: its definition includes markings, all lanes, and areas delimited only by markings, such as bicycle lanes and
  parking spaces; zebra crossings are markings, plain crossings lie on lanes;
- sidewalk: it includes the curb, and pedestrian zones;
- terrain: it includes soil and sand;
- rider, pole, train: riders of any vehicle, utility poles, vehicles on rails.

All other labels are void. Of these, guard rails, bridges, tunnels, rail tracks, caravans and trailers are classes of
Cityscapes that are not scored either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.street_photos import load_street_photos
from ripu.datasets.taxonomy import CITYSCAPES19, Taxonomy
from ripu.io.reading import UntrustedError, read_json

CLASSES: Mapping[str, tuple[str, ...]] = {
    "road": (
        "construction--flat--road",
        "construction--flat--bike-lane",
        "construction--flat--crosswalk-plain",
        "construction--flat--parking",
        "construction--flat--service-lane",
        "marking--crosswalk-zebra",
        "marking--general",
    ),
    "sidewalk": (
        "construction--flat--sidewalk",
        "construction--flat--curb-cut",
        "construction--flat--pedestrian-area",
        "construction--barrier--curb",
    ),
    "building": ("construction--structure--building",),
    "wall": ("construction--barrier--wall",),
    "fence": ("construction--barrier--fence",),
    "pole": ("object--support--pole", "object--support--utility-pole"),
    "traffic light": ("object--traffic-light",),
    "traffic sign": ("object--traffic-sign--front",),
    "vegetation": ("nature--vegetation",),
    "terrain": ("nature--terrain", "nature--sand"),
    "sky": ("nature--sky",),
    "person": ("human--person",),
    "rider": ("human--rider--bicyclist", "human--rider--motorcyclist", "human--rider--other-rider"),
    "car": ("object--vehicle--car",),
    "truck": ("object--vehicle--truck",),
    "bus": ("object--vehicle--bus",),
    "train": ("object--vehicle--on-rails",),
    "motorcycle": ("object--vehicle--motorcycle",),
    "bicycle": ("object--vehicle--bicycle",),
}
"""Class of Cityscapes -> labels of Vistas 1.2."""


def load_mapillary(name: str, root: str | Path, images: str, labels: str, config: str, url: str) -> SceneDataset:
    """Find the scenes of one split.

    Args:
        name, root, images, labels, url: As in :func:`ripu.datasets.street_photos.load_street_photos`, but the labels
            contain the ids of Vistas.
        config: The file below ``root`` that names the labels.

    Raises:
        DatasetNotFoundError: No image, no label or no ``config`` exists.
        SceneError: ``config`` is of another version.
    """
    scenes = load_street_photos(name, root, images, labels, url)
    path = Path(root) / config
    if not path.is_file():
        raise DatasetNotFoundError(name, Path(root), config, url, found=f"no {config}")
    return replace(scenes, taxonomy=_taxonomy(path))


def _taxonomy(config: Path) -> Taxonomy:
    try:
        names = [str(entry["name"]) for entry in read_json(config)["labels"]]
    except (UntrustedError, OSError, KeyError, TypeError) as error:
        raise SceneError(f"{config} does not list the labels of Vistas ({error}); copy it again") from error
    table: dict[int, int] = {}
    for train_id, name in enumerate(CITYSCAPES19.class_names):
        for label in CLASSES[name]:
            if label not in names:
                raise SceneError(
                    f"{config} has no label {label}, so it is not that of Vistas 1.2; name config_v1.2.json and the "
                    "labels below v1.2/"
                )
            table[names.index(label)] = train_id
    return replace(CITYSCAPES19, name="vistas19", disk_to_train=table)
