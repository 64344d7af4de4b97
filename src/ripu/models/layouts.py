"""Layouts of files with the weights of an encoder, brought to the names that the encoder has here.

| file | known by |
|---|---|
| torchvision: ResNet, VGG, DenseNet, MobileNet, ConvNeXt | ``layer1.0.conv1.weight``, ``features.0.weight`` |
| timm, any encoder, ``model.safetensors`` or ``pytorch_model.bin`` | the names of the encoder itself |
| SegFormer as released, ``mit_b*.pth``, or with a decoder | ``block1.0.attn.kv.weight``, ``backbone.block1...`` |
| SegFormer of Hugging Face | ``encoder.block.0.0.attention.self.query.weight`` |
| DINOv2 and DINOv3 of Meta, with and without registers | ``blocks.0.ls1.gamma`` |
| DINOv2 and DINOv3 of Hugging Face | ``layer.0.layer_scale1.lambda1`` |
| ConvNeXt of Meta | ``downsample_layers.0.0.weight`` |
| a run of this package: its encoder, whatever its head | ``network.net.encoder...``, ``network.encoder...`` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ripu.models.average import averaged_weights

State = dict[str, Any]

_WRAPPERS = ("state_dict", "model", "teacher")  # entries that contain the weights, beside others
_PREFIXES = ("module.", "network.net.encoder.", "network.encoder.", "network.backbone.", "backbone.", "model.")

HEADS = frozenset(
    """auxiliary_head bn2 classifier conv_head decode_head fc fc_norm final_layer head head_dist last_linear mask_token
    norm pooler pre_logits""".split()  # noqa: SIM905
)
"""First parts of the names of weights that files have and encoders do not: classifiers and what leads to them."""

_SEGFORMER_HF = {
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.key",
    "attention.self.value": "attn.value",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
}
_DINO_HF = {
    "attention.attention.": "attn.",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.query",
    "attention.k_proj": "attn.key",
    "attention.v_proj": "attn.value",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}
_CONVNEXT_TORCHVISION = {
    "layer_scale": "gamma",
    "block.0": "conv_dw",
    "block.2": "norm",
    "block.3": "mlp.fc1",
    "block.5": "mlp.fc2",
}
_CONVNEXT_META = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}


def encoder_state(content: Mapping[str, Any], own: Mapping[str, Tensor]) -> State:
    """Return the weights in a file under the names of an encoder; weights of unknown names keep theirs.

    Args:
        content: What the file contains.
        own: The state dict of the encoder.
    """
    state = _unwrapped(content)
    if any(".attention.self." in key for key in state):
        state = _from_segformer_hf(state)
    if any("layer_scale1.lambda1" in key for key in state):
        state = _from_dino_hf(state)
    if any(key.endswith(("ls1.gamma", "gamma_1")) for key in own) and "blocks.0.ls1.gamma" in state:
        state = _from_dino(state, own)
    if "features.1.0.layer_scale" in state:
        state = _from_convnext_torchvision(state)
    if "downsample_layers.0.0.weight" in state:
        state = _from_convnext_meta(state)
    # timm's encoders of several levels join the parts of names: stages_0.blocks.0 for stages.0.blocks.0
    names = {_joined_name(key): key for key in own}
    return {names.get(_joined_name(key), key): value for key, value in state.items()}


def _unwrapped(content: Mapping[str, Any]) -> State:
    """Return the weights without what lies beside them and without the prefix of a larger network."""
    content = averaged_weights(content)
    for key in _WRAPPERS:
        if isinstance(inside := content.get(key), Mapping):
            return _unwrapped(inside)
    for prefix in _PREFIXES:
        inside = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
        if inside:
            return _unwrapped(inside | {key: content[key] for key in content if key.partition(".")[0] in HEADS})
    return dict(content)


def _joined_name(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def _stacked(state: State, parts: tuple[str, ...], whole: str) -> State:
    """Stack the rows of the layers ``attn.PART`` into one, ``attn.WHOLE``; keys may lack a bias, which is then zero."""
    stacked = dict(state)
    for key in [key for key in state if f"attn.{parts[-1]}." in key]:
        names = [key.replace(f"attn.{parts[-1]}.", f"attn.{part}.") for part in parts]
        values = [state.get(name) for name in names]
        if key.endswith(".bias") and values[-2] is None:
            values[-2] = torch.zeros_like(state[key])
        rows = [value for value in values if isinstance(value, Tensor)]
        if len(rows) == len(parts):
            stacked[key.replace(f"attn.{parts[-1]}.", f"attn.{whole}.")] = torch.cat(rows)
            for name in names:
                stacked.pop(name, None)
    return stacked


def _from_segformer_hf(state: State) -> State:
    renamed: State = {}
    for key, value in state.items():
        name = key.removeprefix("segformer.").removeprefix("encoder.")
        if found := re.fullmatch(r"patch_embeddings\.(\d+)\.(.+)", name):
            name = f"patch_embed{int(found[1]) + 1}.{found[2].replace('layer_norm', 'norm')}"
        elif found := re.fullmatch(r"block\.(\d+)\.(\d+)\.(.+)", name):
            name = f"block{int(found[1]) + 1}.{found[2]}.{_renamed(found[3], _SEGFORMER_HF)}"
        elif found := re.fullmatch(r"layer_norm\.(\d+)\.(\w+)", name):
            name = f"norm{int(found[1]) + 1}.{found[2]}"
        renamed[name] = value
    return _stacked(renamed, ("key", "value"), "kv")


def _from_dino_hf(state: State) -> State:
    renamed: State = {}
    for key, value in state.items():
        name = key.removeprefix("dinov2.").removeprefix("dinov2_with_registers.").removeprefix("dinov3_vit.")
        name = name.removeprefix("embeddings.").removeprefix("encoder.")
        name = name.replace("position_embeddings", "pos_embed").replace("layernorm.", "norm.")
        name = re.sub(r"^patch_embeddings\.(projection\.)?", "patch_embed.proj.", name)
        name = re.sub(r"^(model\.)?layer\.(\d+)\.", r"blocks.\2.", name)
        renamed[_renamed(name, _DINO_HF) if name.startswith("blocks.") else name] = value
    return _stacked(renamed, ("query", "key", "value"), "qkv")


def _from_dino(state: State, own: Mapping[str, Tensor]) -> State:
    """Bring Meta's names to timm's, in which the class token has no position if there are registers."""
    renamed: State = {}
    for key, value in state.items():
        name = key.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2")
        name = name.replace("register_tokens", "reg_token").replace("storage_tokens", "reg_token")
        if "blocks.0.gamma_1" in own or "model.blocks.0.gamma_1" in own:
            name = name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        if not name.endswith((".periods", ".bias_mask", "mask_token")):
            renamed[name] = value
    position, token = renamed.get("pos_embed"), renamed.get("cls_token")
    if "register_tokens" in state and isinstance(position, Tensor) and isinstance(token, Tensor):
        renamed |= {"cls_token": token + position[:, :1], "pos_embed": position[:, 1:]}
    for name in [name for name in renamed if name.endswith("attn.qkv.bias")]:
        prefix, value = name.removesuffix("qkv.bias"), renamed[name]
        if prefix + "q_bias" in own:
            del renamed[name]
            renamed[prefix + "q_bias"], _, renamed[prefix + "v_bias"] = value.chunk(3)
        elif name not in own and not value.any():  # Meta's distilled networks have biases, all of them zero
            del renamed[name]
    return renamed


def _from_convnext_torchvision(state: State) -> State:
    renamed: State = {}
    for key, value in state.items():
        name = re.sub(r"^features\.0\.", "stem.", key)
        if found := re.fullmatch(r"features\.([1357])\.(\d+)\.(.+)", key):
            name = f"stages.{int(found[1]) // 2}.blocks.{found[2]}.{_renamed(found[3], _CONVNEXT_TORCHVISION)}"
        elif found := re.fullmatch(r"features\.([246])\.(.+)", key):
            name = f"stages.{int(found[1]) // 2}.downsample.{found[2]}"
        renamed[name] = value.flatten() if name.endswith("gamma") and isinstance(value, Tensor) else value
    return renamed


def _from_convnext_meta(state: State) -> State:
    renamed: State = {}
    for key, value in state.items():
        name = re.sub(r"^downsample_layers\.0\.", "stem.", key)
        name = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)
        if found := re.fullmatch(r"stages\.(\d)\.(\d+)\.(.+)", key):
            name = f"stages.{found[1]}.blocks.{found[2]}.{_renamed(found[3], _CONVNEXT_META)}"
        renamed[name] = value
    return renamed
