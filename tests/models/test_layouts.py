"""Files with the weights of an encoder, in every layout: the features are those of the encoder that was written."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ripu.io.errors import ConfigError
from ripu.models.checkpoints import is_weights_file, load_encoder
from ripu.models.smp import LITE0, SmpNetwork
from ripu.models.vit import ViTNetwork

State = dict[str, Tensor]


def shaken(module: nn.Module) -> nn.Module:
    """The same module with values that no initialisation gives."""
    generator = torch.Generator().manual_seed(1)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.02)
    return module


def split(state: State, name: str, parts: tuple[str, ...]) -> State:
    """The rows of a layer as several layers of equal size."""
    return dict(zip(parts, state.pop(name).chunk(len(parts)), strict=True))


# The documented layouts, written from the names of the encoder.


def segformer_hf(encoder: nn.Module) -> State:
    """``SegformerForSemanticSegmentation.state_dict()`` of transformers."""
    own, made = dict(encoder.state_dict()), {}
    table = (
        (r"patch_embed(\d)\.norm\.", r"patch_embed\1.layer_norm."),
        (r"\.norm1\.", ".layer_norm_1."), (r"\.norm2\.", ".layer_norm_2."),
        (r"\.attn\.q\.", ".attention.self.query."), (r"\.attn\.k\.", ".attention.self.key."),
        (r"\.attn\.v\.", ".attention.self.value."), (r"\.attn\.sr\.", ".attention.self.sr."),
        (r"\.attn\.norm\.", ".attention.self.layer_norm."), (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".mlp.dense1."), (r"\.mlp\.fc2\.", ".mlp.dense2."),
    )  # fmt: skip
    for key in [key for key in own if ".attn.kv." in key]:
        own |= split(own, key, (key.replace(".kv.", ".k."), key.replace(".kv.", ".v.")))
    for key, value in own.items():
        name = key
        for old, new in table:
            name = re.sub(old, new, name)
        name = re.sub(r"^patch_embed(\d)", lambda found: f"patch_embeddings.{int(found[1]) - 1}", name)
        name = re.sub(r"^block(\d)", lambda found: f"block.{int(found[1]) - 1}", name)
        name = re.sub(r"^norm(\d)", lambda found: f"layer_norm.{int(found[1]) - 1}", name)
        made[f"segformer.encoder.{name}"] = value
    made |= {"decode_head.classifier.weight": torch.zeros(19, 256, 1, 1), "decode_head.batch_norm.bias": torch.zeros(4)}
    return made


def dinov2_meta(encoder: nn.Module) -> State:
    """``dinov2_vits14_pretrain.pth``: timm's names and a token for masked images."""
    state = dict(encoder.state_dict())
    if "reg_token" in state:  # with registers, Meta's class token has a position of its own
        position = torch.full_like(state["pos_embed"][:, :1], 0.25)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["register_tokens"] = state.pop("reg_token")
    return state | {"mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


def dinov2_hf(encoder: nn.Module) -> State:
    """``Dinov2Model.state_dict()`` of transformers, and with registers ``Dinov2WithRegistersModel``'s."""
    own, made = dinov2_meta(encoder), {}
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
    }
    table = (
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.", "encoder.layer."), (r"^norm\.", "layernorm."),
        (r"\.attn\.(query|key|value)", r".attention.attention.\1"), (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
    )  # fmt: skip
    for key in [key for key in own if ".attn.qkv." in key]:
        own |= split(own, key, tuple(key.replace(".qkv.", f".{part}.") for part in ("query", "key", "value")))
    for key, value in own.items():
        name = names.get(key, key)
        for old, new in table:
            name = re.sub(old, new, name)
        made[name] = value
    return made


def dinov3_meta(encoder: nn.Module) -> State:
    """``dinov3_vits16_pretrain_*.pth``."""
    state = {re.sub(r"gamma_(\d)$", r"ls\1.gamma", key): value for key, value in encoder.state_dict().items()}
    state["storage_tokens"] = state.pop("reg_token")
    width = state["cls_token"].shape[-1]
    for block in range(len([key for key in state if key.endswith("attn.qkv.weight")])):
        prefix = f"blocks.{block}.attn."
        query, value = (state.pop(prefix + part, torch.zeros(width)) for part in ("q_bias", "v_bias"))
        state[prefix + "qkv.bias"] = torch.cat([query, torch.zeros(width), value])
        state[prefix + "qkv.bias_mask"] = torch.ones(3 * width)
    return state | {"mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}


def dinov3_hf(encoder: nn.Module) -> State:
    """``DINOv3ViTModel.state_dict()`` of transformers; keys have no bias."""
    own, made = dinov3_meta(encoder), {}
    table = (
        (r"^(cls_token|mask_token)", r"embeddings.\1"), (r"^storage_tokens", "embeddings.register_tokens"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings"), (r"^blocks\.", "layer."),
        (r"\.attn\.(q|k|v)_proj", r".attention.\1_proj"), (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
        (r"\.mlp\.fc1", ".mlp.up_proj"), (r"\.mlp\.fc2", ".mlp.down_proj"),
    )  # fmt: skip
    for key in [key for key in own if key.endswith((".attn.qkv.weight", ".attn.qkv.bias"))]:
        own |= split(own, key, tuple(key.replace(".qkv.", f".{part}_proj.") for part in "qkv"))
    for key, value in own.items():
        name = key
        for old, new in table:
            name = re.sub(old, new, name)
        if not name.endswith(("bias_mask", "periods", "k_proj.bias")):
            made[name] = value
    return made


def convnext_meta(encoder: nn.Module) -> State:
    """``convnext_tiny_1k_224_ema.pth``, its entry ``model``."""
    made = {}
    for key, value in encoder.state_dict().items():
        name = re.sub(r"^model\.stem_", "downsample_layers.0.", key)
        name = re.sub(r"^model\.stages_(\d)\.downsample", r"downsample_layers.\1", name)
        name = re.sub(r"^model\.stages_(\d)\.blocks", r"stages.\1", name)
        for old, new in (("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2")):
            name = name.replace(old, new)
        made[name] = value
    return made | {"norm.weight": torch.ones(8), "norm.bias": torch.ones(8), "head.weight": torch.ones(9, 8)}


def own_names(encoder: nn.Module) -> State:
    """``mit_b*.pth``, or timm's file of a transformer: the same names, and a classifier."""
    return dict(encoder.state_dict()) | {"head.weight": torch.zeros(1000, 8), "head.bias": torch.zeros(1000)}


def with_backbone(encoder: nn.Module) -> State:
    """``segformer.b0.1024x1024.city.160k.pth``, its entry ``state_dict``."""
    state = {f"backbone.{key}": value for key, value in encoder.state_dict().items()}
    return state | {"decode_head.conv_seg.weight": torch.zeros(19, 8, 1, 1)}


def timm_names(name: str) -> Callable[[nn.Module], State]:
    """timm's file of an encoder whose levels have other names here."""

    def write(encoder: nn.Module) -> State:
        whole = dict(timm.create_model(name).state_dict())
        values = {key.removeprefix("model.").replace(".", "_"): value for key, value in encoder.state_dict().items()}
        assert values.keys() <= {key.replace(".", "_") for key in whole}
        return {key: values.get(key.replace(".", "_"), value) for key, value in whole.items()}

    return write


MIT = lambda: SmpNetwork(3, "Segformer", "mit_b0", None).encoder  # noqa: E731
ATTO = lambda: SmpNetwork(3, "FPN", "tu-convnext_atto", None).encoder  # noqa: E731


def vit(name: str) -> Callable[[], nn.Module]:
    return lambda: ViTNetwork(3, name, embed_dim=48, depth=4, num_heads=3).encoder


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], State], str]] = {
    "segformer released": (MIT, own_names, "pth"),
    "segformer released with its decoder": (MIT, with_backbone, "state_dict"),
    "segformer hugging face": (MIT, segformer_hf, "safetensors"),
    "segformer hugging face, bin": (MIT, segformer_hf, "bin"),
    "dinov2 meta": (vit("vit_small_patch14_dinov2"), dinov2_meta, "pth"),
    "dinov2 meta, registers": (vit("vit_small_patch14_reg4_dinov2"), dinov2_meta, "pth"),
    "dinov2 hugging face": (vit("vit_small_patch14_dinov2"), dinov2_hf, "safetensors"),
    "dinov2 hugging face, registers": (vit("vit_small_patch14_reg4_dinov2"), dinov2_hf, "bin"),
    "dinov3 meta": (vit("vit_small_patch16_dinov3"), dinov3_meta, "pth"),
    "dinov3 meta, biases": (vit("vit_small_patch16_dinov3_qkvb"), dinov3_meta, "pth"),
    "dinov3 hugging face": (vit("vit_small_patch16_dinov3"), dinov3_hf, "safetensors"),
    "dinov3 hugging face, biases": (vit("vit_small_patch16_dinov3_qkvb"), dinov3_hf, "safetensors"),
    "timm transformer": (vit("vit_small_patch16_224"), own_names, "safetensors"),
    "timm convnext": (ATTO, timm_names("convnext_atto"), "safetensors"),
    "timm efficientnet": (
        lambda: SmpNetwork(3, "Unet", LITE0, None).encoder,
        timm_names("tf_efficientnet_lite0"),
        "pth",
    ),
    "convnext meta": (ATTO, convnext_meta, "model"),
}


