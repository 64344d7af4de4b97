from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import running
from ripu.datasets.errors import SceneError
from ripu.datasets.gtav import load_gtav
from ripu.datasets.image_files import resize_image, resize_label
from ripu.datasets.scenes import SceneDataset
from ripu.loading.image_cache import ImageCache
from ripu.loading.samples import PoolScenes, TrainScenes

SIZE = (40, 52)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same_sample(first: dict[str, object], second: dict[str, object]) -> bool:
    return all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first)


@pytest.mark.parametrize("size", [SIZE, (64, 96), (90, 100)])
def test_samples_are_the_same_with_and_without(data_root: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    import albumentations

    scenes = load_gtav(data_root / "gtav")
    cache = ImageCache(tmp_path)
    flips = [albumentations.HorizontalFlip(p=0.5), albumentations.ColorJitter(p=0.5)]

    def sample(position: int, cache: ImageCache | None) -> dict[str, object]:
        return dict(TrainScenes(scenes, size, scenes.require_label, flips, 0, 0, cache=cache)[position, position % 4])

    for _ in range(2):  # entries are made, then read
        for position in range(4):
            assert same_sample(sample(position, cache), sample(position, None))
            plain, kept = (PoolScenes(scenes, size, [position], one)[0] for one in (None, cache))
            assert same_sample(dict(plain), dict(kept))
        assert len(entries(tmp_path)) == 8


def test_files_are_decoded_once(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(tmp_path)
    expected = cache.image(scenes, 0, SIZE), cache.label(scenes, 0, SIZE)
    for name in ("require_image", "require_label"):
        monkeypatch.setattr(SceneDataset, name, lambda *_: pytest.fail("decoded again"))
    again = ImageCache(tmp_path)
    np.testing.assert_array_equal(again.image(scenes, 0, SIZE), expected[0])
    np.testing.assert_array_equal(again.label(scenes, 0, SIZE), expected[1])


def test_a_changed_file_replaces_its_entry(own_data: Path, tmp_path: Path) -> None:
    scenes, cache = load_gtav(own_data / "gtav"), ImageCache(tmp_path / "cache")
    cache.image(scenes, 0, SIZE)
    path = scenes.scenes[0].image
    status = path.stat()
    Image.fromarray(np.full((64, 96, 3), 7, dtype=np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert (cache.image(scenes, 0, SIZE) == 7).all()
    assert len(entries(tmp_path / "cache")) == 1  # in place of the old one
    path.unlink()
    with pytest.raises(SceneError, match="does not exist"):
        cache.image(scenes, 0, SIZE)


def test_a_changed_file_of_the_same_size_and_time_replaces_its_entry(own_data: Path, tmp_path: Path) -> None:
    scenes, cache = load_gtav(own_data / "gtav"), ImageCache(tmp_path / "cache")
    path = scenes.scenes[0].label
    assert path is not None

    def write(train_id: int) -> tuple[int, int]:
        """A label of one id, whose size in bytes does not depend on it, with the time of the first."""
        status = path.stat()
        Image.fromarray(np.full((64, 96), train_id, dtype=np.uint8)).save(path, compress_level=0)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return path.stat().st_size, path.stat().st_mtime_ns

    first = write(7)
    assert (cache.label(scenes, 0, SIZE) == 0).all()  # road
    assert write(26) == first
    assert (cache.label(scenes, 0, SIZE) == 13).all()  # car


def fill(folder: Path, data_root: Path, limit: int | None = None) -> None:
    """Read everything through the cache in a separate process, and compare with reading without it."""
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(folder)
    for index in range(len(scenes)):
        image, label = cache.image(scenes, index, SIZE), cache.label(scenes, index, SIZE)
        np.testing.assert_array_equal(image, resize_image(scenes.read_image(index), SIZE))
        np.testing.assert_array_equal(label, resize_label(scenes.read_label(index), SIZE))


def run_together(count: int, *arguments: object) -> list[int | None]:
    import multiprocessing

    processes = [multiprocessing.get_context("fork").Process(target=fill, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_processes_may_fill_it_together(data_root: Path, tmp_path: Path) -> None:
    assert run_together(4, tmp_path, data_root) == [0] * 4
    assert len(entries(tmp_path)) == 8  # four images, four labels, and nothing half written


def test_an_entry_that_fits_only_in_part_is_not_kept(data_root: Path, tmp_path: Path) -> None:
    limit = SIZE[0] * SIZE[1] * 2  # a label fits, an image does not: its write ends in the middle
    assert run_together(1, tmp_path, data_root, limit) == [0]
    assert not entries(tmp_path)


def test_leftovers_of_a_crash_are_not_read(data_root: Path, tmp_path: Path) -> None:
    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(tmp_path)
    expected = cache.image(scenes, 0, SIZE).copy()
    (entry,) = entries(tmp_path)
    entry.rename(entry.with_name(f".{entry.name[:16]}.1.00000000.tmp"))
    np.testing.assert_array_equal(cache.image(scenes, 0, SIZE), expected)
    assert entry.exists()


def test_sizes_and_class_tables_do_not_mix(data_root: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from ripu.datasets.taxonomy import CITYSCAPES16

    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(tmp_path)
    other = replace(scenes, taxonomy=CITYSCAPES16)
    first = cache.label(scenes, 0, SIZE)
    second = cache.label(other, 0, SIZE)
    np.testing.assert_array_equal(second, resize_label(other.read_label(0), SIZE))
    assert (first != second).any()
    assert cache.label(scenes, 0, (20, 30)).shape == (20, 30)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_made_again(data_root: Path, tmp_path: Path, damage: str) -> None:
    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(tmp_path)
    expected = cache.image(scenes, 0, SIZE).copy()
    (entry,) = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    if damage == "flip":
        content[-10] ^= 1
    entry.write_bytes({"cut": content[:-5], "flip": content, "empty": b""}[damage])
    np.testing.assert_array_equal(cache.image(scenes, 0, SIZE), expected)
    whole = entry.read_bytes()
    np.testing.assert_array_equal(cache.image(scenes, 0, SIZE), expected)
    assert entry.read_bytes() == whole
    assert len(whole) > SIZE[0] * SIZE[1] * 3


def test_a_full_disk_costs_the_entry_not_the_run(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripu.loading import image_cache as module

    scenes, cache = load_gtav(data_root / "gtav"), ImageCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    image = cache.image(scenes, 0, SIZE)
    np.testing.assert_array_equal(image, resize_image(scenes.read_image(0), SIZE))
    assert not entries(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="name another folder"):
        ImageCache(tmp_path / "file" / "cache")


def test_training_is_the_same_with_and_without(plain_run: Path, data_root: Path, tmp_path: Path) -> None:
    running.train_here(data_root, tmp_path / "filling", f"data.cache={tmp_path / 'cache'}", "data.num_workers=2")
    running.train_here(data_root, tmp_path / "reading", f"data.cache={tmp_path / 'cache'}")
    assert entries(tmp_path / "cache")
    assert running.same_weights(plain_run, tmp_path / "filling")
    assert running.same_weights(plain_run, tmp_path / "reading")
    assert running.label_bytes(plain_run) == running.label_bytes(tmp_path / "reading")
