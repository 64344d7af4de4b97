"""The networks of ``conf/model`` in figures: parameters, memory to train them, and the time of a step.

    python scripts/networks.py
    python scripts/networks.py dinov2_small segformer_b2 --size 512 1024 --batch 2

For each network, with random weights: millions of parameters of the encoder and of the rest, and for each part that
``model.train_encoder`` can choose the memory in MB of weights, gradients and AdamW's two averages (float32), the memory
of what a forward pass keeps for the backward pass, and the seconds of both passes on this machine's CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ripu.config.nodes import instantiate
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError

PARTS = ("all", "lora", "none")
NUM_CLASSES = 19


def make(name: str, part: str) -> Any:
    """Make the network of a yaml without its weights."""
    node: Any = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "model" / f"{name}.yaml"))
    del node["checkpoint"]
    return instantiate(node | {"num_classes": NUM_CLASSES, "pretrained": False, "train_encoder": part})


def count(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def step(network: Any, image: Tensor) -> tuple[int, float]:
    """Return the bytes that a forward pass keeps beside the weights, and the seconds of both passes."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    begun = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(image).square().mean()
    loss.backward()
    return sum(kept.values()), time.perf_counter() - begun


def row(name: str, part: str, image: Tensor) -> str:
    network = make(name, part)
    backbone = getattr(network, "encoder", None) or network.backbone
    trainable = count(one for group in network.parameter_groups() for one in group)
    total, encoder = count(network.parameters()), count(backbone.parameters())
    kept, seconds = step(network, image)
    cells = [
        f"`{name}`",
        part,
        f"{encoder / 1e6:.1f}",
        f"{(total - encoder) / 1e6:.1f}",
        f"{trainable / 1e6:.1f}",
        f"{(4 * total + 12 * trainable) / 2**20:.0f}",
        f"{kept / 2**20:.0f}",
        f"{seconds:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(words: list[str] | None = None) -> None:
    names = sorted(path.stem for path in (Path(config_dir()) / "model").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks; without any, all of {', '.join(names)}")
    parser.add_argument("--size", nargs=2, type=int, default=[256, 512], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="values of model.train_encoder")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in names]:
        parser.error(f"unknown networks {unknown}; choose among {', '.join(names)}")
    image = torch.rand(given.batch, 3, *given.size)
    print("| `model=` | `train_encoder=` | encoder, M | decoder, M | trained, M | weights, MB | kept, MB | step, s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.names or names:
        for part in given.parts:
            try:
                print(row(name, part, image), flush=True)
            except ConfigError as error:
                if part != "lora":  # encoders without attention have no adapters
                    raise error


if __name__ == "__main__":
    main()
