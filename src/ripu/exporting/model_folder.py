"""Export to a folder in the layout of Hugging Face's hub: weights, configuration and a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ripu.exporting.comparison import compare
from ripu.inference.description import CONFIG, WEIGHTS, Description
from ripu.inference.onnx_network import check_installed
from ripu.io.writing import publish, write_bytes, write_json, writing

_OF_TRAINING = ("checkpoint", "weights", "pretrained", "train_encoder", "lora_rank")
"""Arguments of networks that say how they begin and what of them is trained."""


def write_model_folder(
    network: nn.Module,
    model: Mapping[str, Any],
    description: Description,
    out: Path,
    reopen: Callable[[Path], nn.Module],
) -> float:
    """Write a network as ``model.safetensors``, ``config.json`` and ``README.md``, once it has been read again.

    Args:
        network: The network, on the CPU, in evaluation mode.
        model: Its ``_target_`` and arguments.
        description: Goes into the configuration and the model card.
        out: The folder, which appears whole or not at all.
        reopen: Reads the network of such a folder.

    Returns:
        The largest difference of a logit between the network and the one that is read again, 0.

    Raises:
        ConfigError: A package is missing.
        ExportError: The network that is read again computes something else.
        WriteError: The folder cannot be written; nothing is left behind.
    """
    check_installed("safetensors")
    from safetensors.torch import save

    half = out.with_name(f".tmp-{out.name}")
    kept = {key: value for key, value in model.items() if key not in _OF_TRAINING}
    state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    try:
        write_bytes(half / WEIGHTS, save(state, {"format": "pt"}))
        write_json(
            half / CONFIG,
            {
                "architectures": [str(kept["_target_"]).rsplit(".", 1)[-1]],
                "model_type": "ripu",
                "network": kept,
                "ripu": description.to_dict(),
            },
        )
        write_bytes(half / "README.md", _card(description).encode())
        difference = compare(network, reopen(half), description)
        with writing(out):
            publish(half, out)
    finally:
        if half.is_dir():
            for file in half.iterdir():
                file.unlink()
            half.rmdir()
    return difference


def _card(description: Description) -> str:
    """Return the model card: the figures of the run, its origin, and how to use the network."""
    origin, classes = dict(description.origin), description.taxonomy.class_names
    figures, per_class = origin.get("mIoU"), origin.get("per_class_iou") or {}
    rows = [f"| {name} | {'-' if (iou := per_class.get(name)) is None else f'{iou:.1f}'} |" for name in classes]
    labelled = origin.get("labelled_fraction")
    facts = {
        "data set": origin.get("dataset"),
        "setting, mode, score": ", ".join(str(origin[key]) for key in ("setting", "mode", "acquisition")),
        "steps": origin.get("step"),
        "seed": origin.get("seed"),
        "labelled pixels of the target": None if labelled is None else f"{100 * float(labelled):.2f} %",
        "mIoU": None if figures is None else f"{float(figures):.2f}",
        "command": None if origin.get("command") is None else f"`{origin['command']}`",
        "commit": origin.get("commit"),
    }
    lines = ["---", "library_name: ripu", "pipeline_tag: image-segmentation", "tags: [semantic-segmentation]"]
    if figures is not None:
        entry = {
            "name": "network",
            "results": [
                {
                    "task": {"type": "image-segmentation"},
                    "dataset": {"type": str(origin.get("dataset")), "name": str(origin.get("dataset"))},
                    "metrics": [{"type": "mean_iou", "value": round(float(figures), 2)}],
                }
            ],
        }
        lines.append(f"model-index: [{json.dumps(entry)}]")
    lines += ["---", "", f"# Segmentation network of {len(classes)} classes", ""]
    lines += ["Trained by region impurity and prediction uncertainty (RIPU, CVPR 2022).", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    lines += ["", "```python", "import ripu", "", 'network = ripu.load("FOLDER")  # this folder']
    lines += ['label = network.predict("image.png")  # (H, W) uint8 indices of the classes below', "```"]
    lines += ["", "| class | IoU (%) |", "|---|---|", *rows, ""]
    return "\n".join(lines)
