"""Speed of selection: the engine, the literal method and a plain softmax, side by side.

    python scripts/bench.py            # three sizes, k = 1, 4, 32, regions and pixels
    python scripts/bench.py --quick    # the smallest size
    python scripts/bench.py --forward  # also the forward pass of a network
    python scripts/bench.py --step     # instead: a training step of the default network on this CPU
    python scripts/bench.py --device cuda   # on a GPU

T0 is the least that any method needs: ``interpolate`` to the label size (bilinear, align_corners) and ``softmax``.
"engine" is everything from the logits to the picks; "plain" is the same without the fused kernels (RIPU_FUSED=0), or
"-" where they are not used. "literal" is a direct translation of the equations: softmax and entropy at full size,
one-hot planes, a convolution with a window of ones, one arg-max per pick. Times are wall-clock time, on a GPU until it
is idle. T0 and engine alternate, so a busy machine affects both alike. Peak memory is the growth of the process during
the call, on a GPU the memory allocated there.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, one_hot, pad

from ripu.acquisition import RipuScore
from ripu.functional import (
    for_each,
    fused,
    map_confidence_and_label,
    map_entropy_and_label,
    region_impurity,
    window_mean,
)
from ripu.selection.picks import greedy_picks

NUM_CLASSES = 19
SIZES = ((256, 512), (512, 1024), (1024, 2048))
RADII = (1, 4, 32)


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    radius: int
    pixel: bool

    @property
    def num_picks(self) -> int:
        """Regions: 2.2 % over five rounds. Pixels: 40 over five rounds, counted at 640 x 1280."""
        pixels = self.size[0] * self.size[1]
        if self.pixel:
            return math.ceil(40 / 5 * pixels / (640 * 1280))
        return math.ceil(pixels * 0.022 / 5 / (2 * self.radius + 1) ** 2)

    @property
    def suppress_radius(self) -> int:
        return self.radius if self.pixel else 2 * self.radius


def make_logits(size: tuple[int, int], device: torch.device, seed: int = 0) -> Tensor:
    """Make smooth logits (1, C, h, w) at 5/8 of the size (640 x 1280 for 1024 x 2048), with blobs of all classes."""
    height, width = size[0] * 5 // 8, size[1] * 5 // 8
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, NUM_CLASSES, max(2, height // 16), max(2, width // 16), generator=generator) * 4
    return interpolate(coarse, (height, width), mode="bicubic", align_corners=True).to(device)


def baseline(logits: Tensor, case: Case) -> None:
    interpolate(logits, case.size, mode="bilinear", align_corners=True).softmax(dim=1)


def engine(logits: Tensor, case: Case) -> Tensor:
    maps = RipuScore(case.radius, case.pixel)(logits, case.size, [0])
    assert maps.tie_break is not None
    return greedy_picks(maps.score[0], case.num_picks, case.suppress_radius, tie_break=maps.tie_break[0])


def plain(logits: Tensor, case: Case) -> Tensor:
    before = os.environ.get(fused.SWITCH, "1")
    os.environ[fused.SWITCH] = "0"
    try:
        return engine(logits, case)
    finally:
        os.environ[fused.SWITCH] = before


def window_sums(planes: Tensor, radius: int) -> Tensor:
    """Sum over N_k as a convolution with ones; padded first, as torch takes a slow path where it pads widely itself."""
    num_planes, side = planes.shape[1], 2 * radius + 1
    ones = torch.ones(num_planes, 1, side, side, device=planes.device)
    return conv2d(pad(planes, (radius,) * 4), ones, groups=num_planes)


def literal_score(logits: Tensor, case: Case) -> Tensor:
    probs = interpolate(logits, case.size, mode="bilinear", align_corners=True).softmax(dim=1)
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum(dim=1, keepdim=True)
    planes = one_hot(probs.argmax(dim=1), NUM_CLASSES).permute(0, 3, 1, 2).float().contiguous()
    count = window_sums(planes, case.radius)
    inside = count.sum(dim=1, keepdim=True)
    share = count / inside
    impurity = -(share * share.clamp_min(1e-30).log()).sum(dim=1, keepdim=True)
    uncertainty = entropy if case.pixel else window_sums(entropy, case.radius) / inside
    return (impurity * uncertainty)[0, 0]


def literal_picks(score: Tensor, case: Case) -> list[tuple[int, int]]:
    score, radius, picks = score.clone(), case.suppress_radius, []
    for _ in range(case.num_picks):
        row, column = divmod(int(score.argmax().item()), score.shape[1])
        if score[row, column] == -torch.inf:
            break
        picks.append((row, column))
        score[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = -torch.inf
    return picks


def literal(logits: Tensor, case: Case) -> list[tuple[int, int]]:
    return literal_picks(literal_score(logits, case), case)


def peak_extra_mb(call: Callable[[], object], device: torch.device) -> float | None:
    """Return the peak growth of the resident set or of GPU memory in MB; None if the system does not report it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - allocated) / 2**20
    status = Path("/proc/self/status")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status_kb(status, "VmRSS")
        call()
        return (_status_kb(status, "VmHWM") - before) / 1024
    except (OSError, AttributeError):
        return None


