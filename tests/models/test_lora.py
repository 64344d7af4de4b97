"""Networks of which a part is trained: adapters, the head alone, and what becomes of their weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference import lora as reference
from ripu.io.errors import ConfigError
from ripu.models.checkpoints import load_weights
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.lora import LoraLinear, fit_adapters, merge_adapters, train_only
from ripu.models.smp import SmpNetwork
from ripu.models.vit import ViTNetwork

SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3, "pretrained": False}
ENCODERS = {
    "dinov2": lambda **given: ViTNetwork(3, "vit_small_patch14_dinov2", **SMALL | given),
    "dinov3": lambda **given: ViTNetwork(3, "vit_small_patch16_dinov3", **SMALL | given),
    "dinov3 with biases": lambda **given: ViTNetwork(3, "vit_small_patch16_dinov3_qkvb", **SMALL | given),
    "segformer": lambda **given: SmpNetwork(3, "Segformer", "mit_b0", None, **{"pretrained": False} | given),
}


class Attention(nn.Module):
    """The layers that an adapter is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.proj = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, rows: Tensor) -> Tensor:
        output: Tensor = self.proj(self.q(rows))
        return output


def make(name: str, **given: Any) -> Any:
    torch.manual_seed(0)
    return ENCODERS[name](**given)


