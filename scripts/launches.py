"""Launches, transfers and bytes of the selection of one image by the kernels for CUDA; needs Triton, but no GPU.

    python scripts/launches.py

Counted by running the host's side of the selection at 1024 x 2048 (--size), with every kernel replaced by a counter.
"bytes" is the size of all tensors that a launch is given, each counted once per launch: what has to be moved if every
tensor is read or written whole, once. torch's operations are counted as one launch each (a sort is several), without
those that only make or view tensors.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench import NUM_CLASSES, Case, baseline, make_logits
from ripu.acquisition import RipuScore
from ripu.functional import fused
from ripu.functional.fused import cuda
from ripu.functional.fused.cuda import maps, picks, windows

SIZE = (1024, 2048)
FREE = {"empty", "view", "slice", "select", "detach", "expand", "as_strided", "unsqueeze", "alias", "split", "unbind"}
"""Operations that launch nothing."""


class Count(TorchDispatchMode):
    """Counts torch's operations and the bytes of their tensors until ``is_on`` is false."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes, self.transfers, self.is_on = 0, 0, True

    def add(self, name: str, tensors: list[Tensor]) -> None:
        self.launches[name] += 1
        places = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
        self.bytes += sum(places.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.strip("_")
        if self.is_on and name not in FREE and not name.startswith(("empty", "view", "unsafe_view", "reshape")):
            leaves = tree_leaves((args, kwargs, result))
            self.add(f"torch.{name}", [leaf for leaf in leaves if isinstance(leaf, Tensor)])
        return result


@contextmanager
def counted(count: Count) -> Iterator[None]:
    """Let kernels count instead of compute, and the first copy to the host end the count."""

    def replace(module: ModuleType, name: str) -> tuple[Any, str, Any]:
        kernel = getattr(module, name)
        before = kernel.run
        kernel.run = lambda *args, **_: count.add(name.strip("_"), [one for one in args if isinstance(one, Tensor)])
        return kernel, "run", before

    def cpu(tensor: Tensor) -> Tensor:
        count.transfers += 1
        count.is_on = False
        return before_cpu(tensor)

    before_cpu, before_check = Tensor.cpu, maps.Finite.check
    before_fused = fused.is_used, fused.kernels_on
    undo = [
        replace(module, name) for module in (maps, windows, picks) for name in vars(module) if name.endswith("_kernel")
    ]
    Tensor.cpu = cpu  # type: ignore[assignment,method-assign]
    fused.is_used, fused.kernels_on = lambda *tensors: True, lambda device: cuda  # type: ignore[assignment]
    maps.Finite.check = lambda finite: None  # type: ignore[method-assign]  # of the host
    try:
        with count:
            yield
    finally:
        Tensor.cpu = before_cpu  # type: ignore[method-assign]
        fused.is_used, fused.kernels_on = before_fused
        maps.Finite.check = before_check  # type: ignore[method-assign]
        for kernel, name, before in undo:
            setattr(kernel, name, before)


def selection(logits: Tensor, case: Case) -> tuple[Count, Count]:
    """Return the counts of maps and of picks."""
    score = RipuScore(case.radius, case.pixel)
    parts = Count(), Count()
    found: list[Any] = []

    def choose() -> None:
        scored = found[0]
        parts[1].is_on = True
        wanted = [scored.score[0], scored.impurity[0], scored.uncertainty[0]]
        rule = (case.num_picks, case.suppress_radius, None, scored.tie_break[0])
        picks.greedy_places(scored.score[0], *rule, wanted)

    steps: tuple[Callable[[], object], ...] = (lambda: found.append(score(logits, case.size, [0])), choose)
    for count, step in zip(parts, steps, strict=True):
        with counted(count):
            step()
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"), help="of the image")
    height, width = parser.parse_args().size
    size = (height, width)
    cases = (Case(size, 1, False), Case(size, 4, False), Case(size, 32, True))
    print(f"one image of {height} x {width}, {NUM_CLASSES} classes, logits at 5/8 of it in float32")
    logits = make_logits(size, torch.device("cpu"))
    with torch.inference_mode(), Count() as least:
        baseline(logits, cases[0])
    print(f"T0: {sum(least.launches.values())} operations of torch, {least.bytes / 1e6:.0f} MB")
    for case in cases:
        selection(logits, case)  # tables are made and sent once
        for name, count in zip(("maps", "picks"), selection(logits, case), strict=True):
            kernels = sum(number for kind, number in count.launches.items() if kind.endswith("_kernel"))
            other = sum(count.launches.values()) - kernels
            mode = f"{'PA' if case.pixel else 'RA'}, k = {case.radius}, {case.num_picks} picks"
            print(
                f"{mode}: {name}: {kernels} kernels, {other} operations of torch, {count.transfers} transfers, "
                f"{count.bytes / 1e6:.0f} MB"
            )
            print("    " + ", ".join(f"{number} {kind}" for kind, number in sorted(count.launches.items())))


if __name__ == "__main__":
    main()