def write(state: State, kind: str, folder: Path) -> Path:
    """Write a file of a kind: its suffix, or the name of the entry that contains the weights."""
    path = folder / f"weights.{kind if kind in ('safetensors', 'bin') else 'pth'}"
    if kind == "safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state if kind in ("pth", "bin") else {kind: state, "epoch": 3}, path)
    return path


def assert_same_features(one: nn.Module, other: nn.Module) -> None:
    image = torch.rand(1, 3, 112, 224, generator=torch.Generator().manual_seed(0))
    outputs = []
    for encoder in (one.eval(), other.eval()):
        run: Any = getattr(encoder, "forward_intermediates", None) or encoder
        with torch.no_grad():
            outputs.append(run(image))
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_encoder_that_was_written(case: str, tmp_path: Path) -> None:
    make, layout, kind = CASES[case]
    source = shaken(make())
    path = write(layout(copy.deepcopy(source)), kind, tmp_path)
    target = make()
    load_encoder(target, path)
    assert_same_features(source, target)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2"])
def test_torchvision_files_fit_encoders_of_their_names(name: str, tmp_path: Path) -> None:
    theirs = shaken(getattr(torchvision.models, name)())
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    network = SmpNetwork(3, "Unet", name, str(tmp_path / "weights.pth"))
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.encoder.state_dict().items())
    assert network.mean == (0.485, 0.456, 0.406)


