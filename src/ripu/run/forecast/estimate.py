"""The forecast of a run, scaled from a trial run: pure arithmetic.

Every figure is exact (steps, picks, bytes of the cache), an upper bound (pixels: windows at the border have fewer), or
a measured time or size of a step, image, round or picture, times their number in the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from ripu.config.spec import RunSpec
from ripu.schedule import Plan
from ripu.selection.query import Query

_ENTRY_HEAD = 56  # bytes of a cache entry besides its pixels
_TRUTH_THREADS = 4  # target labels that are read at the same time when classes are counted


def kind_of(plan: Plan, step: int, *, has_labels: bool) -> str:
    """Return the kind of a step: ``source`` only, both domains ``before`` any target label, or ``after``.

    Steps after a renewal, in which a method may have other terms, are ``renewed``.
    """
    if plan.is_pretraining(step):
        return "source"
    if plan.num_renewals(step):
        return "renewed"
    return "after" if has_labels or plan.num_rounds(step) else "before"


@dataclass(frozen=True)
class Carried:
    """The labels of a warm start."""

    rounds: int  # of other runs, and 1 for a folder of masks
    picks: int
    share: float  # of the target pixels that were asked about
    bytes: int  # on disk
    seconds: float  # copying it


@dataclass
class Measured:
    """A run, its data and machine, and the times (seconds) and sizes (bytes) of its trial run."""

    spec: RunSpec
    carried: Carried | None
    num_source: int
    num_target: int
    num_val: int
    label_sizes: list[tuple[int, int]]  # (H, W) of every target label
    world_size: int
    device: str = ""
    is_cpu: bool = False
    cores: int = 1
    setup: float = 0.0  # finding the data and building network, store and loaders
    steps: dict[str, float] = field(default_factory=dict)  # kind of step -> an optimiser step without reading
    warm_up: float = 0.0  # extra time of the very first step
    reads: dict[str, float] = field(default_factory=dict)  # a sample: source, target, val, pool, label (of the target)
    first_reads: dict[str, float] = field(default_factory=dict)  # the same with an empty cache; equal without one
    index_label: float = 0.0  # reading a source label for the class index; 0 if no new index is needed
    round_image: float = 0.0  # scoring, picking and asking one image, reading left out
    round_rest: float = 0.0  # the rest of a round by image: committing it and counting
    renewal_image: float = 0.0  # looking at one image in a renewal, reading left out
    renewal_images: int = 0  # that a renewal of the whole run looks at
    page: float = 0.0  # rewriting the report
    val_image: float = 0.0  # evaluating one image, reading left out
    checkpoint: float = 0.0  # writing a checkpoint
    report: float = 0.0  # results, pictures and report at the end
    checkpoint_bytes: float = 0.0  # a checkpoint to resume from
    final_bytes: float = 0.0  # the final one, weights only
    store_image_bytes: float = 0.0  # label store by image and round
    store_head_bytes: float = 0.0  # its head by image
    pseudo_label_bytes: float = 0.0  # pseudo-labels by image and renewal
    gallery_round_bytes: float = 0.0  # report by gallery image and round
    gallery_bytes: float = 0.0  # report by gallery image, once
    page_share: float = 0.0  # bytes of report.html over those of report/
    picture_bytes: float = 0.0  # pictures/ and panel/ by picture
    row_bytes: float = 0.0  # a row of metrics.csv
    prediction_bytes: float = 0.0  # predictions/ by validation image; 0 if none are kept
    clicks_per_pick: float | None = None  # in the timed round; None if nobody answered
    memory: dict[str, float] = field(default_factory=dict)  # most in use, GiB: process, and on a GPU device
    memory_total: dict[str, float] = field(default_factory=dict)  # of the machine, GiB, by the same names


@dataclass(frozen=True)
class Phase:
    """A phase of a run."""

    start: int  # its first step
    stop: int  # the step behind its last
    kind: str  # see kind_of
    step_seconds: float
    seconds: float  # of all its steps
    is_reading: bool  # steps wait for the loaders
    round: int | None  # number of the round at its end, from 1
    renewal: int | None  # number of the renewal at its end, from 1


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
    clicks_per_pick: float | None  # 1 for pixels; for regions as in the timed round; None if nobody answers


@dataclass(frozen=True)
class Forecast:
    """The whole run."""

    measured: Measured  # the trial run
    phases: tuple[Phase, ...]
    budget: Budget | None  # None in settings without selection
    seconds: dict[str, float]  # by part of the run, in order
    bytes: dict[str, float]  # by kind of file that stays on disk, in order

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as numbers."""
        return {
            "phases": [asdict(phase) for phase in self.phases],
            "budget": None if self.budget is None else asdict(self.budget),
            "start": None if self.measured.carried is None else asdict(self.measured.carried),
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "bytes": {**self.bytes, "total": sum(self.bytes.values())},
            "memory_gib": dict(self.measured.memory),
        }


