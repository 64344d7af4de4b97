"""Time of a training step of each objective, beside the bare forward and backward passes of the network.

    python scripts/bench_training.py dataset=streets                        # the recipe of a data set
    python scripts/bench_training.py dataset=streets optimizer=adamw --repeats 20

"bare" is the network's forward pass on the source batch and on the target batch, and the backward pass from the mean of
the logits. A step is the terms of the loss, their backward passes, the check that everything is finite, the optimiser,
and, with the teacher, the moving average. All take turns, so a busy machine affects them alike; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from bench import cpu_name
from ripu.config.nodes import plain
from ripu.config.spec import RunSpec, make_spec
from ripu.config.validate import config_dir
from ripu.module import RipuModule
from ripu.run.assembly.network import make_module
from ripu.run.memory import keep_freed_memory
from ripu.training.step_failure import gradient_norms

OBJECTIVES = ("ripu", "ripu_teacher")


def make_batches(spec: RunSpec, device: torch.device) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def part(count: int, size: tuple[int, int], revealed: float) -> dict[str, Tensor]:
        label = torch.randint(0, spec.dataset.num_classes, (count, *size), generator=generator, dtype=torch.uint8)
        label[torch.rand(label.shape, generator=generator) > revealed] = 255
        image = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
        return {"image": image.to(device), "label": label.to(device)}

    data = spec.data
    return {
        "source": part(data.source_batch, data.source_size, 1.0),
        "target": part(data.target_batch, data.target_size, 0.02),
    }


def bare(module: RipuModule, batch: dict[str, dict[str, Tensor]]) -> None:
    for part in batch.values():
        module(part["image"]).mean().backward()
    module.network.zero_grad()


def step(module: RipuModule, optimizer: torch.optim.Optimizer, batch: dict[str, dict[str, Tensor]]) -> None:
    for domain in batch:
        terms = module.domain_loss(batch, domain, is_adapting=True)
        torch.stack(list(terms.values())).sum().backward()
    finite = torch.isfinite(torch.stack(gradient_norms(module.network, module.device)))
    assert bool(finite.all())
    optimizer.step()
    optimizer.zero_grad()
    if module.average is not None:
        module.average.move(module.network, 100)


def seconds(run: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("words", nargs="*", help="keys of ripu.train, e.g. dataset=camvid model=segformer_b0")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    runs: dict[str, Callable[[], None]] = {}
    for name in OBJECTIVES:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = compose("train", [*arguments.words, f"objective={name}", "paths.output_dir=unused"])
        spec = make_spec(plain(cfg))
        module = make_module(spec).to(device).train()
        batch, optimizer = make_batches(spec, device), module.optimization.optimizer(module.network)
        runs.setdefault("bare", lambda module=module, batch=batch: bare(module, batch))  # type: ignore[misc]
        runs[name] = lambda module=module, optimizer=optimizer, batch=batch: step(module, optimizer, batch)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(arguments.repeats + 2):
        for name, run in runs.items():
            torch.manual_seed(repeat)
            time_taken = seconds(run, device)
            if repeat >= 2:
                taken[name].append(time_taken)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    print(f"{where}, {torch.get_num_threads()} threads, {arguments.repeats} repeats, {' '.join(arguments.words)}")
    base = statistics.median(taken["bare"])
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:<14} {middle * 1e3:8.0f} ms   {middle / base:5.2f} x bare   {min(values) * 1e3:8.0f} ms at least")


if __name__ == "__main__":
    main()
