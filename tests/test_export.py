from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import timm.layers
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import ripu
from ripu.datasets.taxonomy import CAMVID11
from ripu.export import export
from ripu.exporting import torch_file
from ripu.exporting.comparison import ExportError
from ripu.inference.trained_network import TrainedNetwork
from ripu.io.errors import ConfigError
from ripu.models.smp import SmpNetwork
from ripu.predict import predict
from ripu.run import restore
from ripu.run.trained import open_trained
from running import call, compose, train_here, untrained_checkpoint

SMP = ("model=deeplabv3plus_lite0", "model._target_=ripu.models.smp.SmpNetwork", "model.weights=null")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def smp_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that pads its inputs and has dilated depthwise convolutions."""
    return untrained_checkpoint(tmp_path_factory.mktemp("smp"), *SMP)


def run(checkpoint: Path, output: Path, *words: str) -> float:
    return export(compose(f"checkpoint={checkpoint}", f"output={output}", *words, config_name="export"))


def predicted(checkpoint: Path, source: Path, output: Path, *words: str) -> dict[str, np.ndarray[Any, Any]]:
    """The label ids that the command writes, by name."""
    given = (f"checkpoint={checkpoint}", f"input={source}", f"output={output}", "accelerator=cpu", *words)
    results = predict(compose(*given, config_name="predict"))
    assert not results["unreadable"]
    return {path.name: np.asarray(Image.open(path)) for path in sorted((output / "labelIds").iterdir())}


def photos(folder: Path) -> Path:
    """Images of the shape of training, of others, and of several tiles."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate([(64, 96), (96, 64), (50, 210), (33, 31)]):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size[::-1])
        coarse.save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("model=segformer_b0", "model.weights=null"),
        ("model=convnext_tiny", "model.encoder=tu-convnext_atto", "model.weights=null"),
        ("model=dinov2_small", "model.weights=null", "+model.depth=4"),
        ("model=dinov2_small", "model.encoder=vit_small_patch14_reg4_dinov2", "model.weights=null", "+model.depth=4"),
        ("model=dinov3_small", "model.weights=null", "+model.depth=4"),
    ],
)
def test_networks_of_today_are_exported_for_any_size(words: tuple[str, ...], tmp_path: Path) -> None:
    target = "SmpNetwork" if "smp" in compose(*words).model._target_ else "ViTNetwork"
    module = "smp" if target == "SmpNetwork" else "vit"
    path = untrained_checkpoint(tmp_path, *words, f"model._target_=ripu.models.{module}.{target}")
    state = torch.load(path, weights_only=True)
    if "network.encoder.pos_embed" in state["state_dict"]:  # positions that resampling would blur
        state["state_dict"]["network.encoder.pos_embed"].normal_(generator=torch.Generator().manual_seed(0))
    torch.save(state, path)
    assert run(path, tmp_path / "net.onnx") <= 1e-4


@pytest.mark.slow
def test_adapters_are_merged_into_what_is_exported(tmp_path: Path) -> None:
    plain = SmpNetwork(11, "Segformer", "mit_b0", None)
    torch.save(plain.encoder.state_dict(), tmp_path / "mit_b0.pth")
    words = ("model=segformer_b0", "model._target_=ripu.models.smp.SmpNetwork", "model.train_encoder=lora")
    path = untrained_checkpoint(tmp_path, *words, f"model.weights={tmp_path / 'mit_b0.pth'}")
    content = torch.load(path, weights_only=True)
    for key, value in content["state_dict"].items():
        if key.endswith("lora_up"):
            value.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    torch.save(content, path)
    _, module = restore.restore(path)
    image = torch.randint(0, 256, (1, 3, 45, 70), dtype=torch.uint8)
    with torch.no_grad():
        expected = module.eval()(image)
    run(path, tmp_path / "net.onnx")
    run(path, tmp_path / "net", "format=huggingface")
    names = set(load_file(tmp_path / "net" / "model.safetensors"))
    assert names == set(plain.state_dict())
    for file in ("net.onnx", "net"):
        found = open_trained(str(tmp_path / file), torch.device("cpu")).module
        with torch.no_grad():
            torch.testing.assert_close(found(image), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["checkpoint", "smp_checkpoint"])
