"""The parts of a run's description. They bear the names of the groups in ``conf/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.config.nodes import Node, fill, instantiate, own_arguments
from ripu.datasets.image_files import ImageReader
from ripu.datasets.proportions import Fit, fitted
from ripu.datasets.taxonomy import TAXONOMIES, Taxonomy
from ripu.datasets.value_ranges import with_ranges
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class DatasetSpec:
    """The data of a run."""

    name: str
    num_classes: int
    taxonomy: Taxonomy
    prepare: Node | None  # generates the data; None if they must exist
    source: Node  # load the scenes of each part
    target: Node
    val: Node
    static_mask: str | None  # a grey PNG, non-zero where nothing may be queried

    @property
    def has_source(self) -> bool:
        """False if the description names no source images (data of one's own with a target alone)."""
        return "images" not in self.source or self.source["images"] is not None


def make_dataset(node: Mapping[str, Any]) -> DatasetSpec:
    """Make the description of a data set from the plain ``dataset`` group; refuse an unknown or wrong class table."""
    table = node["taxonomy"]
    if isinstance(table, str) and table not in TAXONOMIES:
        raise ConfigError(f"dataset.taxonomy={table} is unknown; choose one of {sorted(TAXONOMIES)}")
    taxonomy = TAXONOMIES[table] if isinstance(table, str) else instantiate(table)
    return fill(DatasetSpec, {**node, "taxonomy": taxonomy})


@dataclass(frozen=True)
class SettingSpec:
    """The labels and domains that a run trains on."""

    name: str
    target_labels: str  # revealed (by rounds), all, none, or unlabelled: target images are read without any
    uses_source: bool  # False: no source image is read
    needs_network: bool  # True: it begins with a trained network

    @property
    def reads_target(self) -> bool:
        """True if training reads target images."""
        return self.target_labels != "none"

    @property
    def is_active(self) -> bool:
        """True if target labels are those that rounds (or ``start``) reveal."""
        return self.target_labels == "revealed"


@dataclass(frozen=True)
class MethodSpec:
    """The system that is trained; see ``conf/method``."""

    name: str
    target_labels: Sequence[str]  # those of the settings that it works in
    needs_source: bool  # True: it reads source images
    modes: Sequence[str]  # the labelling modes that it works with; empty: any
    labelled_images: bool  # True: every second target image is one with labels, once there are any
    pretrain_fraction: float | None  # steps on the source alone, until the first round or renewal at most; None: as in
    # the recipe, or without target labels until the first renewal
    selection_fractions: Sequence[float] | None  # rounds, in fractions of the run; None: those of the setting
    renewal_fractions: Sequence[float]  # renewals, in fractions of the run
    node: Node | None  # its terms; None: those of objective


def make_method(node: Mapping[str, Any]) -> MethodSpec:
    """Make the description of a method from the plain ``method`` group."""
    return fill(MethodSpec, {**node, "node": own_arguments(node, MethodSpec) if "_target_" in node else None})


@dataclass(frozen=True)
class StartSpec:
    """The warm start of a run."""

    run: str | None  # folder of a finished run: its last weights and its labels
    labels: str | None  # folder of masks
    ids: str  # of these masks: train or label
    missing_masks: str  # refuse or allow target images without a mask

    @property
    def has_labels(self) -> bool:
        """True if the run begins with target labels."""
        return self.run is not None or self.labels is not None

    @property
    def weights(self) -> Path | None:
        """The checkpoint of ``run``; None without one."""
        return None if self.run is None else Path(self.run) / "checkpoints" / "final.ckpt"


@dataclass(frozen=True)
class PersonSpec:
    """The wait for people, and the page that they answer on; see ``conf/oracle/human.yaml``."""

    wait: str
    hold_minutes: float
    serve: bool
    hours: float | None
    overlap: float
    suggest: bool
    keys: Mapping[str, str] | None


@dataclass(frozen=True)
class OptimizerSpec:
    """The learning rates and the schedule; see ``conf/optimizer``."""

    learning_rate: float
    head_lr_factor: float
    layer_decay: float
    weight_decay: float
    norm_decay: bool
    clip_norm: float | None
    schedule: str
    warmup_fraction: float
    poly_power: float
    poly_horizon_factor: float


@dataclass(frozen=True)
class ProtocolSpec:
    """Readings of the paper; see ``conf/protocol``."""

    name: str
    supervised_average: str
    boundary_only: bool
    boundary_detector: str
    consistency_border: str
    loss_epsilon: float
    source_sampling: str
    norm_statistics: str


@dataclass(frozen=True)
class DataSpec:
    """The images of a step; see ``conf/train.yaml``. Sizes are (height, width) in pixels."""

    source_size: tuple[int, int]
    target_size: tuple[int, int]
    source_batch: int
    target_batch: int
    transforms: tuple[Node, ...]
    num_workers: int
    cache: str | None
    unreadable: str
    fit: Fit
    bands: Sequence[int] | None
    value_range: str | Sequence[Any]  # bit_depth, percentiles, [low, high] or one such pair for each band
    measured_range: Sequence[Sequence[float]] | None  # the percentiles of each band

    def fed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) at which the network sees a target image of ``size``."""
        return fitted(size, self.target_size, self.fit)

    @property
    def measures(self) -> bool:
        """True if the range of values is not known before target images are read."""
        return self.value_range == "percentiles" and self.measured_range is None

    @property
    def image_reader(self) -> ImageReader:
        """The way from image files to what the network sees; without a range while it is to be measured."""
        return make_reader(self.bands, self.value_range if self.measured_range is None else self.measured_range)


def make_reader(bands: Sequence[int] | None, value_range: str | Sequence[Any]) -> ImageReader:
    """Make the reader of images that ``data.bands`` and ``data.value_range`` describe; see ``conf/train.yaml``.

    Raises:
        ConfigError: The ranges are neither one nor one for each band.
    """
    reader = ImageReader(None if bands is None else tuple(bands))
    if isinstance(value_range, str):
        return reader
    ranges: Sequence[Any] = value_range if isinstance(value_range[0], Sequence) else [value_range]
    if len(ranges) not in (1, reader.num_bands):
        raise ConfigError(
            f"data.value_range={list(ranges)} has {len(ranges)} ranges for {reader.num_bands} bands; give one for all "
            "bands, or one for each"
        )
    return with_ranges(reader, ranges)


@dataclass(frozen=True)
class EvaluationSpec:
    """Evaluations and pictures; see ``conf/train.yaml``."""

    batch: int
    flip: bool
    save_predictions: bool
    pictures: int
    gallery: int


@dataclass(frozen=True)
class CheckpointSpec:
    """The times of checkpoints, and the number that is kept; see ``conf/train.yaml``."""

    every_steps: int | None
    every_minutes: float
    keep: int


@dataclass(frozen=True)
class TrainerSpec:
    """Devices, processes and arithmetic; see ``conf/trainer``. The length of the run is in its plan."""

    accelerator: str
    devices: int | str | list[int]
    strategy: str
    num_nodes: int
    timeout_minutes: float
    precision: str
    accumulate: int
    channels_last: bool
    compile: bool
    log_every_n_steps: int
    deterministic: bool | str
