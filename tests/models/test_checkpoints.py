"""Weights files of every layout, and files that have to be refused."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ripu.models import resnet
from ripu.models.checkpoints import CheckpointError, load_encoder, load_weights, read_checkpoint, to_released
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.deeplabv3plus import DeepLabV3Plus

ROOT = Path(__file__).resolve().parents[2]


class TinyBackbone(nn.Module):
    """The names by which a torchvision ResNet is known, and little else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = resnet.FrozenBatchNorm2d(4, eps=0.0)
        self.layer1 = nn.Sequential(nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 1, bias=False)}))


class TinyDeepLab(nn.Module):
    """A network of the DeepLab shape that is written to disk in no time."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = TinyBackbone()
        self.head = nn.ModuleDict({"conv2d_list": nn.ModuleList(nn.Conv2d(4, num_classes, 1) for _ in range(12))})


class OtherNetwork(nn.Module):
    """A network without a backbone and a head, with a batch norm that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def changed(network: nn.Module) -> nn.Module:
    """The same network with other weights and buffers."""
    for value in network.state_dict().values():
        value.copy_(torch.rand(value.shape) + 1 if value.is_floating_point() else value + 3)
    return network


def equal(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def released(network: nn.Module, wrapper: str = "") -> dict[str, Any]:
    """What the authors' training script writes: both parts, their optimisers and the iteration."""
    content = to_released(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    return {
        "iteration": 40_000,
        "feature_extractor": OrderedDict(prefixed(content["feature_extractor"], wrapper)),
        "classifier": OrderedDict(prefixed(content["classifier"], wrapper)),
        "optimizer_fea": optimiser.state_dict(),
        "optimizer_cls": optimiser.state_dict(),
    }


def lightning(network: nn.Module) -> dict[str, Any]:
    """What a training run of this project writes, with state beside the network's."""
    return {
        "epoch": 0,
        "global_step": 123,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": {**prefixed(network.state_dict(), "network."), "metric.confusion": torch.zeros(3, 3)},
        "hyper_parameters": {"model": {"_target_": "ripu.models.deeplabv2.DeepLabV2", "num_classes": 5}},
        "optimizer_states": [],
    }


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_released_file(tmp_path: Path, wrapper: str) -> None:
    source, target = changed(TinyDeepLab()), TinyDeepLab()
    path = save(released(source, wrapper), tmp_path / "model_iter040000.pth")
    assert load_weights(target, path) == "released"
    assert equal(source, target)


def test_released_file_of_a_run_without_frozen_norms(tmp_path: Path) -> None:
    source, target = changed(TinyDeepLab()), TinyDeepLab()
    content = released(source)
    content["feature_extractor"]["backbone.bn1.num_batches_tracked"] = torch.tensor(7)
    load_weights(target, save(content, tmp_path / "model.pth"))
    assert equal(source, target)


def test_lightning_checkpoint(tmp_path: Path) -> None:
    for source, target in ((TinyDeepLab(), TinyDeepLab()), (OtherNetwork(), OtherNetwork())):
        path = save(lightning(changed(source)), tmp_path / "last.ckpt")
        assert load_weights(target, path) == "project"
        assert equal(source, target)


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("network_type", [TinyDeepLab, OtherNetwork])
def test_plain_state_dict(tmp_path: Path, network_type: type[nn.Module], wrapper: str) -> None:
    source, target = changed(network_type()), network_type()
    assert load_weights(target, save(prefixed(source.state_dict(), wrapper), tmp_path / "state.pth")) == "project"
    assert equal(source, target)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torchvision_file_fills_the_backbone_alone(tmp_path: Path, zipped: bool) -> None:
    source, target = changed(TinyDeepLab()), TinyDeepLab()
    head = {key: value.clone() for key, value in target.head.state_dict().items()}
    content = OrderedDict(source.backbone.state_dict())
    content["bn1.num_batches_tracked"] = torch.tensor(0)
    content |= {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    # The ResNet files of 2017 are in the old format and hold Parameters.
    content["conv1.weight"] = nn.Parameter(content["conv1.weight"])
    path = tmp_path / "resnet101.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert load_weights(target, path) == "torchvision"
    assert equal(source.backbone, target.backbone)
    assert all(torch.equal(head[key], value) for key, value in target.head.state_dict().items())
    with pytest.raises(CheckpointError, match="OtherNetwork has no such backbone"):
        load_weights(OtherNetwork(), path)


def test_the_real_torchvision_layout_fits_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = torchvision.models.resnet101(weights=None)
    for name, value in theirs.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    path = save(theirs.state_dict(), tmp_path / "resnet101-local.pth")
    network = DeepLabV2(3, weights=str(path))
    expected = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.") and "num_batches" not in k}
    state = network.backbone.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    # The same file where torch hub keeps it, under either of its names.
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    (tmp_path / "checkpoints").mkdir()
    for name in reversed(resnet.IMAGENET_FILES):
        path = path.rename(tmp_path / "checkpoints" / name)
        assert resnet.imagenet_file() == path
    assert torch.equal(DeepLabV3Plus(3, weights="imagenet").backbone.conv1.weight, theirs.conv1.weight)


def test_imagenet_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, dst: str, hash_prefix: str) -> None:
        assert (url, hash_prefix) == ("https://download.pytorch.org/models/resnet101-63fe2227.pth", "63fe2227")
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(CheckpointError) as caught:
        resnet.imagenet_file()
    for part in (
        resnet.IMAGENET_URL,
        str(tmp_path / "hub" / "checkpoints"),
        "model.weights=/path/to/resnet101-",
        "no route",
    ):
        assert part in str(caught.value)


def test_backbone_weights_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="imagnet does not exist"):
        load_encoder(TinyBackbone(), "imagnet")
    path = save(released(TinyDeepLab()), tmp_path / "trained.pth")
    with pytest.raises(CheckpointError, match=r"no weights of this encoder.*conv1\.weight.*found 5 entries: iteration"):
        load_encoder(TinyBackbone(), path)


def test_misfits_are_counted_and_listed(tmp_path: Path) -> None:
    source, target = TinyDeepLab(), TinyDeepLab()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    content = to_released(changed(source))
    for index in range(11):
        del content["classifier"][f"conv2d_list.{index}.weight"]
    content["classifier"] |= {"surplus.weight": torch.zeros(2), "conv2d_list.11.bias": "text"}
    content["feature_extractor"]["backbone.bn1.weight"] = torch.zeros(8)
    with pytest.raises(CheckpointError) as caught:
        load_weights(target, save(content, tmp_path / "odd.pth"))
    listed = ", ".join(f"head.conv2d_list.{index}.weight" for index in range(10))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'odd.pth'} does not fit TinyDeepLab:",
        f"  11 missing from the file: {listed}, ...",
        "  1 not in the network: head.surplus.weight",
        "  2 of another shape: backbone.bn1.weight (file (8,), network (4,)), "
        "head.conv2d_list.11.bias (file str, network (5,))",
    ]
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


