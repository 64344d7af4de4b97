from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import running
import trees
from ripu.config.checks import checked_spec
from ripu.datasets.errors import DatasetNotFoundError, SceneError
from ripu.datasets.synthia import decode_synthia, load_synthia
from ripu.datasets.taxonomy import CITYSCAPES16, SYNTHIA16, VOID
from ripu.run.assembly.data import make_scenes


def write_label(path: Path, ids: np.ndarray, instance: int = 258) -> None:
    """Write a label as SYNTHIA does: class id, instance id, 0 in R, G, B order, 16 bits each."""
    stored = np.zeros((*ids.shape, 3), dtype=np.uint16)
    stored[..., 0], stored[..., 1] = ids, instance
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(stored[..., ::-1]))


def write_synthia(data_root: Path, num_scenes: int = 3) -> Path:
    base = data_root / "synthia" / "RAND_CITYSCAPES"
    (base / "RGB").mkdir(parents=True)
    for number in range(num_scenes):
        label = trees.draw_label(300 + number, SYNTHIA16)
        image = trees.draw_image(label, SYNTHIA16, number, 0.9)
        Image.fromarray(image).save(base / "RGB" / f"{number:07d}.png")
        write_label(base / "GT" / "LABELS" / f"{number:07d}.png", SYNTHIA16.to_disk_ids(label))
    return data_root / "synthia"


def test_labels_are_read_with_all_16_bits(tmp_path: Path) -> None:
    root = write_synthia(tmp_path)
    scenes = load_synthia(root)
    assert [scene.image_id for scene in scenes.scenes] == ["0000000", "0000001", "0000002"]
    for index in range(3):
        expected = trees.draw_label(300 + index, SYNTHIA16)
        label = scenes.read_label(index)
        np.testing.assert_array_equal(label, expected)
        assert scenes.label_size(index) == expected.shape
    # what Pillow makes of such a file: the high bytes
    with Image.open(scenes.scenes[0].label) as file:  # type: ignore[arg-type]
        assert np.asarray(file)[..., 0].max() == 0


@pytest.mark.parametrize(
    ("disk_id", "name"),
    [(3, "road"), (21, "wall"), (15, "traffic light"), (9, "traffic sign"), (17, "rider"), (12, "motorcycle")],
)
def test_ids_are_those_of_the_published_runs(tmp_path: Path, disk_id: int, name: str) -> None:
    write_label(tmp_path / "label.png", np.full((2, 3), disk_id))
    ids = decode_synthia(tmp_path / "label.png")
    assert SYNTHIA16.class_names[SYNTHIA16.to_train_ids(ids)[0, 0]] == name


def test_ids_without_a_class_are_void(tmp_path: Path) -> None:
    write_label(tmp_path / "label.png", np.array([[0, 13, 14, 16, 18, 20, 22]]))
    assert (SYNTHIA16.to_train_ids(decode_synthia(tmp_path / "label.png")) == VOID).all()


def test_errors_about_missing_data_name_the_source_and_the_stand_in(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        load_synthia(tmp_path / "synthia")
    message = str(caught.value)
    for part in (str(tmp_path / "synthia"), "RAND_CITYSCAPES/RGB/*.png", "https://", "dataset=streets_synthia"):
        assert part in message


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("SYNTHIA-SEQS-01-SPRING/RGB", "another subset"),
        ("SEQ1/RGBLeft", "another subset"),
        ("RAND_CITYSCAPES/GT/LABELS", "without an image in RGB and GT/LABELS"),
        ("GT/LABELS", "move both into"),
    ],
)
def test_the_wrong_subset_is_named(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    if folder == "GT/LABELS":
        (tmp_path / "RGB").mkdir()
    with pytest.raises(DatasetNotFoundError, match=said):
        load_synthia(tmp_path)


def test_colour_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "color.png")
    with pytest.raises(SceneError, match="GT/LABELS"):
        decode_synthia(tmp_path / "color.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(SceneError, match="cannot be read"):
        decode_synthia(tmp_path / "broken.png")


def test_files_without_a_partner_are_left_out(tmp_path: Path) -> None:
    root = write_synthia(tmp_path)
    (root / "RAND_CITYSCAPES" / "GT" / "LABELS" / "0000001.png").unlink()
    assert [scene.image_id for scene in load_synthia(root).scenes] == ["0000000", "0000002"]


def test_both_domains_have_the_same_16_classes(tmp_path: Path) -> None:
    write_synthia(tmp_path)
    trees.write_cityscapes(tmp_path)
    cfg = running.compose("dataset=synthia", f"paths.data_root={tmp_path}")
    checked_spec(cfg)
    scenes = make_scenes(running.spec_of(cfg))
    assert scenes.taxonomy is CITYSCAPES16
    assert scenes.source.taxonomy.class_names == scenes.target.taxonomy.class_names == scenes.val.taxonomy.class_names
    assert len(scenes.taxonomy.subsets["mIoU13"]) == 13
    assert scenes.val.read_label(0).max() == VOID
    assert set(np.unique(scenes.val.read_label(0))) <= {*range(16), VOID}


def test_a_run_logs_the_means_of_16_and_of_13_classes(tmp_path: Path) -> None:
    write_synthia(tmp_path)
    trees.write_cityscapes(tmp_path)
    results = running.train_here(tmp_path, tmp_path / "run", "evaluation.pictures=0", dataset="synthia")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/mIoU"]]
    for key, name in (("val/mIoU", "mIoU"), ("val/mIoU16", "mIoU"), ("val/mIoU13", "mIoU13")):
        every = [one[name] for one in (*results["evaluations"], results)]
        assert [float(row[key]) for row in rows] == pytest.approx(every)


def test_the_published_recipe(tmp_path: Path) -> None:
    cfg = running.compose("dataset=synthia", "mode=pa")
    assert cfg.model._target_ == running.compose("dataset=gtav").model._target_
    assert list(cfg.data.source_size) == [720, 1280]
    assert list(cfg.data.target_size) == [640, 1280]
    assert running.spec_of(cfg).plan.selection_steps == (10000, 12000, 14000, 16000, 18000)
    assert cfg.protocol.source_sampling == "class_balanced"
    for dataset in ("streets", "camvid", "streets_synthia"):
        assert running.compose(f"dataset={dataset}").protocol.source_sampling == "uniform"
    assert running.compose("dataset=synthia", "protocol=paper").protocol.source_sampling == "uniform"


def test_generated_scenes_are_read_as_synthia(tmp_path: Path) -> None:
    cfg = running.compose(
        "dataset=streets_synthia",
        f"paths.data_root={tmp_path}",
        "+dataset.prepare.num_source=2",
        "+dataset.prepare.num_target=1",
        "+dataset.prepare.num_val=1",
        "+dataset.prepare.height=64",
        "+dataset.prepare.width=128",
        "+dataset.prepare.num_workers=1",
    )
    checked_spec(cfg)
    scenes = make_scenes(running.spec_of(cfg))
    assert (scenes.source.name, len(scenes.source), len(scenes.target)) == ("synthia", 2, 1)
    label = scenes.source.read_label(0)
    assert set(np.unique(label)) <= {*range(16), VOID}
    assert len(np.unique(label)) > 4
