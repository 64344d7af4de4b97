"""Export a trained DeepLab network to the layout of the authors' released files.

    python scripts/export_checkpoint.py runs/mine/checkpoints/last.ckpt mine.pth --model deeplabv2_r101 --num-classes 19

The input is a checkpoint of a training run (or a plain state dict of the network). The output holds the dictionaries
``feature_extractor`` and ``classifier`` and the training step, which is what the authors' test script reads.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ripu.models.checkpoints import CheckpointError, load_weights, read_checkpoint, to_released
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.deeplabv3plus import DeepLabV3Plus

NETWORKS = {"deeplabv2_r101": DeepLabV2, "deeplabv3plus_r101": DeepLabV3Plus}


def export(checkpoint: Path, out: Path, model: str, num_classes: int) -> None:
    """Write ``checkpoint`` to ``out`` in the released layout.

    Args:
        checkpoint: A Lightning checkpoint or a state dict of this project.
        out: The file to write; it must not exist yet. It appears only once it is complete.
        model: A key of `NETWORKS`.
        num_classes: Number of classes that the network was trained with.

    Raises:
        CheckpointError: The checkpoint does not fit the network or holds a backbone alone, or ``out`` exists.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already; remove it or choose another name")
    network = NETWORKS[model](num_classes)
    if load_weights(network, checkpoint) == "torchvision":
        raise CheckpointError(f"{checkpoint} holds an ImageNet backbone without a head; there is nothing to export")
    content = read_checkpoint(checkpoint)
    step = content.get("global_step", content.get("iteration", 0))
    part = out.with_name(f"{out.name}.part")
    try:
        torch.save(to_released(network, step), part)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a training run")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--model", required=True, choices=sorted(NETWORKS), help="the run's model")
    parser.add_argument("--num-classes", required=True, type=int, help="the run's number of classes, e.g. 19")
    options = parser.parse_args(arguments)
    try:
        export(options.checkpoint, options.out, options.model, options.num_classes)
    except (CheckpointError, OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a missing folder
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