def paced(compute: float, loads: Sequence[float], *, workers: int, cores: int, is_cpu: bool) -> float:
    """Return the seconds of a step of ``compute`` seconds whose samples are read beside it.

    ``loads`` are the seconds of reading for each loader, by one process. Without workers, reading comes on top. With
    them, it runs beside the computing: on a GPU, the slower of the two sets the pace; on a CPU, both share the cores.

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
    seconds = _seconds(measured, phases)
    return Forecast(measured, phases, _budget(measured), seconds, _bytes(measured, phases, seconds))


def _phases(measured: Measured) -> tuple[Phase, ...]:
    plan, data, accumulate = measured.spec.plan, measured.spec.data, measured.spec.trainer.accumulate
    found = []
    for start, stop in pairwise(plan.boundaries):
        kind = kind_of(plan, start, has_labels=measured.carried is not None)
        loads = [accumulate * data.source_batch * measured.reads["source"]] if measured.num_source else []
        if kind != "source":
            loads.append(accumulate * data.target_batch * measured.reads["target"])
        compute = measured.steps[kind]
        step = _paced(measured, compute, loads)
        ends = (number_of(stop, steps) for steps in (plan.selection_steps, plan.renewal_steps))
        found.append(Phase(start, stop, kind, step, (stop - start) * step, step > 1.1 * compute, *ends))
    return tuple(found)


def number_of(step: int, steps: Sequence[int]) -> int | None:
    """Return the number, from 1, of the round or renewal at a step; None if there is none."""
    return steps.index(step) + 1 if step in steps else None


def _paced(measured: Measured, compute: float, loads: Sequence[float]) -> float:
    cores = max(1, measured.cores // (1 if measured.is_cpu else measured.world_size))
    return paced(compute, loads, workers=measured.spec.data.num_workers, cores=cores, is_cpu=measured.is_cpu)


def _budget(measured: Measured) -> Budget | None:
    query, region = measured.spec.query, measured.spec.region
    if query is None:
        return None
    sizes, rounds = measured.label_sizes, query.num_rounds
    if query.whole_image:
        return _images_budget(measured, query)
    if is_fixed := region is not None and region.is_fixed:
        assert region is not None
        whole = {size: query.pixels_until(size, rounds - 1) for size in set(sizes)}
        pixels = {size: count // rounds for size, count in whole.items()}
        picks = {size: count // region.region_px() for size, count in pixels.items()}
        all_px = sum(whole[size] for size in sizes)
    else:
        picks = {size: query.picks_per_round(size, measured.spec.data.fed_size(size)) for size in set(sizes)}
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


def _images_budget(measured: Measured, query: Query) -> Budget:
    """Return the budget of whole images; pixels are those of images of mean size."""
    pixels = [height * width for height, width in measured.label_sizes]
    images = query.images_until(len(pixels), query.num_rounds - 1)
    mean, each = sum(pixels) / len(pixels), math.ceil(images / query.num_rounds)
    all_px = min(sum(pixels), round(images * mean))
    ends = (min(pixels), max(pixels))
    share = all_px / sum(pixels)
    return Budget("images", False, query.num_rounds, (0, 1), each, ends, round(each * mean), all_px, share, None)


def _images_read(measured: Measured) -> tuple[int, int]:
    """Return the numbers of source and target images that the whole run reads."""
    plan, spec = measured.spec.plan, measured.spec
    draws = plan.max_steps * spec.data.source_batch * spec.trainer.accumulate * measured.world_size
    return min(measured.num_source, draws), measured.num_target if plan.pretrain_steps < plan.max_steps else 0


def _seconds(measured: Measured, phases: tuple[Phase, ...]) -> dict[str, float]:
    spec, world = measured.spec, measured.world_size
    rounds = len(spec.plan.selection_steps)
    seconds = {"setup": measured.setup}
    if measured.carried is not None:
        seconds["labels to begin with"] = measured.carried.seconds
    if measured.index_label:
        seconds["class index of the source"] = measured.num_source * measured.index_label / measured.cores
    if spec.data.cache is not None:  # the extra time of reading images for the first time, before they are in it
        extra = {name: max(0.0, measured.first_reads[name] - again) for name, again in measured.reads.items()}
        source, target = _images_read(measured)
        whole = source * extra.get("source", 0.0) + target * extra["target"] + measured.num_val * extra["val"]
        seconds["filling data.cache"] = whole / max(1, min(measured.cores, spec.data.num_workers or 1))
    seconds["training"] = measured.warm_up + sum(phase.seconds for phase in phases)
    if rounds:
        image = _paced(measured, measured.round_image, [measured.reads["pool"]]) / world + measured.round_rest
        counting = measured.num_target * measured.reads.get("label", 0.0) / min(_TRUTH_THREADS, measured.cores)
        seconds["rounds"] = rounds * (measured.num_target * image + measured.page) + counting
    if spec.plan.renewal_steps:
        image = _paced(measured, measured.renewal_image, [measured.reads["pool"]]) / world
        seconds["renewals"] = len(spec.plan.renewal_steps) * measured.renewal_images * image
    val = _paced(measured, measured.val_image, [measured.reads["val"]])
    evaluations = len(phases) + (0 in {*spec.plan.selection_steps, *spec.plan.renewal_steps})
    seconds["evaluations"] = evaluations * math.ceil(measured.num_val / world) * val
    saves = len(phases) + seconds["training"] / (60 * spec.checkpoint.every_minutes)
    if spec.checkpoint.every_steps:
        saves += spec.plan.max_steps // spec.checkpoint.every_steps
    seconds["checkpoints"] = saves * measured.checkpoint
    seconds["report"] = measured.report
    return seconds


def _bytes(measured: Measured, phases: tuple[Phase, ...], seconds: dict[str, float]) -> dict[str, float]:
    spec, rounds = measured.spec, len(measured.spec.plan.selection_steps)
    found: dict[str, float] = {}
    if rounds or measured.carried is not None:
        found["label store"] = measured.num_target * (measured.store_head_bytes + rounds * measured.store_image_bytes)
        found["label store"] += 0 if measured.carried is None else measured.carried.bytes
    if measured.pseudo_label_bytes:
        renewals = len(spec.plan.renewal_steps)
        found["pseudo-labels"] = renewals * measured.num_target * measured.pseudo_label_bytes
    kept = min(spec.checkpoint.keep, len(phases) + int(seconds["training"] / (60 * spec.checkpoint.every_minutes)))
    found["checkpoints"] = kept * measured.checkpoint_bytes + measured.final_bytes
    gallery = min(spec.evaluation.gallery, measured.num_target)
    stills = max(1, gallery) * measured.gallery_bytes + gallery * rounds * measured.gallery_round_bytes
    pictures = min(spec.evaluation.pictures, measured.num_target) * measured.picture_bytes
    rows = spec.plan.max_steps / spec.trainer.log_every_n_steps * measured.row_bytes
    found["report, pictures, metrics"] = stills * (1 + measured.page_share) + pictures + rows
    if measured.prediction_bytes:
        found["predictions"] = measured.num_val * measured.prediction_bytes
    if spec.data.cache is not None:
        source_px, target_px = math.prod(spec.data.source_size), math.prod(spec.data.target_size)
        source, target = _images_read(measured)
        has_labels = spec.setting.target_labels == "all"
        found["data.cache (shared)"] = (
            source * (4 * source_px + 2 * _ENTRY_HEAD)
            + target * ((4 if has_labels else 3) * target_px + (2 if has_labels else 1) * _ENTRY_HEAD)
            + measured.num_val * (3 * target_px + _ENTRY_HEAD)
        )
    return found
