"""Memory that the published training step holds for its backward pass, counted on a CPU.

    python scripts/activations.py

Runs the forward pass and the losses of one domain at two small sizes and counts the bytes that autograd keeps (each
storage once, without parameters). Some grow with the number of pixels; in half precision, copies of the weights do not.
Two sizes separate the two, and the published size follows. Parameters, gradients and momentum (printed), temporary
buffers of the backward pass and the libraries' own memory come on top.
"""

from __future__ import annotations

import argparse
import math
from contextlib import nullcontext
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from ripu.config.nodes import plain
from ripu.config.spec import make_spec
from ripu.config.validate import config_dir
from ripu.module import RipuModule
from ripu.run.assembly.network import make_module

SIZES = ((96, 160), (160, 256))
"""(height, width), multiples of the stride of 8 at every layer."""

MODELS = ("deeplabv2_r101", "deeplabv3plus_r101")


def kept_bytes(module: RipuModule, domain: str, size: tuple[int, int], precision: str) -> int:
    """Count the bytes that one image of a domain holds for the backward pass."""
    own = {one.untyped_storage().data_ptr() for one in module.parameters()}
    seen: dict[int, int] = {}
    alive: list[Any] = []  # keeps storages from being reused

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8),
        "label": torch.randint(0, 19, (1, *size), generator=generator, dtype=torch.uint8),
    }
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        terms = module.domain_loss({domain: batch}, domain, is_adapting=True)
    assert terms
    return sum(seen.values())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args()
    head = f"{'model':<20}{'precision':<12}{'domain':<8}{'size':>12}{'GiB an image':>14}"
    print(f"{head}{'GiB of copies':>16}{'weights, gradients, momentum':>30}")
    for model in options.model:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = compose("train", ["dataset=gtav", f"model={model}", "model.weights=null"])
        module = make_module(make_spec(plain(cfg))).train()
        fixed = 3 * sum(one.numel() * one.element_size() for one in module.parameters()) / 2**30
        for precision in ("32-true", "bf16-mixed"):
            for domain in ("source", "target"):
                height, width = cfg.data[f"{domain}_size"]
                few, many = (kept_bytes(module, domain, small, precision) for small in SIZES)
                by_pixel = (many - few) / (math.prod(SIZES[1]) - math.prod(SIZES[0]))
                kept = by_pixel * height * width
                copies = max(0.0, few - by_pixel * math.prod(SIZES[0]))
                size = f"{height} x {width}"
                line = f"{model:<20}{precision:<12}{domain:<8}{size:>12}{kept / 2**30:>14.2f}"
                print(f"{line}{copies / 2**30:>16.2f}{fixed:>30.2f}", flush=True)


if __name__ == "__main__":
    main()