@pytest.mark.parametrize("write", [released, lightning, lambda network: network.state_dict()])
def test_wrong_number_of_classes_is_named(tmp_path: Path, write: Any) -> None:
    path = save(write(TinyDeepLab(19)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"(?s)24 of another shape.*has 19 classes and the network 16"):
        load_weights(TinyDeepLab(16), path)


def test_other_shapes_are_not_taken_for_another_number_of_classes(tmp_path: Path) -> None:
    content = to_released(TinyDeepLab())
    content["feature_extractor"]["backbone.bn1.weight"] = torch.zeros(8)
    with pytest.raises(CheckpointError) as caught:
        load_weights(TinyDeepLab(), save(content, tmp_path / "odd.pth"))
    assert "classes" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no known layout.*it is empty"),
        ({"weights": torch.zeros(1), "n": 3}, "no known layout.*found 2 entries: weights, n"),
        ({"state_dict": {"model.weight": torch.zeros(1)}}, "'network.'; found 1 entries: model.weight"),
        ([torch.zeros(1)], "contains a list"),
        ({1: torch.zeros(1)}, "not a dictionary of named weights"),
        (torch.zeros(3), "contains a Tensor"),
    ],
)
def test_unknown_layouts_say_what_was_found(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_weights(OtherNetwork(), save(content, tmp_path / "unknown.pth"))


def test_a_released_file_does_not_fit_another_network(tmp_path: Path) -> None:
    path = save(released(TinyDeepLab()), tmp_path / "released.pth")
    with pytest.raises(CheckpointError, match=r"7 missing from the file: net\.0\.weight"):
        load_weights(OtherNetwork(), path)
    with pytest.raises(CheckpointError, match="OtherNetwork has no released layout"):
        to_released(OtherNetwork())


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 64, b"not weights", b"PK\x03\x04" + b"x" * 50, b"\x80\x02}q\x00", b"<html>", b'{"a": 1}']
)
def test_garbage_is_refused(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "garbage.pth"
    path.write_bytes(garbage)
    with pytest.raises(CheckpointError, match=r"garbage\.pth cannot be read as a checkpoint") as caught:
        load_weights(TinyDeepLab(), path)
    assert "weights_only" not in str(caught.value)  # torch's advice to read the file without protection


def test_a_cut_off_download_is_refused(tmp_path: Path) -> None:
    path = save(released(TinyDeepLab()), tmp_path / "cut.pth")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="fetch it again"):
        load_weights(TinyDeepLab(), path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist or is not a file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"is a folder; name a file, e\.g\. checkpoints/final\.ckpt"):
        read_checkpoint(tmp_path)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy", "inside"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, form: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bomb.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif form == "inside":
        save({**released(TinyDeepLab()), "optimizer_fea": Bomb(trace)}, path)
    else:
        torch.save({"state_dict": Bomb(trace)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="refused because loading them can run code"):
        load_weights(TinyDeepLab(), path)
    assert not trace.exists()
    if form == "pickle":  # the trap itself works
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.fixture(scope="module")
def exporter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_checkpoint", ROOT / "scripts" / "export_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "network_type"), [("deeplabv2_r101", DeepLabV2), ("deeplabv3plus_r101", DeepLabV3Plus)]
)
def test_export_and_back(tmp_path: Path, exporter: ModuleType, model: str, network_type: type[nn.Module]) -> None:
    source = network_type(4).eval()  # type: ignore[call-arg]
    checkpoint, out = save(lightning(source), tmp_path / "last.ckpt"), tmp_path / "mine.pth"
    arguments = [str(checkpoint), str(out), "--model", model, "--num-classes", "4"]
    assert exporter.main(arguments) == 0
    content = read_checkpoint(out)
    assert list(content) == ["feature_extractor", "classifier", "iteration"]
    assert content["iteration"] == 123
    assert all(key.startswith("backbone.") for key in content["feature_extractor"])
    target = network_type(4).eval()  # type: ignore[call-arg]
    assert load_weights(target, out) == "released"
    assert exporter.main([str(out), str(tmp_path / "again.pth"), *arguments[2:]]) == 0
    assert read_checkpoint(tmp_path / "again.pth")["iteration"] == 123
    image = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        ours: Tensor = source(image)
        assert torch.equal(ours, target(image))


def test_export_errors(tmp_path: Path, exporter: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    exporter.NETWORKS["deeplabv2_r101"], network = TinyDeepLab, exporter.NETWORKS["deeplabv2_r101"]
    try:
        checkpoint, out = save(lightning(TinyDeepLab(4)), tmp_path / "last.ckpt"), tmp_path / "mine.pth"

        def error(source: Path, target: Path, num_classes: str = "4") -> str:
            arguments = [str(source), str(target), "--model", "deeplabv2_r101", "--num-classes", num_classes]
            assert exporter.main(arguments) == 1
            return capsys.readouterr().err

        assert "has 4 classes and the network 6" in error(checkpoint, out, "6")
        backbone = save(TinyBackbone().state_dict(), tmp_path / "resnet.pth")
        assert "nothing to export" in error(backbone, out)
        assert exporter.main([str(checkpoint), str(out)]) == 1
        assert "does not say what its network is; give --model and --num-classes" in capsys.readouterr().err
        assert "error:" in error(checkpoint, tmp_path / "no" / "folder.pth")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "resnet.pth"]
        out.write_text("mine")
        assert "exists already" in error(checkpoint, out)
        assert out.read_text() == "mine"
    finally:
        exporter.NETWORKS["deeplabv2_r101"] = network