def test_convnext_of_torchvision_computes_the_same(tmp_path: Path) -> None:
    theirs = torchvision.models.convnext_tiny().eval()
    torch.save(theirs.state_dict(), tmp_path / "convnext.pth")
    encoder = SmpNetwork(3, "FPN", "tu-convnext_tiny", str(tmp_path / "convnext.pth")).encoder.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image)[-1], theirs.features(image), rtol=1e-4, atol=1e-4)


def test_a_run_gives_its_encoder_to_a_network_of_other_classes(tmp_path: Path) -> None:
    trained = SmpNetwork(5, "Segformer", "mit_b0", None)
    content = {"state_dict": {f"network.{key}": value for key, value in trained.state_dict().items()}}
    torch.save(content, tmp_path / "final.ckpt")
    network = SmpNetwork(2, "FPN", "mit_b0", str(tmp_path / "final.ckpt"))
    assert_same_features(trained.encoder, network.encoder)


def test_files_for_rgb_are_adapted_to_other_bands(tmp_path: Path) -> None:
    source = shaken(MIT())
    path = write(segformer_hf(source), "safetensors", tmp_path)
    network = SmpNetwork(3, "Segformer", "mit_b0", str(path), in_channels=4)
    first, four = (encoder.state_dict()["patch_embed1.proj.weight"] for encoder in (source, network.encoder))
    torch.testing.assert_close(four, first[:, [0, 1, 2, 0]] * 0.75)


def test_misfits_are_named(tmp_path: Path) -> None:
    other = write(own_names(SmpNetwork(3, "Segformer", "mit_b1", None).encoder), "pth", tmp_path)
    with pytest.raises(ConfigError, match=r"does not fit MixVisionTransformerEncoder(?s:.*)patch_embed1\.proj\.weight"):
        SmpNetwork(3, "Segformer", "mit_b0", str(other))
    with pytest.raises(ConfigError, match="no weights of this encoder"):
        SmpNetwork(3, "Unet", "resnet18", str(other))
    state = segformer_hf(MIT())
    del state["segformer.encoder.block.0.1.attention.self.key.weight"]
    state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(
        ConfigError, match=r"1 missing from the file: block1\.1\.attn\.kv\.weight(?s:.*)surplus\.weight"
    ):
        load_encoder(MIT(), write(state, "safetensors", tmp_path))
    biased = dinov3_meta(shaken(vit("vit_small_patch16_dinov3_qkvb")()))
    with pytest.raises(ConfigError, match=r"not in the network: blocks\.0\.attn\.qkv\.bias"):
        load_encoder(vit("vit_small_patch16_dinov3")(), write(biased, "pth", tmp_path))
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ConfigError, match=r"broken\.safetensors cannot be read as a checkpoint"):
        ViTNetwork(3, weights=str(tmp_path / "broken.safetensors"))
    with pytest.raises(ConfigError, match="does not exist"):
        SmpNetwork(3, "Segformer", "mit_b0", "missing.pth")


def test_names_and_files_are_told_apart(tmp_path: Path) -> None:
    assert not any(is_weights_file(name) for name in (None, "imagenet", "lvd142m", "augreg_in21k_ft_in1k"))
    assert all(is_weights_file(name) for name in ("mit_b0.pth", "model.safetensors", "weights/mine", "C.bin"))
