"""Export a trained DeepLab network to the layout of the authors' released files.

    python scripts/export_checkpoint.py runs/mine/checkpoints/final.ckpt mine.pth
    python scripts/export_checkpoint.py weights.pth mine.pth --model deeplabv2_r101 --num-classes 19

The input is a checkpoint of a training run, which knows its network, or a plain state dict. The output contains the
dictionaries ``feature_extractor`` and ``classifier`` and the training step, which is what the authors' test script
reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ripu.models.checkpoints import CheckpointError, check_new, load_weights, read_checkpoint, save_new, to_released
from ripu.models.deeplabv2 import DeepLabV2
from ripu.models.deeplabv3plus import DeepLabV3Plus

NETWORKS = {"deeplabv2_r101": DeepLabV2, "deeplabv3plus_r101": DeepLabV3Plus}


def export(checkpoint: Path, out: Path, model: str | None = None, num_classes: int | None = None) -> None:
    """Write ``checkpoint`` to ``out`` in the released layout.

    Args:
        checkpoint: A Lightning checkpoint or a state dict of this project.
        out: The file to write; it must not exist yet. It appears only once it is complete.
        model: A key of `NETWORKS`; None for that of the run.
        num_classes: Number of classes that the network was trained with; None for that of the run.

    Raises:
        CheckpointError: The checkpoint does not fit the network or contains only a backbone, or ``out`` exists.
    """
    check_new(out)
    content = read_checkpoint(checkpoint)
    if model is None or num_classes is None:
        known_model, known_classes = network_of(content, checkpoint)
        model, num_classes = model or known_model, num_classes or known_classes
    network = NETWORKS[model](num_classes)
    if load_weights(network, checkpoint) == "torchvision":
        raise CheckpointError(f"{checkpoint} contains an ImageNet backbone without a head; there is nothing to export")
    step = content.get("global_step", content.get("iteration", 0))
    save_new(to_released(network, step), out)


def network_of(content: Mapping[str, Any], checkpoint: Path) -> tuple[str, int]:
    """Return the model and the number of classes that a checkpoint of a run records.

    Raises:
        CheckpointError: It is not a checkpoint of a run, or of another network.
    """
    try:
        config = content["hyper_parameters"]["config"]
        target, num_classes = str(config["model"]["_target_"]), int(config["dataset"]["num_classes"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{checkpoint} does not say what its network is; give --model and --num-classes"
        ) from None
    for name, network in NETWORKS.items():
        if target == f"{network.__module__}.{network.__name__}":
            return name, num_classes
    raise CheckpointError(f"{checkpoint} is of the network {target}; only {', '.join(NETWORKS)} have a released layout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a training run")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--model", choices=sorted(NETWORKS), help="if the input is not a checkpoint of a run")
    parser.add_argument("--num-classes", type=int, help="if the input is not a checkpoint of a run, e.g. 19")
    options = parser.parse_args(arguments)
    try:
        export(options.checkpoint, options.out, options.model, options.num_classes)
    except (CheckpointError, OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a missing folder
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