def _status_kb(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))


def timed(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    low, middle, high = (1e3 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{middle:7.1f} ({low:.0f}-{high:.0f})"


def run_case(case: Case, device: torch.device, repeats: int, with_literal: bool) -> None:
    logits = make_logits(case.size, device)
    calls: dict[str, Callable[[Tensor, Case], object]] = {"T0": baseline, "engine": engine}
    if fused.is_used(logits):
        calls["plain"] = plain
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(repeats + 1):  # the first warms up
        for name, call in calls.items():
            seconds = timed(lambda call=call: call(logits, case), device)  # type: ignore[misc]
            if round_number:
                times[name].append(seconds)
    ratio = statistics.median(times["engine"]) / statistics.median(times["T0"])
    memory = peak_extra_mb(lambda: engine(logits, case), device)
    text = f"{case.size[0]:5d} x{case.size[1]:5d}  {'PA' if case.pixel else 'RA'} {case.radius:3d} {case.num_picks:5d}"
    text += f"  {spread(times['T0']):>20}  {spread(times['engine']):>20}  {ratio:6.2f}"
    text += f"  {spread(times['plain']):>20}" if "plain" in times else f"  {'-':>20}"
    text += "       -" if memory is None else f"  {memory:6.0f}"
    if with_literal:
        if device.type == "cuda":
            literal(logits, case)  # warms up
        seconds = timed(lambda: literal(logits, case), device)
        text += f"  {1e3 * seconds:8.0f}  {seconds / statistics.median(times['engine']):7.0f}"
        peak = peak_extra_mb(lambda: literal_score(logits, case), device)
        text += "       -" if peak is None else f"  {peak:6.0f}"
    print(text, flush=True)


def run_stages(size: tuple[int, int], device: torch.device, repeats: int) -> None:
    """Time the stages, and the floor: the exponentials alone."""
    logits = make_logits(size, device)
    entropy, label = map_entropy_and_label(logits, size)
    planes = one_hot(label.long(), NUM_CLASSES).permute(0, 3, 1, 2).float().contiguous()
    block = torch.randn(NUM_CLASSES, 16, size[1], device=device)
    stages: dict[str, Callable[[], object]] = {
        "T0": lambda: baseline(logits, Case(size, 1, False)),
        "up-sampling, entropy, label": lambda: map_entropy_and_label(logits, size),
        "mean entropy, k = 1": lambda: window_mean(entropy, 1),
        "prediction of an evaluation": lambda: map_confidence_and_label(logits, size),
        "the same from up-sampled planes": lambda: (
            interpolate(logits, size, mode="bilinear", align_corners=True).softmax(dim=1).max(dim=1)
        ),
        "dense window, planes padded first, k = 32": lambda: conv2d(
            pad(planes, (32,) * 4), torch.ones(NUM_CLASSES, 1, 65, 65, device=device), groups=NUM_CLASSES
        ),
        "floor: exp of every up-sampled logit": lambda: for_each(block.exp, [()] * (size[0] // 16), block.device),
        "floor: one pass over the logits": lambda: logits.amax(),
    }
    for radius in RADII:
        stages[f"impurity, k = {radius}"] = lambda radius=radius: region_impurity(  # type: ignore[misc]
            label, NUM_CLASSES, radius
        )
    for case in (Case(size, 1, False), Case(size, 32, True)):
        maps = RipuScore(case.radius, case.pixel)(logits, size, [0])
        assert maps.tie_break is not None
        stages[f"{case.num_picks} picks"] = lambda case=case, maps=maps: greedy_picks(  # type: ignore[misc]
            maps.score[0], case.num_picks, case.suppress_radius, tie_break=maps.tie_break[0]
        )
    times: dict[str, list[float]] = {name: [] for name in stages}
    for round_number in range(repeats + 1):
        for name, call in stages.items():
            if name.startswith("dense") and round_number > 1:
                continue  # once is enough for something that takes seconds
            seconds = timed(call, device)
            if round_number:
                times[name].append(seconds)
    print(f"\nStages at {size[0]} x {size[1]}, ms: median (min-max)")
    for name, seconds_list in times.items():
        print(f"  {name:40} {spread(seconds_list):>20}")


def run_forward(size: tuple[int, int], device: torch.device, repeats: int) -> None:
    import segmentation_models_pytorch as smp

    network = smp.DeepLabV3Plus("resnet101", encoder_weights=None, classes=NUM_CLASSES).eval().to(device)
    image = torch.randn(1, 3, size[0] * 5 // 8, size[1] * 5 // 8, device=device)
    with torch.inference_mode():
        seconds = [timed(lambda: network(image), device) for _ in range(repeats + 1)][1:]
    print(f"\nDeepLab-v3+ (ResNet-101) forward at {image.shape[2]} x {image.shape[3]}, ms: {spread(seconds)}")


def run_step(repeats: int) -> None:
    """Time forward and backward of the default network with and without our own gradients, alternating."""
    from ripu.models.quick_convolutions import KINDS, quicken_convolutions
    from ripu.models.smp import SmpNetwork

    network = SmpNetwork(NUM_CLASSES).to(memory_format=torch.channels_last).train()
    own = [module for module in network.modules() if isinstance(module, KINDS)]
    image = torch.randn(2, 3, 192, 256).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, NUM_CLASSES, (2, 192, 256))

    def step() -> None:
        torch.nn.functional.cross_entropy(network(image), label).backward()

    seconds: dict[str, list[float]] = {"nn.Conv2d": [], "own gradients": []}
    for turn in range(repeats + 1):
        for name in seconds:
            for module in own:
                module.__class__ = torch.nn.Conv2d
            if name == "own gradients":
                quicken_convolutions(network)
            taken = timed(step, image.device)
            if turn:
                seconds[name].append(taken)
    print(
        f"a training step of DeepLab-v3+ (EfficientNet-Lite0) on 2 x 192 x 256, {len(own)} layers with own "
        "gradients, ms:"
    )
    for name, values in seconds.items():
        print(f"  {name:14} {spread(values):>20}")
    plain, quick = (statistics.median(values) for values in seconds.values())
    print(f"  ratio {quick / plain:.2f}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size only, fewer repeats")
    parser.add_argument("--no-literal", action="store_true", help="skip the literal method")
    parser.add_argument("--forward", action="store_true", help="time a network's forward pass too")
    parser.add_argument("--step", action="store_true", help="only a training step of the default network")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu (the default) or cuda")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {device}: this machine has none")
    if arguments.step and device.type != "cpu":
        parser.error("--step measures CPUs only")
    sizes = SIZES[:1] if arguments.quick else SIZES
    repeats = min(arguments.repeats, 5) if arguments.quick else arguments.repeats
    print(f"{cpu_name()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    if arguments.step:
        run_step(repeats)
        return
    print("T0 = interpolate + softmax; times in ms: median (min-max); memory in MB\n")
    print(
        f"{'size':>12}  {'mode':>4}{'k':>3} {'picks':>5}  {'T0':>20}  {'engine':>20}  {'eng/T0':>6}"
        f"  {'plain':>20}  {'peak':>6}  {'literal':>8}  {'lit/eng':>7}  {'peak':>6}"
    )
    with torch.inference_mode():
        for size in sizes:
            for pixel in (False, True):
                for radius in RADII:
                    run_case(Case(size, radius, pixel), device, repeats, not arguments.no_literal)
        run_stages(sizes[-1], device, repeats)
    if arguments.forward:
        run_forward(sizes[-1], device, max(1, repeats // 3))


if __name__ == "__main__":
    main()
