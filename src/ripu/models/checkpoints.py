"""The one reader of weights and checkpoints: whole networks, and encoders to start from.

No file is trusted: nothing in it is run, and the weights have to fit the network exactly. Files with encoders have many
layouts (:mod:`ripu.models.layouts`); those of whole networks are

| layout | content | loaded |
|---|---|---|
| released | dicts ``feature_extractor`` (``backbone.*``) and ``classifier`` | the DeepLab network |
| torchvision | ``conv1.weight``, ``bn1.*``, ``layer1.0.*`` ... ``fc.*`` | the backbone; ``fc`` is dropped |
| project | a Lightning checkpoint (``state_dict`` with ``network.*``) or a state dict | the (averaged) network |

A ``module.`` before every key, which wrapped networks add, is removed. A file that ends in ``.safetensors`` is read as
such, any other as one that ``torch.save`` wrote.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ripu.io.errors import ConfigError
from ripu.io.writing import AtomicFile, writing
from ripu.models.average import averaged_weights
from ripu.models.bands import adapted
from ripu.models.layouts import HEADS, encoder_state
from ripu.models.lora import fit_adapters

_log = logging.getLogger(__name__)

Layout = Literal["released", "torchvision", "project"]
StrPath = str | os.PathLike[str]

_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


class CheckpointError(ConfigError):
    """A weights file that cannot be read, has no known layout or does not fit the network."""


def read_checkpoint(path: StrPath) -> dict[str, Any]:
    """Read a file of weights onto the CPU without running any code from it.

    Raises:
        CheckpointError: The file is missing or damaged, contains anything but tensors and plain values, or is not a
            dictionary with string keys.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder; name a file, e.g. checkpoints/final.ckpt in the folder of a run")
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist or is not a file; give the path of a checkpoint")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make the reader fail with nearly any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "the file is empty or cut off"
        cause = f": {type(error).__name__}: {reason}"
        if isinstance(error, pickle.UnpicklingError):  # its advice is to load the file without this protection
            cause = ""
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint{cause}. It is damaged (fetch it again), not a checkpoint, or "
            "contains objects other than tensors and plain values, which are refused because loading them can run code"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} contains a {type(content).__name__}, not a dictionary of named weights")
    return dict(content)


def read_run_checkpoint(path: StrPath) -> dict[str, Any]:
    """Read a checkpoint that ``ripu.train`` has written, ``RUN/checkpoints/*.ckpt``.

    Its ``["hyper_parameters"]["config"]``, the configuration of the run, is not to be trusted before it is checked.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, or the file contains no configuration.
    """
    stored = read_checkpoint(path)
    if _entry(stored, "hyper_parameters", "config") is None:
        raise CheckpointError(f"{path} was not written by ripu.train; give RUN/checkpoints/*.ckpt")
    return stored


def step_of(path: Path) -> int:
    """Return the training step of a checkpoint from its name, ``step-00000012.ckpt``."""
    return int(path.stem.partition("-")[2])


def newest_checkpoint(folder: Path, below: int | None = None) -> Path | None:
    """Return the newest whole checkpoint in a run's ``checkpoints`` folder, of a step below ``below`` if it is given.

    Beside every ``step-*.ckpt`` lies its SHA-256, so unfinished and changed files are recognised and skipped with a
    warning. None if no file is left.
    """
    for path in sorted(folder.glob("step-[0-9]*.ckpt"), reverse=True):
        if below is not None and step_of(path) >= below:
            continue
        record = path.with_suffix(".sha256")
        if record.exists() and record.read_text("utf-8").strip() == file_digest(path):
            return path
        _log.warning("checkpoint %s is damaged or was not finished; going back to the one before", path)
    return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_of(path: StrPath) -> dict[str, Any]:
    """Return the ``model`` node of the configuration in a checkpoint; empty for files without a configuration.

    Raises:
        CheckpointError: As :func:`read_checkpoint`.
    """
    model = _entry(read_checkpoint(path), "hyper_parameters", "config", "model")
    return dict(model) if isinstance(model, Mapping) else {}


