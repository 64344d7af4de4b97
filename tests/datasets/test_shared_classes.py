from __future__ import annotations

import numpy as np
import pytest

from ripu.datasets.folder import make_taxonomy
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.shared_classes import share_classes
from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES16, CITYSCAPES19, VOID
from ripu.io.errors import ConfigError


def test_names_match_exactly_and_then_without_case_and_separators() -> None:
    data = make_taxonomy("mine", ["Traffic-Light", "Car", "car", "tram", "traffic_sign"])
    shared = share_classes(CITYSCAPES19, data)
    assert shared.names == ("traffic light", "traffic sign", "car")
    assert shared.only_data == ("Car", "tram")  # car is taken by the exact name
    assert shared.train_ids == {0: 6, 2: 13, 4: 7}
    assert "road" in shared.only_network
    assert len(shared.only_network) == 16


def test_labels_become_those_of_the_network_and_other_classes_void() -> None:
    scenes = SceneDataset("camvid", (), CAMVID11)
    shared = share_classes(CITYSCAPES19, CAMVID11)
    assert shared.names == ("road", "building", "fence", "pole", "sky", "car")
    taxonomy = shared.relabel(scenes, CITYSCAPES19).taxonomy
    ids = np.array([[0, 3, 5, 11, 8]])  # sky, road, tree, void, car
    assert taxonomy.to_train_ids(ids).tolist() == [[10, 0, VOID, VOID, 13]]


def test_further_means_need_all_of_their_classes() -> None:
    assert share_classes(CITYSCAPES19, CITYSCAPES16).subsets == CITYSCAPES16.subsets
    assert share_classes(CITYSCAPES16, CITYSCAPES19).subsets == CITYSCAPES16.subsets
    assert share_classes(CITYSCAPES16, CAMVID11).subsets == {}
    data = make_taxonomy("mine", ["ROAD", "tram"], subsets={"flat": ["ROAD"], "both": ["ROAD", "tram"]})
    assert share_classes(CITYSCAPES19, data).subsets == {"flat": ("road",)}


def test_no_common_class_and_unclear_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the data have \['cat'\], the network has \['sky', .*name the classes"):
        share_classes(CAMVID11, make_taxonomy("mine", ["cat"]))
    with pytest.raises(ConfigError, match=r"\['Sign-Symbol', 'sign_symbol'\] differ only in case"):
        share_classes(CAMVID11, make_taxonomy("mine", ["sky", "Sign-Symbol", "sign_symbol"]))
