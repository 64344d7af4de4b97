"""Reads weights from the authors' released files, from torchvision's ResNet files and from this project's checkpoints.

Every file is treated as untrusted: it is read with ``torch.load(weights_only=True)``, which builds tensors and plain
containers and runs no code from the file. What is read has to fit the network exactly.

| layout | what the file holds | what is loaded |
|---|---|---|
| released | dicts ``feature_extractor`` (``backbone.*``) and ``classifier`` | the whole DeepLab network |
| torchvision | ``conv1.weight``, ``bn1.*``, ``layer1.0.*`` ... ``fc.*`` | the backbone; ``fc`` is dropped |
| project | a Lightning checkpoint (``state_dict`` with ``network.*``), or the network's own state dict | the whole network |

Wrapped networks put ``module.`` before every key; that prefix is taken off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ripu.config.targets import check_archive

Layout = Literal["released", "torchvision", "project"]
"""The file layouts that `load_weights` knows."""

NUM_LISTED = 10
"""How many keys of a kind an error message lists."""


class CheckpointError(ValueError):
    """A weights file that cannot be read, is of no known layout or does not fit the network."""


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> Layout:
    """Load a weights file into a network, in place and strictly.

    The layout is told from the keys in the file. Training state that lies beside the weights (optimisers, iteration)
    is ignored. Nothing is changed in the network unless everything fits.

    Args:
        network: Any network of the project. The layouts ``released`` and ``torchvision`` need a DeepLab network, i.e.
            one with a ``backbone`` and a ``head``.
        path: The file.

    Returns:
        The layout found. After ``torchvision`` the head is still as it was initialised.

    Raises:
        CheckpointError: The file is missing, unreadable, of no known layout, or does not fit; the message lists the
            entries that are missing, unexpected or of another shape.
    """
    layout, state = _identify(read_checkpoint(path), network, path)
    if layout == "torchvision":
        load_strictly(_backbone(network, path), state, path)
    else:
        load_strictly(network, state, path)
    return layout


def model_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``model`` of the configuration that a checkpoint of this package was trained with; empty of other files.

    Raises:
        CheckpointError: The file is missing or unreadable.
    """
    found: Any = read_checkpoint(path)
    for key in ("hyper_parameters", "config", "model"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def load_backbone(backbone: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a torchvision ResNet file into a backbone, in place and strictly; its ``fc`` layer is dropped.

    Args:
        backbone: A backbone with torchvision's names.
        path: The file.

    Raises:
        CheckpointError: The file is missing, unreadable, not a torchvision ResNet file, or does not fit.
    """
    content = read_checkpoint(path)
    state = _strip_wrapper(content)
    if not _is_torchvision(state):
        raise CheckpointError(
            f"{path} is not a torchvision ResNet file (no 'conv1.weight' and 'layer1.0.conv1.weight'); {_found(content)}. "
            "The backbone starts from such a file; a trained network is loaded as a checkpoint instead"
        )
    load_strictly(backbone, _torchvision_state(state), path)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code from it.

    Args:
        path: A file written by ``torch.save``.

    Returns:
        The dictionary in the file.

    Raises:
        CheckpointError: The file is missing, damaged, holds anything but tensors and plain values, or is no dictionary
            with string keys.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder; give a file, of a run checkpoints/final.ckpt in its folder")
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist or is not a file; give the path of a checkpoint")
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of arbitrary bytes makes the reader fail with nearly any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "the file is empty or cut off"
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {type(error).__name__}: {reason}. It is damaged (fetch it again) or "
            "holds objects other than tensors and plain values, which are refused because loading them can run code"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of named weights")
    return dict(content)


def to_released(network: nn.Module, iteration: int = 0) -> dict[str, Any]:
    """The weights of a DeepLab network in the layout of the authors' released files.

    Args:
        network: A network with a ``backbone`` and a ``head``.
        iteration: The training step to write beside the weights.

    Returns:
        A dictionary with ``feature_extractor``, ``classifier`` and ``iteration``, ready for ``torch.save``.

    Raises:
        CheckpointError: The network has other parts than a ``backbone`` and a ``head``.
    """
    state = network.state_dict()
    feature_extractor = {key: value for key, value in state.items() if key.startswith("backbone.")}
    classifier = {key.removeprefix("head."): value for key, value in state.items() if key.startswith("head.")}
    if not feature_extractor or not classifier or len(feature_extractor) + len(classifier) != len(state):
        raise CheckpointError(
            f"{type(network).__name__} has no released layout; only networks made of a 'backbone' and a 'head' do, "
            "i.e. DeepLabV2 and DeepLabV3Plus"
        )
    return {"feature_extractor": feature_extractor, "classifier": classifier, "iteration": iteration}


def save_new(content: Mapping[str, Any], out: Path) -> None:
    """Write a file of weights, which appears only once it is complete.

    Args:
        content: What to write.
        out: The file; see :func:`check_new`.

    Raises:
        OSError, RuntimeError: It cannot be written; nothing is left behind.
    """
    part = out.with_name(f"{out.name}.part")
    try:
        torch.save(dict(content), part)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def check_new(out: Path) -> None:
    """Refuse a file to write that is there already.

    Raises:
        CheckpointError: It is.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already; remove it or choose another name")


def load_strictly(module: nn.Module, state: Mapping[str, Any], source: str | os.PathLike[str]) -> None:
    """Load a state dict that has to fit exactly.

    Args:
        module: The module to load into, in place; left as it was if anything does not fit.
        state: Name -> tensor.
        source: Where ``state`` came from, for the error message.

    Raises:
        CheckpointError: Entries are missing, unexpected, no tensors or of another shape; the message counts them and
            lists the first ten of each kind.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    other = [key for key in own if key in state and _shape(own[key]) != _shape(state[key])]
    if missing or unexpected or other:
        reshaped = [f"{key} (file {_shape(state[key])}, network {_shape(own[key])})" for key in other]
        kinds = {"missing from the file": missing, "not in the network": unexpected, "of another shape": reshaped}
        lists = [f"  {len(keys)} {kind}: {_first(keys)}" for kind, keys in kinds.items() if keys]
        hint = "" if missing or unexpected else _class_hint(module, own, state, other)
        raise CheckpointError("\n".join([f"{source} does not fit {type(module).__name__}:", *lists]) + hint)
    module.load_state_dict(dict(state))


def _identify(
    content: Mapping[str, Any], network: nn.Module, path: str | os.PathLike[str]
) -> tuple[Layout, dict[str, Any]]:
    """The layout of a file and its weights under the network's (for ``torchvision``: the backbone's) names."""
    extractor, classifier, wrapped = (content.get(key) for key in ("feature_extractor", "classifier", "state_dict"))
    if isinstance(extractor, Mapping) and isinstance(classifier, Mapping):
        head = {f"head.{key}": value for key, value in _strip_wrapper(classifier).items()}
        return "released", _without_counters({**_strip_wrapper(extractor), **head})
    if isinstance(wrapped, Mapping):
        state = {key.removeprefix("network."): wrapped[key] for key in wrapped if key.startswith("network.")}
        if not state:
            raise CheckpointError(
                f"{path} is a Lightning checkpoint, but not of this project: no weight in its state_dict starts with "
                f"'network.'; {_found(wrapped)}"
            )
        return "project", _strip_wrapper(state)
    state = _strip_wrapper(content)
    if state.keys() & network.state_dict().keys():
        return "project", state
    if _is_torchvision(state):
        return "torchvision", _torchvision_state(state)
    raise CheckpointError(
        f"{path} is of no known layout: neither the released one ('feature_extractor' and 'classifier'), nor a Lightning "
        f"checkpoint ('state_dict'), nor a torchvision ResNet, nor weights of {type(network).__name__}; {_found(content)}"
    )


def _backbone(network: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"{path} is a torchvision ResNet file, which holds a backbone of DeepLabV2 or DeepLabV3Plus; "
            f"{type(network).__name__} has no such backbone"
        )
    return backbone


def _is_torchvision(state: Mapping[str, Any]) -> bool:
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def _torchvision_state(state: Mapping[str, Any]) -> dict[str, Any]:
    return _without_counters({key: value for key, value in state.items() if key not in ("fc.weight", "fc.bias")})


def _without_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    # Batch norms that were not frozen count their batches; a frozen one has no use for it.
    return {key: value for key, value in state.items() if not key.endswith(".num_batches_tracked")}


def _strip_wrapper(state: Mapping[str, Any]) -> dict[str, Any]:
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:NUM_LISTED]) + (", ..." if len(keys) > NUM_LISTED else "")


def _found(state: Mapping[str, Any]) -> str:
    return f"found {len(state)} entries: {_first(list(state))}" if state else "it is empty"


def _class_hint(module: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Any], keys: list[str]) -> str:
    """A remedy where the number of classes explains every shape that differs."""
    num_classes = getattr(module, "num_classes", None)
    if not all(isinstance(state[key], Tensor) and state[key].ndim == own[key].ndim > 0 for key in keys):
        return ""
    classes = {state[key].shape[0] for key in keys}
    same_otherwise = all(state[key].shape[1:] == own[key].shape[1:] for key in keys)
    if len(classes) == 1 and same_otherwise and {own[key].shape[0] for key in keys} == {num_classes}:
        return f"\nThe file has {classes.pop()} classes and the network {num_classes}: choose the data set it was trained for"
    return ""