def test_an_onnx_file_predicts_as_the_checkpoint(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    assert run(path, tmp_path / "net.onnx") <= 1e-4
    source = photos(tmp_path / "in")
    for number, words in enumerate([(), ("scale=1", "tile=[32,48]", "flip=true", "batch=3")]):
        ours = predicted(path, source, tmp_path / f"torch{number}", *words)
        theirs = predicted(tmp_path / "net.onnx", source, tmp_path / f"onnx{number}", *words)
        assert ours.keys() == theirs.keys()
        assert sum(int((ours[key] != theirs[key]).sum()) for key in ours) == 0
        for kind in ("uncertainty", "color"):
            for one in sorted((tmp_path / f"torch{number}" / kind).iterdir()):
                other = np.asarray(Image.open(tmp_path / f"onnx{number}" / kind / one.name)).astype(int)
                assert np.abs(np.asarray(Image.open(one)).astype(int) - other).max() <= (kind == "uncertainty")


def test_the_metadata_suffice_to_use_the_file_elsewhere(smp_checkpoint: Path, tmp_path: Path) -> None:
    run(smp_checkpoint, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    stored = json.loads(session.get_modelmeta().custom_metadata_map["ripu"])
    assert [one["name"] for one in stored["classes"]] == list(CAMVID11.class_names)
    assert [tuple(one["color"]) for one in stored["classes"]] == list(CAMVID11.class_colors)
    assert [one["ids"] for one in stored["classes"]] == [[index] for index in range(11)]
    assert stored["origin"]["dataset"] == "camvid"
    shape = stored["preprocessing"]
    assert (shape["bands"], shape["value_range"], shape["multiple"], shape["size"]) == (None, [0, 255], 1, None)
    assert shape["training_size"] == [32, 48]
    image = np.random.default_rng(1).integers(0, 256, (2, 3, 45, 70), dtype=np.uint8)
    mean, std = (np.array(shape[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    (logits,) = session.run(None, {"image": (image.astype(np.float32) / 255 - mean) / std})
    _, module = restore.restore(smp_checkpoint)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert [one.name for one in session.get_inputs()[0:1]] == ["image"]
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]


def test_a_run_leaves_its_origin_and_figures(data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", "evaluation.pictures=0", "evaluation.gallery=0")
    run(tmp_path / "run", tmp_path / "net.onnx")
    run(tmp_path / "run" / "checkpoints" / "step-00000005.ckpt", tmp_path / "early.onnx")

    def origin(name: str) -> dict[str, Any]:
        (entry,) = onnx.load(tmp_path / name).metadata_props
        found: dict[str, Any] = json.loads(entry.value)["origin"]
        return found

    final, early = origin("net.onnx"), origin("early.onnx")
    assert (final["mIoU"], final["step"], final["dataset"]) == (results["mIoU"], 7, "camvid")
    record = tmp_path / "run" / "results.json"
    results["provenance"]["command"] = f"python -m ripu.train dataset=camvid paths.data_root={tmp_path}"
    record.write_text(json.dumps(results))
    run(tmp_path / "run", tmp_path / "again.onnx")
    assert origin("again.onnx")["command"] == "python -m ripu.train dataset=camvid paths.data_root=..."
    assert early["step"] == 5
    assert "mIoU" not in early  # the run's figures are those of its final checkpoint


def test_a_network_of_one_size_is_exported_when_asked(tmp_path: Path) -> None:
    path = untrained_checkpoint(
        tmp_path, "model=smp", "model._target_=ripu.models.smp.SmpNetwork", "model.architecture=PSPNet",
        "model.encoder=resnet18", "model.weights=null",
    )  # fmt: skip
    with pytest.raises(ExportError, match=r"cannot be exported for images of any size .*; add size=\[32,48\]"):
        run(path, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
    run(path, tmp_path / "net.onnx", "size=[96,192]")
    source = photos(tmp_path / "in")
    ours = predicted(path, source, tmp_path / "torch", "tile=[96,192]")
    theirs = predicted(tmp_path / "net.onnx", source, tmp_path / "onnx")
    assert {key: label.shape for key, label in ours.items()} == {key: label.shape for key, label in theirs.items()}
    with pytest.raises(ConfigError, match=r"tile=\[96, 224\]: the network takes at most 96 x 192 pixels"):
        predicted(tmp_path / "net.onnx", source, tmp_path / "other", "tile=[96,224]")


def test_an_export_that_computes_something_else_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripu.exporting import onnx_file

    trace = onnx_file._trace

    def damaged(network: Any, description: Any) -> bytes:
        content = trace(network, description)
        model = onnx.load_model_from_string(content)
        bias = next(one for one in model.graph.initializer if one.name.endswith("head.bias"))
        bias.raw_data = np.full(11, 3.0, dtype=np.float32).tobytes()
        return bytes(model.SerializeToString())

    monkeypatch.setattr(onnx_file, "_trace", damaged)
    with pytest.raises(ExportError, match="differs from the original by"):
        run(checkpoint, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists already"):
        run(checkpoint, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    with pytest.raises(ConfigError, match=r"the name for format=onnx ends in \.onnx"):
        run(checkpoint, tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="format=tflite is not allowed"):
        run(checkpoint, tmp_path / "net.onnx", "format=tflite")
    with pytest.raises(ConfigError, match=r"nowhere\.ckpt does not exist"):
        run(Path("nowhere.ckpt"), tmp_path / "net.onnx")
    assert sorted(os.listdir(tmp_path)) == ["there.onnx"]


def test_foreign_and_damaged_onnx_files_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, tmp_path / "net.onnx")
    source = photos(tmp_path / "in")
    model = onnx.load(tmp_path / "net.onnx")
    stored = json.loads(model.metadata_props[0].value)

    def refused(message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            predicted(tmp_path / "bad.onnx", source, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def describe(**changed: Any) -> None:
        onnx.helper.set_model_props(model, {"ripu": json.dumps({**stored, **changed})})
        onnx.save(model, tmp_path / "bad.onnx")

    describe(ripu=2)
    refused("by a later version")
    describe(classes=[])
    refused("not one that ripu.export writes")
    describe(classes=stored["classes"][:3])
    with pytest.raises(ConfigError, match=r"returns .* for 3 classes"):
        predicted(tmp_path / "bad.onnx", source, tmp_path / "out3")
    for preprocessing in ({}, None, [], {**stored["preprocessing"], "std": [0, 1, 1]}):
        describe(preprocessing=preprocessing)
        refused("not one that ripu.export writes")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bad.onnx")
    refused("has no entry 'ripu' in its metadata, which tells the classes and the preprocessing")
    (tmp_path / "bad.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:200])
    refused("cannot be read as an ONNX file")


def test_a_missing_package_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    with pytest.raises(ConfigError, match=r"need onnx, which is not installed; .*pip install 'ripu\[export\]'"):
        run(checkpoint, tmp_path / "net.onnx")


@pytest.mark.slow
def test_the_command_says_what_it_has_written(checkpoint: Path, tmp_path: Path) -> None:
    words = (f"checkpoint={checkpoint}", f"output={tmp_path}/out/net.onnx")
    done = call("ripu.export", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "any batch size, height and width; logits differ" in done.stdout
    again = call("ripu.export", *words, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.strip().startswith("error: output=")
    assert "Traceback" not in again.stderr


def same_maps(first: TrainedNetwork, second: TrainedNetwork) -> None:
    image = np.random.default_rng(2).integers(0, 256, (70, 111, 3), dtype=np.uint8)
    np.testing.assert_array_equal(first.predict(image), second.predict(image))
    for one, other in zip(first.maps(image), second.maps(image), strict=True):  # another memory format rounds otherwise
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["checkpoint", "smp_checkpoint"])
def test_a_folder_is_loaded_as_the_checkpoint(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    assert run(path, tmp_path / "net", "format=huggingface") == 0.0
    assert sorted(os.listdir(tmp_path)) == ["net"]
    assert sorted(os.listdir(tmp_path / "net")) == ["README.md", "config.json", "model.safetensors"]
    same_maps(ripu.load(path, "cpu"), ripu.load(tmp_path / "net", "cpu"))
    config = json.loads((tmp_path / "net" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "ripu"
    assert "nowhere" not in json.dumps(config)  # no path of the machine that trained it
    source = photos(tmp_path / "in")
    ours, theirs = (
        predicted(one, source, tmp_path / str(number)) for number, one in enumerate((path, tmp_path / "net"))
    )
    assert all((ours[key] == theirs[key]).all() for key in ours)


@pytest.mark.parametrize(("output", "words"), [("net", ["format=huggingface"]), ("net.onnx", [])])
def test_bands_and_ranges_go_along(output: str, words: list[str], tmp_path: Path) -> None:
    reading = ("data.bands=[1,2,3,4]", "data.value_range=[0,4095]")
    path = untrained_checkpoint(tmp_path, *SMP, *reading)
    run(path, tmp_path / output, *words)
    ours, theirs = ripu.load(path, "cpu"), ripu.load(tmp_path / output, "cpu")
    assert theirs.description.image_reader == ours.description.image_reader
    image = np.random.default_rng(4).integers(0, 256, (32, 48, 4), dtype=np.uint8)
    np.testing.assert_array_equal(ours.predict(image), theirs.predict(image))
    values = image.astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "image.tif", values)
    np.testing.assert_array_equal(ours.predict(tmp_path / "image.tif"), theirs.predict(tmp_path / "image.tif"))


def test_a_foreign_or_damaged_folder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    run(checkpoint, folder, "format=huggingface")
    weights, config = ((folder / name).read_bytes() for name in ("model.safetensors", "config.json"))
    for content in (weights[:100], b"", weights[:-8]):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ConfigError, match=r"model\.safetensors is damaged, or does not fit"):
            ripu.load(folder, "cpu")
    (folder / "model.safetensors").write_bytes(weights)
    for content in (b"{}", b"[]", b'{"network": {}, "ripu": {}}'):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.json"):
            ripu.load(folder, "cpu")
    hostile = json.loads(config) | {"network": {"_target_": "os.system", "command": "touch there"}}
    (folder / "config.json").write_text(json.dumps(hostile))
    with pytest.raises(ConfigError, match="where a network belongs"):
        ripu.load(folder, "cpu")


def test_a_model_card_has_the_figures_of_the_run(data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", "evaluation.pictures=0", "evaluation.gallery=0")
    run(tmp_path / "run", tmp_path / "net", "format=huggingface")
    card = (tmp_path / "net" / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"] == [
        {"type": "mean_iou", "value": round(results["mIoU"], 2)}
    ]
    assert f"| mIoU | {results['mIoU']:.2f} |" in card
    for name, iou in results["per_class_iou"].items():
        assert f"| {name} | {'-' if iou is None else f'{iou:.1f}'} |" in card


@pytest.mark.parametrize("name", ["checkpoint", "smp_checkpoint"])
def test_torch_export_writes_one_size(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    assert run(path, tmp_path / "net.pt2", "format=torch_export", "size=[45,70]") <= 1e-4
    extra = {"ripu": ""}
    program = torch.export.load(str(tmp_path / "net.pt2"), extra_files=extra)
    assert json.loads(extra["ripu"])["preprocessing"]["size"] == [45, 70]
    _, module = restore.restore(path)
    image = torch.randn(3, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), module.eval().network(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("words", "multiple"),
    [
        ((), 1),
        pytest.param(("segformer_b0", "smp.SmpNetwork"), 32, marks=pytest.mark.slow),
        pytest.param(("dinov2_small", "vit.ViTNetwork", "+model.depth=4"), 14, marks=pytest.mark.slow),
    ],
)
def test_torch_export_finds_free_sizes(words: tuple[str, ...], multiple: int, tmp_path: Path) -> None:
    chosen = [f"model={words[0]}", f"model._target_=ripu.models.{words[1]}", "model.weights=null"] if words else []
    path = untrained_checkpoint(tmp_path, *chosen, *words[2:])
    assert run(path, tmp_path / "net.pt2", "format=torch_export") <= 1e-4
    extra = {"ripu": ""}
    program = torch.export.load(str(tmp_path / "net.pt2"), extra_files=extra)
    about = json.loads(extra["ripu"])["preprocessing"]
    assert (about["size"], about["multiple"]) == (None, multiple)
    _, module = restore.restore(path)
    image = torch.randn(3, 3, 224, 448, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), module.eval().network(image), atol=1e-4, rtol=0)


def test_networks_without_free_sizes_say_which_size_works(smp_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"any size \(\S+ computes its padding from .*; add size=\[32,48\] to export"):
        run(smp_checkpoint, tmp_path / "net.pt2", "format=torch_export")
    assert not (tmp_path / "net.pt2").exists()


@pytest.mark.parametrize("kind", ["Conv2dSame", "StdConv2dSame", "ScaledStdConv2dSame"])
def test_every_convolution_that_computes_its_padding_is_refused(kind: str) -> None:
    network = torch.nn.Sequential(getattr(timm.layers, kind)(3, 3, 3))
    with pytest.raises(ValueError, match="0 computes its padding from the size of the image"):
        torch_file._check_padding(network, SimpleNamespace(fixed_size=None))  # type: ignore[arg-type]
    torch_file._check_padding(network, SimpleNamespace(fixed_size=(32, 48)))  # type: ignore[arg-type]


def test_an_array_a_picture_and_a_file_give_the_same_maps(checkpoint: Path, tmp_path: Path) -> None:
    network = ripu.load(checkpoint, "cpu")
    image = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    label, entropy, score = network.maps(image)
    for given in (Image.fromarray(image), tmp_path / "image.png", str(tmp_path / "image.png")):
        np.testing.assert_array_equal(network.predict(given), label)
    np.testing.assert_array_equal(network.uncertainty(image), entropy)
    np.testing.assert_array_equal(network.score(image), score)
    assert (label.dtype, entropy.dtype, score.dtype) == (np.uint8, np.float32, np.float32)
    assert network.class_names == CAMVID11.class_names
    impurity = ripu.region_impurity(torch.from_numpy(label)[None].long(), 11, radius=1)
    expected = impurity * ripu.window_mean(torch.from_numpy(entropy)[None], radius=1)
    np.testing.assert_array_equal(score, expected[0].numpy())
    ids = predicted(checkpoint, tmp_path / "image.png", tmp_path / "out")
    np.testing.assert_array_equal(next(iter(ids.values())), label)  # the ids of CamVid are its train ids


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 4), (3, 40, 60), (0, 60, 3)])
def test_what_is_not_an_image_is_refused(checkpoint: Path, shape: tuple[int, ...]) -> None:
    network = ripu.load(checkpoint, "cpu")
    with pytest.raises(ValueError, match=r"give RGB, \(H, W, 3\) uint8"):
        network.predict(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="float64"):
        network.predict(np.zeros((40, 60, 3)))  # type: ignore[arg-type]
