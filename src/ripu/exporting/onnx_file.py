"""Export to ONNX, for onnxruntime and everything else that reads it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.onnx import symbolic_helper, utils
from torch.onnx.errors import UnsupportedOperatorError

from ripu.exporting.comparison import compare, refused
from ripu.inference.description import Description
from ripu.inference.onnx_network import IMAGE, KEY, LOGITS, open_session, run_session
from ripu.io.console import silent_stdout
from ripu.io.writing import write_bytes

OPSETS = (17, 18)
"""Versions of the operators of files for any size, the first that suffices: what onnxruntime reads since 2022, 2023."""


def write_onnx(network: nn.Module, description: Description, out: Path) -> float:
    """Write a network as ONNX file with free batch size, height and width, once onnxruntime has reproduced it.

    Args:
        network: Maps normalised images (B, 3, H, W) to logits (B, C, H, W); on the CPU, in evaluation mode.
        description: Goes into the metadata. With ``fixed_size``, only the batch size is free.
        out: The file.

    Returns:
        The largest difference of a logit; see :func:`ripu.exporting.comparison.compare`.

    Raises:
        ExportError: The network cannot be exported, or onnxruntime computes something else.
        WriteError: The file cannot be written; nothing is left behind.
    """
    import onnx

    model = onnx.load_model_from_string(_trace(network, description))
    model.producer_name, model.producer_version = "ripu", str(description.origin.get("exported_by", ""))
    model.doc_string = f"Logits of {description.taxonomy.num_classes} classes; the metadata {KEY!r} describes the input"
    onnx.helper.set_model_props(model, {KEY: json.dumps(description.to_dict())})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    session = open_session(content)
    difference = compare(network, lambda image: torch.from_numpy(run_session(session, image)), description)
    write_bytes(out, content)
    return difference


def _trace(network: nn.Module, description: Description) -> bytes:
    """Return the graph of a network.

    For free sizes, by the exporter that records operations as they run: the one built on ``torch.export`` does not find
    free sizes in networks that pad their inputs. For one size by the latter, which folds what depends on the size.
    """
    channels, size = len(description.mean), description.fixed_size
    try:
        with warnings.catch_warnings(), silent_stdout(), torch.no_grad():
            warnings.simplefilter("ignore")  # sizes that become constants show when the networks are compared
            if size is not None:
                program = torch.onnx.export(
                    network,
                    (torch.zeros(2, channels, *size),),
                    dynamo=True,
                    verbose=False,
                    input_names=[IMAGE],
                    output_names=[LOGITS],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                )
                assert program is not None
                return bytes(program.model_proto.SerializeToString())
            return _trace_any_size(network, channels)
    except Exception as error:  # operations fail to convert in many ways
        raise refused(error, description) from error


def _trace_any_size(network: nn.Module, channels: int) -> bytes:
    axes = {0: "batch", 2: "height", 3: "width"}
    name, newest = "aten::_upsample_bicubic2d_aa", OPSETS[-1]
    utils.register_custom_op_symbolic(name, _antialiased_bicubic, newest)
    try:
        for opset in OPSETS:
            buffer = io.BytesIO()
            try:
                torch.onnx.export(
                    network,
                    (torch.zeros(2, channels, 64, 96),),
                    buffer,  # type: ignore[arg-type]  # this exporter writes to files, too
                    dynamo=False,
                    opset_version=opset,
                    input_names=[IMAGE],
                    output_names=[LOGITS],
                    dynamic_axes={IMAGE: axes, LOGITS: axes},
                )
                break
            except UnsupportedOperatorError:
                if opset == newest:
                    raise
    finally:
        utils.unregister_custom_op_symbolic(name, newest)
    return buffer.getvalue()


def _antialiased_bicubic(graph: Any, image: Any, size: Any, *_: Any) -> Any:
    """Return the operator with which position embeddings are resampled to another grid; the exporter lacks it."""

    def constant(*values: int) -> Any:
        return graph.op("Constant", value_t=torch.tensor(values))

    if symbolic_helper._is_packed_list(size):
        sides = [graph.op("Unsqueeze", side, constant(0)) for side in symbolic_helper._unpack_list(size)]
        size = graph.op("Concat", *sides, axis_i=0)
    leading = graph.op("Slice", graph.op("Shape", image), constant(0), constant(2), constant(0))
    whole = graph.op("Concat", leading, size, axis_i=0)
    nothing = graph.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
    return graph.op(
        "Resize", image, nothing, nothing, whole,
        mode_s="cubic", antialias_i=1, cubic_coeff_a_f=-0.5, exclude_outside_i=1,
        coordinate_transformation_mode_s="half_pixel",
    )  # fmt: skip