def _check_archive(path: StrPath) -> None:
    """Refuse an archive with compressed parts: PyTorch writes none, and a few bytes of them can fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ConfigError(f"the archive is damaged ({error})") from error
    if packed:
        raise ConfigError(f"its part {packed[0]} is compressed, which PyTorch never does; it is not unpacked")


def load_weights(network: nn.Module, path: StrPath) -> Layout:
    """Load a weights file into a network, in place and strictly.

    The keys in the file tell its layout. Training state beside the weights (optimisers, iteration) is ignored. The
    network is only changed if everything fits.

    Returns:
        The layout found. After ``torchvision`` the head is still as it was initialised.

    Raises:
        CheckpointError: The file is missing, unreadable, of unknown layout, or does not fit; the message lists the
            entries that are missing, unexpected or of another shape.
    """
    layout, state = _identify(read_checkpoint(path), network, path)
    part: Any = network
    if layout == "torchvision":
        part = getattr(network, "backbone", None)
        if not isinstance(part, nn.Module):
            raise CheckpointError(
                f"{path} is a torchvision ResNet file, i.e. the backbone of DeepLabV2 or DeepLabV3Plus; "
                f"{type(network).__name__} has no such backbone"
            )
    _load_strictly(part, fit_adapters(state, part), path)
    return layout


def is_weights_file(weights: str | None) -> bool:
    """Return whether initial weights are given as a file, not by a name that a library knows."""
    return weights is not None and (Path(weights).suffix in _SUFFIXES or os.sep in weights or Path(weights).is_file())


def load_encoder(encoder: nn.Module, path: StrPath) -> None:
    """Load a file into an encoder, strictly, whatever its layout; see :mod:`ripu.models.layouts`.

    Classifiers and decoders in the file are dropped. The first convolution is adapted to the bands of the encoder; see
    :func:`ripu.models.bands.adapted`.

    Raises:
        CheckpointError: The file is missing, unreadable, of another encoder, or does not fit; the message lists the
            entries that are missing, unexpected or of another shape.
    """
    content, own = read_checkpoint(path), encoder.state_dict()
    state = encoder_state(content, own)
    if not own.keys() & state.keys():
        raise CheckpointError(
            f"{path} has no weights of this encoder, whose first ones are {_first(list(own)[:3])}; {_found(content)}. "
            "model.weights takes the encoder's own file; load a trained network with model.checkpoint instead"
        )
    counters = {key: value for key, value in own.items() if key.endswith(".num_batches_tracked")}
    kept = {
        key: value
        for key, value in (counters | state).items()
        if key in own or not (key.endswith(".num_batches_tracked") or key.partition(".")[0] in HEADS)
    }
    first = next(key for key, value in own.items() if value.ndim == 4)
    if first in kept:
        kept[first] = adapted(kept[first], own[first].shape[1])
    _load_strictly(encoder, kept, path)
    if dropped := len(state) - len(state.keys() & own.keys()):
        _log.info("%s: %d weights of its head were not used", path, dropped)


def _load_strictly(module: nn.Module, state: Mapping[str, Any], source: StrPath) -> None:
    """Load a state dict that has to fit exactly; otherwise list what is missing, unexpected or of another shape."""
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


def to_released(network: nn.Module, iteration: int = 0) -> dict[str, Any]:
    """Return the weights of a DeepLab network in the layout of the authors' released files, for ``torch.save``.

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
    """Write a file of weights, which appears only once it is complete; see :func:`check_new`.

    Raises:
        WriteError: It cannot be written; nothing is left behind.
    """
    with AtomicFile(out) as file, writing(out):
        torch.save(dict(content), file)  # type: ignore[arg-type]  # it only writes and flushes
        file.publish()


def check_new(out: Path) -> None:
    """Raise a CheckpointError if a file exists already."""
    if out.exists():
        raise CheckpointError(f"{out} exists already; remove it or choose another name")


def _entry(content: Any, *keys: str) -> Any:
    """Return a nested entry; None if one of the keys is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _identify(content: Mapping[str, Any], network: nn.Module, path: StrPath) -> tuple[Layout, dict[str, Any]]:
    """Return the layout of a file and its weights under the network's (for ``torchvision``: the backbone's) names."""
    extractor, classifier, wrapped = (content.get(key) for key in ("feature_extractor", "classifier", "state_dict"))
    if isinstance(extractor, Mapping) and isinstance(classifier, Mapping):
        head = {f"head.{key}": value for key, value in _strip_wrapper(classifier).items()}
        return "released", _without_counters({**_strip_wrapper(extractor), **head})
    if isinstance(wrapped, Mapping):
        weights = averaged_weights(wrapped)
        state = {key.removeprefix("network."): weights[key] for key in weights if key.startswith("network.")}
        if not state:
            raise CheckpointError(
                f"{path} is a Lightning checkpoint of another project: no weight in its state_dict starts with "
                f"'network.'; {_found(wrapped)}"
            )
        return "project", _strip_wrapper(state)
    state = _strip_wrapper(content)
    if state.keys() & network.state_dict().keys():
        return "project", state
    if _is_torchvision(state):
        return "torchvision", _torchvision_state(state)
    raise CheckpointError(
        f"{path} is of no known layout: neither the released one ('feature_extractor' and 'classifier'), nor a "
        f"Lightning checkpoint ('state_dict'), nor a torchvision ResNet, nor weights of {type(network).__name__}; "
        f"{_found(content)}"
    )


def _is_torchvision(state: Mapping[str, Any]) -> bool:
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def _torchvision_state(state: Mapping[str, Any]) -> dict[str, Any]:
    return _without_counters({key: value for key, value in state.items() if key not in ("fc.weight", "fc.bias")})


def _without_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    # Batch norms that were not frozen count their batches; frozen ones have no such entry.
    return {key: value for key, value in state.items() if not key.endswith(".num_batches_tracked")}


def _strip_wrapper(state: Mapping[str, Any]) -> dict[str, Any]:
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:10]) + (", ..." if len(keys) > 10 else "")


def _found(state: Mapping[str, Any]) -> str:
    return f"found {len(state)} entries: {_first(list(state))}" if state else "it is empty"


def _class_hint(module: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Any], keys: list[str]) -> str:
    """Return a remedy if the number of classes explains the shape of every entry that differs."""
    num_classes = getattr(module, "num_classes", None)
    if not all(isinstance(state[key], Tensor) and state[key].ndim == own[key].ndim > 0 for key in keys):
        return ""
    classes = {state[key].shape[0] for key in keys}
    same_otherwise = all(state[key].shape[1:] == own[key].shape[1:] for key in keys)
    if len(classes) != 1 or not same_otherwise or {own[key].shape[0] for key in keys} != {num_classes}:
        return ""
    return (
        f"\nThe file has {classes.pop()} classes and the network {num_classes}: choose the data set that the file was "
        "trained for"
    )
