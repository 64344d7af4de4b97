"""Every network of ``conf/model``: sizes, parameters and gradients; without its weights, so that nothing is fetched.

Large networks are made on the device ``meta``, which computes shapes alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn
from torch.overrides import TorchFunctionMode

from ripu.config.nodes import instantiate
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError
from ripu.models.features import num_features, with_features
from ripu.models.layers import backbone_layers
from ripu.models.smp import SmpNetwork
from ripu.models.vit import PyramidHead, ViTNetwork

FILES = sorted((Path(config_dir()) / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
SMALL = ("deeplabv3plus_lite0", "segformer_b0", "convnext_tiny", "dinov2_small", "dinov3_small")
PATCH = {"dinov2_small": 14, "dinov2_base": 14, "dinov3_small": 16, "dinov3_base": 16, "vit": 16}
MILLIONS = {"segformer_b0": 3.7, "segformer_b2": 24.7, "segformer_b5": 82.0, "dinov2_small": 23.2, "dinov2_base": 87.9}


class OnMeta(TorchFunctionMode):
    """Shapes alone, except where a constructor reads the numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.erfinv_, torch.Tensor.clamp_):
            return args[0]  # thousands of initial values
        return func(*args, **(kwargs or {}) | ({"device": "cpu"} if func is torch.linspace else {}))


def make(name: str, **given: Any) -> Any:
    """The network of a yaml, with 5 classes and random weights."""
    node: Any = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "model" / f"{name}.yaml"))
    del node["checkpoint"]
    torch.manual_seed(0)
    return instantiate(node | {"num_classes": 5, "pretrained": False} | given)


@cache
def shapes_of(name: str, **given: Any) -> Any:
    """The same on the device ``meta``."""
    with torch.device("meta"), OnMeta():
        return make(name, **given)


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image(name: str) -> None:
    for bands, sizes in ((3, [(2, 1, 1), (1, 33, 97)]), (4, [(2, 64, 32)])):
        network = (shapes_of(name) if bands == 3 else shapes_of(name, in_channels=bands)).eval()
        assert len(network.mean) == len(network.std) == bands
        for batch, *size in sizes:
            with torch.no_grad():
                logits = network(torch.zeros(batch, bands, *size, device="meta"))
            assert logits.shape == (batch, 5, *size)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_classifier_reads_is_found(name: str) -> None:
    network = shapes_of(name).eval()
    with torch.no_grad():
        logits, features = with_features(network, torch.zeros(1, 3, 64, 96, device="meta"))
    assert logits.shape == (1, 5, 64, 96)
    assert features.shape[1] == num_features(network) >= 16


