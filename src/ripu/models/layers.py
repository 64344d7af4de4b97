"""The layers of a backbone from the input to the output, for rates that depend on the depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ripu.models.interface import evaluating

_PROBE_SIDE = 64  # of the image that shows in which order layers run
_Parameters = Mapping[int, nn.Parameter]  # by id


def backbone_layers(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the trainable parameters of the backbone by layer, from the input to the output.

    A layer is a block (of a transformer, or of residual convolutions) or what stands between blocks: the stem, the
    patch embedding, a convolution that lowers the resolution. A normalisation between layers belongs to the one before
    it; position embeddings and tokens belong to the first. The order is that in which layers run, not that of their
    names: an image of zeros goes through the network to find out. Modes, statistics and random numbers stay as they
    are.

    Args:
        network: A :class:`ripu.models.interface.SegmentationNetwork`.

    Returns:
        Each parameter of ``network.parameter_groups()[0]`` once, in groups that are not empty; no group if there is
        no such parameter.
    """
    known: Any = network
    backbone = {id(parameter): parameter for parameter in known.parameter_groups()[0]}
    root = network
    while len(inside := _children(root, backbone)) == 1 and not _own(root, backbone):
        root = inside[0]
    layers = [_own(root, backbone)]
    for index, part in enumerate(_as_run(known, list(_parts(root, backbone)))):
        if index > 0 and not _is_norm(part):
            layers.append([])
        layers[-1] += [parameter for parameter in part.parameters() if id(parameter) in backbone]
    return [layer for layer in layers if layer]


def _own(module: nn.Module, backbone: _Parameters) -> list[nn.Parameter]:
    """Return the backbone's parameters that a module has itself, not in a submodule."""
    return [parameter for parameter in module.parameters(recurse=False) if id(parameter) in backbone]


def _children(module: nn.Module, backbone: _Parameters) -> list[nn.Module]:
    """Return the submodules that contain parameters of the backbone."""
    return [child for child in module.children() if any(id(one) in backbone for one in child.parameters())]


def _parts(module: nn.Module, backbone: _Parameters) -> Iterator[nn.Module]:
    """Yield the blocks inside a module and whatever stands between them, in the order of their names."""
    for child in _children(module, backbone):
        if _is_sequence(child) and not _own(child, backbone):
            yield from _parts(child, backbone)
        else:
            yield child


def _is_sequence(module: nn.Module) -> bool:
    """Return whether a module strings blocks together: a list of modules that have parts, or a stage with a list."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return any(True for child in module.children() for _ in child.children())
    return isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList)


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ and not any(True for child in module.children() for _ in child.parameters())


def _as_run(network: Any, parts: list[nn.Module]) -> list[nn.Module]:
    """Return modules in the order in which they last run; one that is not called follows the one before it.

    Vision transformers apply their final normalisation to the features of several blocks, the last one included.
    """
    ran: list[nn.Module] = []
    hooks = [part.register_forward_pre_hook(lambda module, _: ran.append(module)) for part in parts]
    try:
        if parts:
            at = next(parts[0].parameters()).device
            image = torch.zeros(1, len(network.mean), _PROBE_SIDE, _PROBE_SIDE, device=at)
            with torch.no_grad(), evaluating(network):
                network.forward(image)  # not the compiled call
    finally:
        for hook in hooks:
            hook.remove()
    place = {id(module): index for index, module in enumerate(ran)}
    before, places = -1, []
    for part in parts:
        before = place.get(id(part), before)
        places.append(before)
    return [part for _, part in sorted(zip(places, parts, strict=True), key=lambda pair: pair[0])]