def moved(network: nn.Module) -> nn.Module:
    """The network after adapters have learnt something."""
    generator = torch.Generator().manual_seed(2)
    for key, value in network.state_dict().items():
        if key.endswith("lora_up"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return network


def trained(network: Any, steps: int = 2) -> set[str]:
    """Train on noise; the names in the state dict whose values have changed."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    groups = network.parameter_groups()
    optimizer = torch.optim.AdamW([{"params": group} for group in groups if group], lr=0.01)
    image = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("rank", [1, 3])
def test_layers_with_adapters_equal_the_literal_loop(rank: int) -> None:
    torch.manual_seed(0)
    network = Attention()
    train_only(network, "lora", rank)
    layer = moved(network).proj
    assert isinstance(layer, LoraLinear)
    rows = torch.randn(4, 6)
    arrays = [
        value.detach().double().numpy() for value in (rows, layer.weight, layer.bias, layer.lora_down, layer.lora_up)
    ]
    expected = reference.adapted_linear(*arrays)
    np.testing.assert_allclose(layer(rows).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert merge_adapters(network) == 2
    np.testing.assert_allclose(network.proj(rows).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert type(network.proj) is nn.Linear
    assert not hasattr(network.proj, "lora_up")


def test_gradients_of_adapters_are_exact() -> None:
    torch.manual_seed(0)
    network = Attention().double()
    train_only(network, "lora", 2)
    moved(network)
    rows = torch.randn(3, 6, dtype=torch.float64)
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert len(trainable) == 4
    assert torch.autograd.gradcheck(lambda *_: network(rows), trainable)


@pytest.mark.parametrize("name", ENCODERS)
def test_adapters_change_nothing_at_the_start_and_are_all_that_learns(name: str) -> None:
    plain, adapted = make(name).eval(), make(name, train_encoder="lora", lora_rank=4).eval()
    image = torch.rand(1, 3, 45, 61)
    with torch.no_grad():
        assert torch.equal(adapted(image), plain(image))
    encoder, head = adapted.parameter_groups()
    names = {id(parameter): key for key, parameter in adapted.named_parameters()}
    assert encoder
    assert all(names[id(parameter)].endswith(("lora_down", "lora_up")) for parameter in encoder)
    assert {id(parameter) for parameter in head} == {
        id(parameter) for key, parameter in adapted.named_parameters() if "encoder." not in key
    }
    changed = trained(adapted)
    assert {names[id(parameter)] for parameter in (*encoder, *head)} <= changed
    assert not [key for key in changed if "encoder." in key and "lora_" not in key]


@pytest.mark.parametrize("name", ENCODERS)
def test_merged_networks_compute_the_same(name: str) -> None:
    adapted = moved(make(name, train_encoder="lora")).eval()
    merged = copy.deepcopy(adapted)
    assert merge_adapters(merged) > 3
    assert merged.state_dict().keys() == make(name).state_dict().keys()
    image = torch.rand(1, 3, 45, 61)
    with torch.no_grad():
        torch.testing.assert_close(merged(image), adapted(image), rtol=1e-4, atol=1e-5)


def test_checkpoints_fit_networks_with_and_without_adapters(tmp_path: Path) -> None:
    adapted, plain = moved(make("segformer", train_encoder="lora")), make("segformer")
    image = torch.rand(1, 3, 40, 40)
    for network, name in ((adapted, "adapted"), (plain, "plain")):
        content = {"state_dict": {f"network.{key}": value for key, value in network.state_dict().items()}}
        torch.save(content, tmp_path / f"{name}.ckpt")
    for source, target, file in (
        (adapted, make("segformer", train_encoder="lora"), "adapted"),
        (adapted, make("segformer"), "adapted"),
        (plain, make("segformer", train_encoder="lora"), "plain"),
    ):
        assert load_weights(target, tmp_path / f"{file}.ckpt") == "project"
        with torch.no_grad():
            torch.testing.assert_close(target.eval()(image), source.eval()(image), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"of another shape: .*lora_down \(file \(8, 32\), network \(4, 32\)\)"):
        load_weights(make("segformer", train_encoder="lora", lora_rank=4), tmp_path / "adapted.ckpt")


def test_adapters_that_fit_nothing_stay_for_the_message() -> None:
    layer = Attention()
    state = {**layer.state_dict(), "q.lora_down": torch.zeros(2, 9), "q.lora_up": torch.zeros(6, 2)}
    assert fit_adapters(state, layer).keys() == state.keys()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_frozen_encoder_is_run_without_a_graph(name: str) -> None:
    network = make(name, train_encoder="none").train()
    assert network.parameter_groups()[0] == []
    assert not any(module.training for module in network.encoder.modules())
    seen = []
    handle = next(iter(network.encoder.children())).register_forward_hook(lambda *given: seen.append(given[2]))
    changed = trained(network)
    handle.remove()
    assert changed
    assert not [key for key in changed if "encoder." in key]
    assert seen
    assert not any(output.requires_grad for output in seen)
    assert all(parameter.grad is None for parameter in network.encoder.parameters())


def test_statistics_of_a_frozen_convolutional_encoder_rest() -> None:
    network = SmpNetwork(3, "Unet", "resnet18", None, pretrained=False, train_encoder="none")
    changed = trained(network)
    assert any("running_mean" in key for key in changed)
    assert not [key for key in changed if "encoder." in key]
    with torch.device("meta"):
        deeplab = DeepLabV2(3, pretrained=False, train_encoder="none")
    assert deeplab.parameter_groups()[0] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_encoder": "half"}, r"model\.train_encoder='half' is unknown; use all, lora or none"),
        ({"train_encoder": "lora", "lora_rank": 0}, r"model\.lora_rank=0 must be between 1 and 32"),
        ({"train_encoder": "lora", "lora_rank": 33}, r"model\.lora_rank=33 must be between 1 and 32"),
        (
            {"train_encoder": "lora", "pretrained": True},
            r"train_encoder=lora keeps .* model\.weights=null makes them r",
        ),
        (
            {"train_encoder": "none", "pretrained": True},
            r"train_encoder=none keeps .* model\.weights=null makes them r",
        ),
    ],
)
def test_senseless_choices_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("segformer", **given)


def test_encoders_without_attention_have_no_adapters() -> None:
    with pytest.raises(
        ConfigError, match=r"train_encoder=lora adds to the linear layers of attention, and this encode"
    ):
        SmpNetwork(3, "FPN", "tu-convnext_atto", None, pretrained=False, train_encoder="lora")
    with pytest.raises(ConfigError, match="this encoder has none"), torch.device("meta"):
        DeepLabV2(3, pretrained=False, train_encoder="lora")
