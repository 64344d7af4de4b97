"""The forecast of a run, scaled from a trial run: pure arithmetic.

Every figure is of one of three kinds: exact (steps, picks, bytes of the cache), an upper bound (pixels: windows at the
border have fewer), or a measured time or size by step, image, round or picture, times their number in the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ripu.run.forecast.measured import Measured, kind_of

_ENTRY_HEAD = 56
"""Bytes of a cache entry besides its pixels."""

TRUTH_THREADS = 4
"""Target labels that are read at the same time when classes are counted."""


@dataclass(frozen=True)
class Phase:
    """A phase of a run."""

    start: int  # its first step
    stop: int  # the step behind its last
    kind: str  # see ripu.run.forecast.measured.kind_of
    step_seconds: float
    is_reading: bool  # steps wait for the loaders
    round: int | None  # number of the round at its end, from 1

    @property
    def seconds(self) -> float:
        """Seconds of its steps."""
        return (self.stop - self.start) * self.step_seconds


@dataclass(frozen=True)
class Budget:
    """The queries of a run. Pixels are upper bounds: windows at the border have fewer."""

    unit: str  # of a pick: regions or pixels
    is_exact: bool  # numbers of picks are exact if images have room; else they are upper bounds
    rounds: int
    image_round: tuple[int, int]  # fewest and most picks an image and round (its share of a shared budget)
    all_round: int  # picks of all images in a round
    image_round_px: tuple[int, int]  # fewest and most pixels an image and round
    all_round_px: int  # pixels of all images in a round
    all_px: int  # pixels of all images in all rounds
    share: float  # of all target pixels
    clicks_per_pick: float | None  # 1 for pixels; for regions as in the timed round; None where nobody answers


@dataclass(frozen=True)
class Forecast:
    """The whole run."""

    measured: Measured  # the trial run
    phases: tuple[Phase, ...]
    first_round: bool  # a round takes place before the first step
    budget: Budget | None  # None in settings without selection
    seconds: dict[str, float]  # by part of the run, in order
    bytes: dict[str, float]  # by kind of file that stays on disk, in order

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as numbers: ``phases``, ``budget``, ``start``, ``seconds``, ``bytes``, ``memory_gib``."""
        return {
            "phases": [{**asdict(phase), "seconds": phase.seconds} for phase in self.phases],
            "budget": None if self.budget is None else asdict(self.budget),
            "start": None if self.measured.carried is None else asdict(self.measured.carried),
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "bytes": {**self.bytes, "total": sum(self.bytes.values())},
            "memory_gib": dict(self.measured.memory),
        }


def paced(compute: float, loads: Sequence[float], *, workers: int, cores: int, is_cpu: bool) -> float:
    """Return the seconds of a step whose samples are read beside it.

    Without workers reading comes on top. With them it runs beside the computing: on a GPU the slower of the two sets
    the pace; on a CPU both share the cores.

    Args:
        compute: Seconds of the step itself.
        loads: Seconds of reading for each loader, by one process.
        workers: Processes of each loader.
        cores: CPU cores.
        is_cpu: Whether the step itself runs on them.

    >>> paced(1.0, [0.5, 0.5], workers=0, cores=4, is_cpu=False)
    2.0
    >>> paced(1.0, [4.0, 2.0], workers=2, cores=4, is_cpu=False)
    2.0
    >>> paced(1.0, [1.0, 1.0], workers=2, cores=4, is_cpu=True)
    1.5
    """
    if workers == 0:
        return compute + sum(loads)
    beside = max(max(loads, default=0.0) / workers, sum(loads) / cores)
    return compute + sum(loads) / cores if is_cpu else max(compute, beside)


def make_forecast(measured: Measured) -> Forecast:
    """Scale the times and sizes of a trial run to the run itself."""
    phases = _phases(measured)
    budget = _budget(measured)
    first_round = 0 in measured.spec.plan.selection_steps
    seconds = _seconds(measured, phases, first_round)
    return Forecast(measured, phases, first_round, budget, seconds, _bytes(measured, phases, seconds))


def _phases(measured: Measured) -> tuple[Phase, ...]:
    plan, data, accumulate = measured.spec.plan, measured.spec.data, measured.spec.trainer.accumulate
    found = []
    for start, stop in zip(plan.boundaries, plan.boundaries[1:], strict=False):
        kind = kind_of(plan, start, has_labels=measured.carried is not None)
        loads = []
        if measured.num_source:
            loads.append(accumulate * data.source_batch * measured.reads["source"])
        if kind != "source":
            loads.append(accumulate * data.target_batch * measured.reads["target"])
        compute = measured.steps[kind]
        step = _paced(measured, compute, loads)
        is_reading = step > 1.1 * compute
        number = plan.selection_steps.index(stop) + 1 if stop in plan.selection_steps else None
        found.append(Phase(start, stop, kind, step, is_reading, number))
    return tuple(found)


