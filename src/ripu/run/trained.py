"""Trained networks ready for use: of a run, a checkpoint or an exported file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.config.nodes import instantiate
from ripu.config.spec import RunSpec
from ripu.config.targets import accept_stored
from ripu.io.console import without_folders
from ripu.io.errors import ConfigError
from ripu.io.reading import read_json
from ripu.run import restore

if TYPE_CHECKING:  # torch takes long to import: only when something is read
    import torch

    from ripu.inference.description import Description
    from ripu.inference.trained_network import TrainedNetwork
    from ripu.training.evaluation_module import EvaluationModule


@dataclass(frozen=True)
class Trained:
    """A network with what its use needs.

    Attributes:
        module: Maps raw images (B, 3, H, W) uint8 to logits, in evaluation mode.
        description: The classes, sizes and preprocessing.
        sha256: Digest of the file that contains the weights.
    """

    module: EvaluationModule
    description: Description
    sha256: str


def open_trained(given: str, device: torch.device) -> Trained:
    """Open what a user names: the folder of a run, a checkpoint, an exported ONNX file or an exported folder.

    Raises:
        ConfigError: It does not exist, is damaged, or is something else.
    """
    path = restore.checkpoint_path(given)
    from ripu.models.checkpoints import file_digest

    if path.suffix in (".onnx", ".safetensors"):
        from ripu.inference.onnx_network import OnnxNetwork
        from ripu.training.evaluation_module import EvaluationModule

        network: Any = OnnxNetwork(path, device) if path.suffix == ".onnx" else read_model_folder(path.parent)
        found = EvaluationModule(network, network.description.taxonomy)
        return Trained(found.to(device).eval(), network.description, file_digest(path))
    spec, module = restore.restore(path)
    return Trained(module.to(device).eval(), describe(spec, module), file_digest(path))


def read_model_folder(folder: Path) -> Any:
    """Return the network of an exported folder, with its :class:`Description` as ``description``.

    Raises:
        ConfigError: A file is missing, damaged or of another program, or names other code than a network.
    """
    from ripu.inference.description import CONFIG, WEIGHTS, read_description
    from ripu.inference.onnx_network import check_installed

    check_installed("safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ripu.run.assembly.network import takes

    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    if not isinstance(config, Mapping) or not isinstance(config.get("network"), Mapping) or "ripu" not in config:
        raise ConfigError(f"{folder / CONFIG} is missing, or not written by ripu.export; export the network again")
    described = read_description(config["ripu"], folder / CONFIG)
    node = accept_stored({"model": config["network"]}, folder / CONFIG)["model"]
    if takes(str(node["_target_"]), "pretrained"):
        node["pretrained"] = False
    if (num_bands := described.image_reader.num_bands) != 3:
        node["in_channels"] = num_bands
    network = instantiate(node)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"{folder / WEIGHTS} is damaged, or does not fit {CONFIG} ({str(error).splitlines()[0]}); copy or export "
            "it again"
        ) from error
    network.mean, network.std, network.description = described.mean, described.std, described
    return network.eval()


def describe(spec: RunSpec, module: EvaluationModule) -> Description:
    """Return the description of a run's network, without its origin."""
    from ripu.inference.description import Description

    network: Any = module.network
    mode = spec.config["mode"]
    return Description(
        taxonomy=spec.taxonomy,
        target_size=spec.data.target_size,
        mean=tuple(map(float, network.mean)),
        std=tuple(map(float, network.std)),
        radius=int(mode["radius"]),
        pixel=bool(mode["pixel"]),
        flip=spec.evaluation.flip,
        fit=spec.data.fit,
        image_reader=spec.data.image_reader,
    )


def open_for_export(given: str) -> tuple[RunSpec, torch.nn.Module, Description]:
    """Read the network of a run or checkpoint on the CPU, in evaluation mode, with its description and origin.

    Adapters are merged into the weights that they belong to.
    """
    from ripu.models.lora import merge_adapters

    path = restore.checkpoint_path(given)
    stored = restore.read_checkpoint(path)
    spec = restore.restored_spec(stored)
    spec = replace(spec, trainer=replace(spec.trainer, compile=False, channels_last=False))
    module = restore.restored_module(spec, stored).eval()
    described = replace(describe(spec, module), origin=_origin(path, spec, stored))
    merge_adapters(module.network)
    return spec, module.network, described


_FIGURES = ("mIoU", "per_class_iou", "labelled_fraction")


def _origin(path: Path, spec: RunSpec, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts about the checkpoint and its run; the run's figures belong to its final checkpoint."""
    from ripu.models.checkpoints import file_digest
    from ripu.run.trainer import provenance

    found: dict[str, Any] = {
        "checkpoint": path.name,
        "checkpoint_sha256": file_digest(path),
        "step": stored.get("global_step"),
        "dataset": spec.dataset.name,
        "setting": spec.setting.name,
        "mode": spec.mode,
        **spec.scores,
        "seed": spec.seed,
        "exported_by": provenance()["version"],
    }
    record = path.parent.parent / "results.json"
    if path.parent.name != "checkpoints" or not record.is_file():
        return found
    results = read_json(record)
    if not isinstance(results, dict):
        return found
    made = results.get("provenance")
    if isinstance(made, dict):
        found |= {key: made.get(key) for key in ("version", "commit")}
        command = made.get("command")
        found["command"] = without_folders(command) if isinstance(command, str) else None
    if path.name == "final.ckpt":
        found |= {key: results[key] for key in _FIGURES if key in results}
    return found


def load(trained: str | os.PathLike[str], device: str | None = None) -> TrainedNetwork:
    """Open a trained network, to predict images from Python.

    Args:
        trained: The folder of a run, one of its checkpoints, or an ONNX file or folder that ``python -m ripu.export``
            has written.
        device: ``cpu``, ``gpu``, ``cuda`` or ``mps``; None: a GPU if there is one.

    Returns:
        A network whose ``predict(image)``, ``uncertainty(image)`` and ``score(image)`` return (H, W) arrays.

    Raises:
        ConfigError: The file does not exist, is damaged, or is something else; or the device does not exist.
    """
    from ripu.inference.trained_network import TrainedNetwork
    from ripu.run.device import make_device

    chosen = make_device(device or "auto")
    found = open_trained(os.fspath(trained), chosen)
    return TrainedNetwork(found.module, chosen, found.description)
