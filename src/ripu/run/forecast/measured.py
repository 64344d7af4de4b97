"""The measurements of a trial run. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ripu.config.spec import RunSpec
from ripu.schedule import Plan


def kind_of(plan: Plan, step: int, *, has_labels: bool = False) -> str:
    """Return the kind of a training step: ``source`` alone, both domains ``before`` any target label, or ``after``.

    Args:
        plan: The schedule.
        step: The step.
        has_labels: True where there are target labels before the first round (``start``).
    """
    if plan.is_pretraining(step):
        return "source"
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
    """The run, its data and machine, and the times and sizes of its trial run."""

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
    # Seconds
    setup: float = 0.0  # finding the data and building network, store and loaders
    steps: dict[str, float] = field(default_factory=dict)  # kind of step -> an optimiser step without reading
    warm_up: float = 0.0  # extra time of the very first step
    reads: dict[str, float] = field(default_factory=dict)  # a sample: source, target, val, pool, label (of the target)
    first_reads: dict[str, float] = field(default_factory=dict)  # the same with an empty cache; equal without one
    index_label: float = 0.0  # reading a source label for the class index; 0 where no new index is needed
    round_image: float = 0.0  # scoring, picking and asking one image, reading left out
    round_rest: float = 0.0  # the rest of a round by image: committing it and counting
    page: float = 0.0  # rewriting the report
    val_image: float = 0.0  # evaluating one image, reading left out
    checkpoint: float = 0.0  # writing a checkpoint
    report: float = 0.0  # results, pictures and report at the end
    # Bytes
    checkpoint_bytes: float = 0.0  # a checkpoint to resume from
    final_bytes: float = 0.0  # the final one, weights only
    store_image_bytes: float = 0.0  # label store by image and round
    store_head_bytes: float = 0.0  # its head by image
    gallery_round_bytes: float = 0.0  # report by gallery image and round
    gallery_bytes: float = 0.0  # report by gallery image, once
    page_share: float = 0.0  # bytes of report.html over those of report/
    picture_bytes: float = 0.0  # pictures/ and panel/ by picture
    row_bytes: float = 0.0  # a row of metrics.csv
    prediction_bytes: float = 0.0  # predictions/ by validation image; 0 where none are kept
    # Others
    clicks_per_pick: float | None = None  # in the timed round; None where nobody answered
    memory: dict[str, float] = field(default_factory=dict)  # most in use, GiB: process, and on a GPU device
    memory_total: dict[str, float] = field(default_factory=dict)  # of the machine, GiB, by the same names