@pytest.mark.parametrize("name", NAMES)
def test_parts_and_layers_hold_every_parameter_once(name: str) -> None:
    network = shapes_of(name)
    backbone, head = network.parameter_groups()
    ids = [id(parameter) for parameter in (*backbone, *head)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    layers = backbone_layers(network)
    assert sorted(id(parameter) for layer in layers for parameter in layer) == sorted(map(id, backbone))
    assert len(layers) > 10
    total = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert MILLIONS.get(name, total) == pytest.approx(total, abs=0.06)


@pytest.mark.parametrize("name", [name for name in NAMES if "r101" not in name])
def test_adapters_go_into_transformers_alone(name: str) -> None:
    if name in ("convnext_tiny", "deeplabv3plus_lite0", "smp"):
        with pytest.raises(ConfigError, match=r"model\.train_encoder=lora adds to the linear layers of attention"):
            shapes_of(name, train_encoder="lora")
        return
    network = shapes_of(name, train_encoder="lora")
    backbone, head = network.parameter_groups()
    count = sum(parameter.numel() for parameter in backbone)
    assert 0 < count < 0.05 * sum(parameter.numel() for parameter in network.encoder.parameters())
    layers = backbone_layers(network)
    assert sorted(id(parameter) for layer in layers for parameter in layer) == sorted(map(id, backbone))
    frozen = shapes_of(name, train_encoder="none")
    assert [parameter.shape for parameter in frozen.parameter_groups()[1]] == [parameter.shape for parameter in head]
    assert backbone_layers(frozen) == []


def test_every_trainable_parameter_gets_a_gradient(small: Any) -> None:
    small.train()
    small(torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        parameter.grad = None


def test_autocast_stays_close(small: Any) -> None:
    small.eval()
    image = torch.rand(1, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = small(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = small(image)
    assert rough.shape == exact.shape
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", ["dinov2_small", "dinov3_small", "segformer_b0"])
def test_padding_repeats_the_border_up_to_a_patch(name: str) -> None:
    network, patch = make(name).eval(), PATCH.get(name, 32)
    image = torch.rand(1, 3, 2 * patch - 3, 3 * patch - 1, generator=torch.Generator().manual_seed(0))
    padded = F.pad(image, (0, 1, 0, 3), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., : 2 * patch - 3, : 3 * patch - 1])


@pytest.mark.parametrize("name", PATCH)
def test_patches_of_the_encoder_are_what_inputs_are_padded_to(name: str) -> None:
    network = shapes_of(name)
    assert network.multiple == PATCH[name]
    assert network.taken == [2, 5, 8, 11]
    assert (network.mean, network.std) == (
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if name == "vit" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )


def test_the_pyramid_of_a_transformer_is_its_layers_in_turn() -> None:
    """Coarse to fine: project, enlarge, add the level above, convolve; then classify."""
    torch.manual_seed(0)
    head = PyramidHead(8, 32, 3).double().eval()
    features = [torch.randn(2, 8, 3, 5, dtype=torch.float64) for _ in range(4)]
    above = None
    for level in (3, 2, 1, 0):
        project, grow = head.levels[level]
        value = torch.einsum("oi,bihw->bohw", project.weight[..., 0, 0], features[level]) + project.bias[:, None, None]
        factor = (4, 2, 1, 1)[level]
        if factor > 1:
            cells = torch.einsum("bihw,iokl->bohkwl", value, grow.weight)
            value = cells.reshape(2, 32, 3 * factor, 5 * factor) + grow.bias[:, None, None]
        if above is not None:
            value = value + F.interpolate(above, size=value.shape[-2:], mode="bilinear", align_corners=False)
        conv, norm, _ = head.merges[level]
        value = F.conv2d(value, conv.weight, padding=1)
        groups = value.reshape(2, 32, -1)  # 32 groups of one channel
        value = (groups - groups.mean(-1, keepdim=True)) / (
            groups.var(-1, correction=0, keepdim=True) + norm.eps
        ).sqrt()
        above = value.reshape(2, 32, 3 * factor, 5 * factor).relu()
    assert above is not None
    expected = F.conv2d(above, head.classifier[1].weight, head.classifier[1].bias)
    torch.testing.assert_close(head(features), expected)


def test_smps_own_decoder_for_transformers_takes_any_size_too() -> None:
    network = SmpNetwork(3, "DPT", "tu-vit_tiny_patch16_224", None).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 50, 97)).shape == (1, 3, 50, 97)


@pytest.mark.parametrize(
    ("network", "given", "message"),
    [
        (
            SmpNetwork,
            {"architecture": "DPT", "encoder": "tu-vit_small_patch14_dinov2"},
            r"patches of 14.*use model=vit",
        ),
        (
            ViTNetwork,
            {"encoder": "vit_small_patch14_dinov2.lvd142m"},
            r"give model\.encoder=\S+ model\.weights=lvd142m",
        ),
        (ViTNetwork, {"encoder": "vit_small_patch14_dinov9"}, r"dinov9' is unknown to timm"),
        (
            ViTNetwork,
            {"weights": "moon"},
            r"model\.weights=moon: .*timm has the weights \['lvd142m'\] for this encoder",
        ),
        (ViTNetwork, {"encoder": "resnet18"}, r"resnet18 does not fit .* model=smp other encoders"),
        (ViTNetwork, {"encoder": "swin_tiny_patch4_window7_224"}, "is not a vision transformer with square patches"),
        (ViTNetwork, {"width": 100}, r"model\.width=100 must be a multiple of 32"),
        (ViTNetwork, {"depth": 3}, "has 3 blocks, and the decoder reads four"),
        (ViTNetwork, {"mean": [0.5]}, r"model\.mean=\[0\.5\] must be three numbers"),
    ],
)
def test_what_does_not_fit_is_refused(network: type[nn.Module], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        network(3, **{"weights": None} | given)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("ripu.models.vit.timm.create_model", offline)
    with pytest.raises(
        ConfigError, match=r"vit_small_patch14_dinov2\.lvd142m could not .*model\.weights=/path/to/file"
    ):
        ViTNetwork(3, weights="lvd142m")
