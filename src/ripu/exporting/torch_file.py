"""Export by ``torch.export``: a graph that needs PyTorch but neither this package nor the network's code."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ripu.exporting.comparison import ExportError, compare, refused
from ripu.inference.description import Description
from ripu.inference.onnx_network import KEY
from ripu.inference.photo_prediction import MIN_SIDE
from ripu.io.writing import write_bytes


def write_torch_export(network: nn.Module, description: Description, out: Path) -> float:
    """Write a network with free batch size, height and width, once it has been reproduced.

    Sides are multiples of what the network pads to, because ``torch.export`` finds no free sizes in padding. With
    ``fixed_size``, only the batch size is free. ``torch.export.load(FILE, extra_files={"ripu": ""})`` reads the file,
    and the description into that entry.

    Args:
        network: Maps normalised images (B, 3, H, W) to logits (B, C, H, W); on the CPU, in evaluation mode.
        description: Goes into the file, with the multiple.
        out: The file.

    Returns:
        The largest difference of a logit; see :func:`ripu.exporting.comparison.compare`.

    Raises:
        ExportError: The network cannot be exported, or the exported one computes something else.
        WriteError: The file cannot be written; nothing is left behind.
    """
    shapes: dict[int, Any] = {0: torch.export.Dim("batch")}
    side = description.fixed_size
    if side is None:
        multiple = int(getattr(network, "multiple", 1))
        description = replace(description, multiple=multiple)
        least = max(2, -(-MIN_SIDE // multiple))
        height, width = (torch.export.Dim(name, min=least) for name in ("height", "width"))
        shapes |= {2: height * multiple, 3: width * multiple} if multiple > 1 else {2: height, 3: width}
        side = ((least + 1) * multiple, (least + 2) * multiple)
    try:
        _check_padding(network, description)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            image = torch.zeros(2, len(description.mean), *side)
            program = torch.export.export(network, (image,), dynamic_shapes=(shapes,), strict=False)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={KEY: json.dumps(description.to_dict())})
        buffer.seek(0)
        difference = compare(network, torch.export.load(buffer).module(), description)
    except ExportError:
        raise
    except Exception as error:  # operations fail to be traced, and guards on sizes fail, in many ways
        raise refused(error, description) from error
    write_bytes(out, buffer.getvalue())
    return difference


def _check_padding(network: nn.Module, description: Description) -> None:
    """Refuse convolutions that compute their padding from the size, on which ``torch.export`` works without an end."""
    names = [name for name, module in network.named_modules() if type(module).__name__.endswith("Conv2dSame")]
    if description.fixed_size is None and names:
        raise ValueError(f"{names[0]} computes its padding from the size of the image")
