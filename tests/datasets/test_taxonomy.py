from __future__ import annotations

import numpy as np
import pytest

from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES16, CITYSCAPES19, SYNTHIA16, TAXONOMIES, Taxonomy

LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
SYNTHIA_IDS = [3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11]
SIXTEEN = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "sky",
    "person", "rider", "car", "bus", "motorcycle", "bicycle",
]  # fmt: skip


def test_label_ids_of_cityscapes() -> None:
    ids = CITYSCAPES19.to_train_ids(np.arange(256))
    assert [int(ids[label_id]) for label_id in LABEL_IDS] == list(range(19))
    assert (ids[[i for i in range(256) if i not in LABEL_IDS]] == 255).all()
    assert CITYSCAPES19.class_colors[0] == (128, 64, 128)
    assert CITYSCAPES19.class_colors[18] == (119, 11, 32)


def test_ids_of_synthia() -> None:
    assert list(SYNTHIA16.class_names) == list(CITYSCAPES16.class_names) == SIXTEEN
    ids = SYNTHIA16.to_train_ids(np.arange(30, dtype=np.uint16))
    assert [int(ids[disk_id]) for disk_id in SYNTHIA_IDS] == list(range(16))
    assert int((ids != 255).sum()) == 16
    assert set(SIXTEEN) - set(SYNTHIA16.subsets["mIoU13"]) == {"wall", "fence", "pole"}
    assert len(SYNTHIA16.subsets["mIoU13"]) == 13


def test_sixteen_classes_on_cityscapes_files() -> None:
    nineteen, sixteen = CITYSCAPES19.to_train_ids(np.arange(34)), CITYSCAPES16.to_train_ids(np.arange(34))
    for label_id in range(34):
        name = None if nineteen[label_id] == 255 else CITYSCAPES19.class_names[nineteen[label_id]]
        want = SIXTEEN.index(name) if name in SIXTEEN else 255
        assert sixteen[label_id] == want


def test_camvid_void_is_eleven() -> None:
    assert CAMVID11.to_train_ids(np.arange(13)).tolist() == [*range(11), 255, 255]


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES)
def test_mapping_to_train_ids_and_back(taxonomy: Taxonomy) -> None:
    train_ids = np.arange(taxonomy.num_classes, dtype=np.uint8)[None]
    np.testing.assert_array_equal(taxonomy.to_train_ids(taxonomy.to_disk_ids(train_ids)), train_ids)
    assert taxonomy.to_disk_ids(train_ids).dtype == np.uint8
    assert taxonomy.to_disk_ids(np.array([255], np.uint8))[0] == 0


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES)
def test_classes_have_different_colours(taxonomy: Taxonomy) -> None:
    assert len(set(taxonomy.class_colors)) == taxonomy.num_classes
    ids = np.array([[0, taxonomy.num_classes - 1, 255]], dtype=np.uint8)
    assert taxonomy.colorize(ids).tolist() == [
        [list(taxonomy.class_colors[0]), list(taxonomy.class_colors[-1]), [0, 0, 0]]
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_any_integer_type_and_empty_arrays(dtype: type) -> None:
    assert CITYSCAPES19.to_train_ids(np.array([[7, 99]], dtype=dtype)).tolist() == [[0, 255]]
    assert CITYSCAPES19.to_train_ids(np.zeros((0, 4), dtype=dtype)).shape == (0, 4)


def test_contradictory_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="2 class names but 1 colours"):
        Taxonomy("bad", ("a", "b"), ((0, 0, 0),), {})
    with pytest.raises(ValueError, match="maps id 4 to train id 2"):
        Taxonomy("bad", ("a", "b"), ((0, 0, 0), (1, 1, 1)), {4: 2})
