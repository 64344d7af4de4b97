"""Export by ``torch.export``: a graph that needs PyTorch but neither this package nor the network's code."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from ripu.exporting.comparison import ExportError, compare, refused
from ripu.inference.description import Description
from ripu.inference.onnx_network import KEY
from ripu.io.writing import write_bytes


def write_torch_export(network: nn.Module, description: Description, out: Path) -> float:
    """Write a network for one image size and any batch size, once it has been reproduced.

    ``torch.export.load(FILE, extra_files={"ripu": ""})`` reads the file, and the description into that entry.

    Args:
        network: Maps normalised images (B, 3, H, W) to logits (B, C, H, W); on the CPU, in evaluation mode.
        description: Has a ``fixed_size``.
        out: The file.

    Returns:
        The largest difference of a logit; see :func:`ripu.exporting.comparison.compare`.

    Raises:
        ExportError: No size is given, or the network cannot be exported.
        WriteError: The file cannot be written; nothing is left behind.
    """
    if (size := description.fixed_size) is None:
        height, width = description.target_size
        raise ExportError(
            "torch.export does not find free heights and widths in these networks; give one size, e.g. "
            f"size=[{height},{width}], or use format=onnx for any size"
        )
    image = torch.zeros(2, len(description.mean), *size)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # operations fail to be traced in many ways
        raise refused(error, description) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={KEY: json.dumps(description.to_dict())})
    buffer.seek(0)
    difference = compare(network, torch.export.load(buffer).module(), description)
    write_bytes(out, buffer.getvalue())
    return difference