def _paced(measured: Measured, compute: float, loads: Sequence[float]) -> float:
    cores = max(1, measured.cores // (1 if measured.is_cpu else measured.world_size))
    return paced(compute, loads, workers=measured.spec.data.num_workers, cores=cores, is_cpu=measured.is_cpu)


def _budget(measured: Measured) -> Budget | None:
    query, region = measured.spec.query, measured.spec.region
    if query is None:
        return None
    sizes, rounds = measured.label_sizes, query.num_rounds
    train_size = measured.spec.data.target_size
    is_fixed = region is not None and region.is_fixed
    if is_fixed:
        assert region is not None
        whole = {size: query.pixels_until(size, rounds - 1) for size in set(sizes)}
        pixels = {size: whole[size] // rounds for size in whole}
        picks = {size: pixels[size] // region.region_px() for size in whole}
        all_px = sum(whole[size] for size in sizes)
    else:
        picks = {size: query.picks_per_round(size, train_size) for size in set(sizes)}
        pixels = {size: count * (2 * query.reveal_radius + 1) ** 2 for size, count in picks.items()}
        all_px = rounds * sum(pixels[size] for size in sizes)
    return Budget(
        "pixels" if query.pixel else "regions",
        not is_fixed,
        rounds,
        (min(picks.values()), max(picks.values())),
        sum(picks[size] for size in sizes),
        (min(pixels.values()), max(pixels.values())),
        sum(pixels[size] for size in sizes),
        all_px,
        all_px / sum(height * width for height, width in sizes),
        measured.clicks_per_pick if measured.clicks_per_pick is None or not query.pixel else 1.0,
    )


def _seconds(measured: Measured, phases: tuple[Phase, ...], first_round: bool) -> dict[str, float]:
    plan, spec, world = measured.spec.plan, measured.spec, measured.world_size
    rounds = len(plan.selection_steps)
    seconds = {"setup": measured.setup}
    if measured.carried is not None:
        seconds["labels to begin with"] = measured.carried.seconds
    if measured.index_label:
        seconds["class index of the source"] = measured.num_source * measured.index_label / measured.cores
    if spec.data.cache is not None:
        seconds["filling data.cache"] = _filling(measured, phases)
    seconds["training"] = measured.warm_up + sum(phase.seconds for phase in phases)
    if rounds:
        one = _paced(measured, measured.round_image, [measured.reads["pool"]]) / world + measured.round_rest
        counting = measured.num_target * measured.reads.get("label", 0.0) / min(TRUTH_THREADS, measured.cores)
        seconds["rounds"] = rounds * (measured.num_target * one + measured.page) + counting
    num_evaluations = len(phases) + first_round
    val = _paced(measured, measured.val_image, [measured.reads["val"]])
    seconds["evaluations"] = num_evaluations * math.ceil(measured.num_val / world) * val
    saves = len(phases) + seconds["training"] / (60 * spec.checkpoint.every_minutes)
    if spec.checkpoint.every_steps:
        saves += plan.max_steps // spec.checkpoint.every_steps
    seconds["checkpoints"] = saves * measured.checkpoint
    seconds["report"] = measured.report
    return seconds


def _filling(measured: Measured, phases: tuple[Phase, ...]) -> float:
    """Return the extra seconds of reading every image for the first time, before it is in the cache."""
    extra = {name: max(0.0, measured.first_reads[name] - measured.reads[name]) for name in measured.reads}
    source = min(measured.num_source, _draws(measured, phases, "source"))
    target = measured.num_target if any(phase.kind != "source" for phase in phases) else 0
    whole = source * extra.get("source", 0.0) + target * extra["target"] + measured.num_val * extra["val"]
    return whole / max(1, min(measured.cores, measured.spec.data.num_workers or 1))


def _draws(measured: Measured, phases: tuple[Phase, ...], domain: str) -> int:
    """Return the samples of a domain in the whole run."""
    steps = sum(phase.stop - phase.start for phase in phases if domain == "source" or phase.kind != "source")
    batch = measured.spec.data.source_batch if domain == "source" else measured.spec.data.target_batch
    return int(steps * batch * measured.spec.trainer.accumulate * measured.world_size)


def _bytes(measured: Measured, phases: tuple[Phase, ...], seconds: dict[str, float]) -> dict[str, float]:
    spec, rounds = measured.spec, len(measured.spec.plan.selection_steps)
    found: dict[str, float] = {}
    if rounds or measured.carried is not None:
        found["label store"] = measured.num_target * (measured.store_head_bytes + rounds * measured.store_image_bytes)
        found["label store"] += 0 if measured.carried is None else measured.carried.bytes
    kept = min(spec.checkpoint.keep, len(phases) + int(seconds["training"] / (60 * spec.checkpoint.every_minutes)))
    found["checkpoints"] = kept * measured.checkpoint_bytes + measured.final_bytes
    gallery = min(spec.evaluation.gallery, measured.num_target)
    stills = max(1, gallery) * measured.gallery_bytes + gallery * rounds * measured.gallery_round_bytes
    pictures = min(spec.evaluation.pictures, measured.num_target) * measured.picture_bytes
    rows = measured.spec.plan.max_steps / spec.trainer.log_every_n_steps * measured.row_bytes
    found["report, pictures, metrics"] = stills * (1 + measured.page_share) + pictures + rows
    if measured.prediction_bytes:
        found["predictions"] = measured.num_val * measured.prediction_bytes
    if spec.data.cache is not None:
        source_px, target_px = math.prod(spec.data.source_size), math.prod(spec.data.target_size)
        source = min(measured.num_source, _draws(measured, phases, "source"))
        has_target = any(phase.kind != "source" for phase in phases)
        target = measured.num_target if has_target or rounds else 0
        has_labels = spec.setting.target_labels == "all"
        found["data.cache (shared)"] = (
            source * (4 * source_px + 2 * _ENTRY_HEAD)
            + target * ((4 if has_labels else 3) * target_px + (2 if has_labels else 1) * _ENTRY_HEAD)
            + measured.num_val * (3 * target_px + _ENTRY_HEAD)
        )
    return found
