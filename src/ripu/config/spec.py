"""One frozen description of a run, made once from its configuration.

Nothing below the commands reads a configuration: they read a :class:`RunSpec`. Its parts bear the names of the groups
in ``conf/``; objects that ``_target_`` describes stay plain nodes until :func:`instantiate` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from ripu.config.migrate import upgrade
from ripu.datasets.image_files import ImageReader
from ripu.datasets.proportions import Fit, fitted
from ripu.datasets.taxonomy import TAXONOMIES, Taxonomy
from ripu.datasets.value_ranges import with_ranges
from ripu.io.errors import ConfigError, RipuError, is_out_of_memory
from ripu.regions import RegionShape
from ripu.schedule import Plan, scheduled_steps
from ripu.selection.query import DEFAULT_IMAGE_CAP, Query

Node = Mapping[str, Any]
"""A plain node with ``_target_``, which :func:`instantiate` makes an object of."""

_T = TypeVar("_T")


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


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run is, in plain values."""

    config: dict[str, Any]  # plain and resolved, as config.yaml and checkpoints keep it
    words: tuple[str, ...]  # of the command line, with the folder of the user's own configurations
    experiment: str | None  # the row of the paper's tables that the command line chose
    output_dir: Path  # the folder of the run
    data_root: Path  # the parent of the data sets' folders
    beginnings: Path | None  # the folder of shared beginnings
    seed: int
    resume: bool
    dry_run: bool
    plan: Plan
    query: Query | None  # the labelling mode and budget; None in a run without rounds
    mode: str  # name of the labelling mode
    budget: float  # as configured
    acquisition: Node
    first_round: Node | None  # the score of the first round; None for that of acquisition
    oracle: Node
    region_node: Node | None  # describes region; None for the squares of the query
    model: Node  # with checkpoint: weights of a whole network to start from
    loggers: tuple[Node, ...]  # besides metrics.csv
    dataset: DatasetSpec
    setting: SettingSpec
    method: MethodSpec
    start: StartSpec
    objective: Node
    optimizer: OptimizerSpec
    optimizer_node: Node  # the optimiser itself, with the arguments that OptimizerSpec does not have
    average_decay: float | None  # of the moving average of the weights; None without one
    protocol: ProtocolSpec
    data: DataSpec
    evaluation: EvaluationSpec
    checkpoint: CheckpointSpec
    trainer: TrainerSpec

    @property
    def has_rounds(self) -> bool:
        """True if the run asks for labels; with ``selection_steps=[]`` it trains on those that it begins with."""
        return bool(self.plan.selection_steps)

    @property
    def scores(self) -> dict[str, str | None]:
        """The class names of the score and of that of the first round, as results name them."""
        nodes = {"acquisition": self.acquisition, "first_round": self.first_round}
        return {key: None if node is None else str(node["_target_"]).rpartition(".")[2] for key, node in nodes.items()}

    @cached_property
    def person(self) -> PersonSpec | None:
        """The people who answer; None if label files do."""
        return fill(PersonSpec, self.oracle) if "wait" in self.oracle else None

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the run."""
        return self.dataset.taxonomy

    @property
    def model_checkpoint(self) -> str | None:
        """``model.checkpoint``: weights of a whole network to start from."""
        found: str | None = self.model.get("checkpoint")
        return found

    @cached_property
    def region(self) -> RegionShape | None:
        """The shape of regions; None in a run without rounds, and for the squares of the query.

        Raises:
            ConfigError: The shape does not go with the labelling mode, or its library is missing.
        """
        if self.query is None or self.region_node is None:
            return None
        shape: RegionShape = instantiate(self.region_node)
        if shape.is_fixed and self.query.whole_image:
            raise ConfigError(
                f"region._target_={self.region_node['_target_']} cuts images into regions, but mode={self.mode} asks "
                "for whole images; use mode=ra, or region=square"
            )
        if shape.is_fixed and self.query.pixel:
            raise ConfigError(
                f"region._target_={self.region_node['_target_']} cuts images into regions, but mode={self.mode} asks "
                "for single pixels; use mode=ra, or region=square"
            )
        radius = self.region_node.get("radius", self.query.radius)
        if not shape.is_fixed and radius != self.query.radius:
            raise ConfigError(
                f"region.radius={radius} differs from mode.radius={self.query.radius}; give only mode.radius, which "
                "scores and squares share"
            )
        return shape


def make_spec(config: Mapping[str, Any], *, words: Sequence[str] = (), experiment: str | None = None) -> RunSpec:
    """Make the description of a run from its configuration.

    ``config`` is plain and resolved: of a command line (:func:`plain`), or as an older version stored it.

    Raises:
        ConfigError: Steps, budget, radii or classes that do not fit together.
    """
    config = upgrade(config)
    paths = config["paths"]
    plan = _make_plan(config)
    return RunSpec(
        config=config,
        words=tuple(words),
        experiment=experiment,
        output_dir=Path(paths["output_dir"]),
        data_root=Path(paths["data_root"]),
        beginnings=None if paths["beginnings"] is None else Path(paths["beginnings"]),
        seed=config["seed"],
        resume=bool(config["resume"]),
        dry_run=bool(config["dry_run"]),
        plan=plan,
        query=_make_query(config, len(plan.selection_steps)) if plan.selection_steps else None,
        mode=config["mode"]["name"],
        budget=config["budget"],
        acquisition=config["acquisition"],
        first_round=config["first_round"] or None,
        oracle=config["oracle"],
        region_node=config["region"],
        model=config["model"],
        loggers=tuple(node for node in config["logger"].values() if node is not None),
        dataset=make_dataset(config["dataset"]),
        setting=fill(SettingSpec, config["setting"]),
        method=make_method(config["method"]),
        start=fill(StartSpec, config["start"]),
        objective=config["objective"],
        optimizer=fill(OptimizerSpec, config["optimizer"]),
        optimizer_node=_own_arguments(config["optimizer"]),
        average_decay=config["ema"]["decay"],
        protocol=fill(ProtocolSpec, config["protocol"]),
        data=fill(DataSpec, config["data"]),
        evaluation=fill(EvaluationSpec, config["evaluation"]),
        checkpoint=fill(CheckpointSpec, config["checkpoint"]),
        trainer=fill(TrainerSpec, config["trainer"]),
    )


def _own_arguments(node: Mapping[str, Any], kind: type = OptimizerSpec) -> Node:
    """Return a node without the keys that the package reads itself, which are the fields of ``kind``."""
    ours = {field.name for field in fields(kind)}
    return {key: value for key, value in node.items() if key not in ours}


def make_method(node: Mapping[str, Any]) -> MethodSpec:
    """Make the description of a method from the plain ``method`` group."""
    return fill(MethodSpec, {**node, "node": _own_arguments(node, MethodSpec) if "_target_" in node else None})


def _make_plan(config: Mapping[str, Any]) -> Plan:
    """Make the schedule; refuse steps that do not fit into the run."""
    setting, has_labels = config["setting"], fill(StartSpec, config["start"]).has_labels
    max_steps = int(config["trainer"]["max_steps"])
    steps, pretrain = config["selection_steps"], config["pretrain_steps"]
    renewals = _renewals(config, max_steps)
    if setting["target_labels"] == "revealed":
        if max_steps < 1:
            raise ConfigError(f"trainer.max_steps={max_steps} trains nothing; give 1 or more")
        steps = _recipe_steps(config, max_steps) if steps is None else steps
        if pretrain is None and has_labels:
            pretrain = 0
        elif pretrain is None and steps and config["protocol"]["pretraining"] == "until_first_round":
            pretrain = steps[0]
        elif pretrain is None:
            own = config["method"]["pretrain_fraction"]
            pretrain = round(float(setting["pretrain_fraction"] if own is None else own) * max_steps)
            pretrain = pretrain if own is None else min([pretrain, *steps])
        if not steps and not has_labels:
            raise ConfigError(
                "selection_steps=[] asks nothing, so the run has no labels to train on; give steps, begin with "
                "existing labels (start.labels=FOLDER, start.run=RUN), or use setting=source_only"
            )
        if not steps and pretrain >= max_steps:
            raise ConfigError(
                f"pretrain_steps={pretrain} leaves none of trainer.max_steps={max_steps} to train on the labels of "
                "start; lower it"
            )
        if pretrain and not setting["uses_source"]:
            raise ConfigError(f"pretrain_steps={pretrain} has no effect in setting={setting['name']}; leave it out")
    else:
        for key, value in (("selection_steps", steps), ("pretrain_steps", pretrain)):
            if value is not None and (key, setting["target_labels"]) != ("pretrain_steps", "unlabelled"):
                raise ConfigError(f"{key}={value} has no effect in setting={setting['name']}; leave it out")
        pretrain = _pretraining(config, max_steps, renewals)
        steps = ()
    try:
        return Plan(max_steps, int(pretrain), tuple(int(step) for step in steps), renewals)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _pretraining(config: Mapping[str, Any], max_steps: int, renewals: Sequence[int]) -> int:
    """Return the steps of pre-training in a setting whose target labels are not revealed in rounds."""
    setting, steps = config["setting"], config["pretrain_steps"]
    if setting["target_labels"] != "unlabelled":
        return max_steps if setting["target_labels"] == "none" else 0
    if steps is None:
        own = config["method"]["pretrain_fraction"]
        fraction = setting["pretrain_fraction"] if own is None else own
        steps = renewals[0] if renewals and own is None else min([round(float(fraction) * max_steps), *renewals])
    if steps and not setting["uses_source"]:
        raise ConfigError(
            f"setting={setting['name']} has no source to train on before step {steps} (pretrain_steps, or the first "
            "renewal); give renewal_steps that begin with 0"
        )
    return int(steps)


def _renewals(config: Mapping[str, Any], max_steps: int) -> tuple[int, ...]:
    """Return the steps of the renewals; refuse those that the method has no use for."""
    method, given = fill(MethodSpec, {**config["method"], "node": None}), config["renewal_steps"]
    labels = config["setting"]["target_labels"]
    is_used = bool(method.renewal_fractions) and labels in {*method.target_labels} - {"all", "none"}
    if given is not None and not is_used:
        raise ConfigError(
            f"renewal_steps={given} has no effect with method={method.name} in setting={config['setting']['name']}; "
            "leave it out"
        )
    if given is None:
        given = scheduled_steps(list(method.renewal_fractions), max_steps) if is_used else ()
    return tuple(int(step) for step in given)


def _recipe_steps(config: Mapping[str, Any], max_steps: int) -> Sequence[int]:
    """Return the steps of the rounds at the recipe's fractions of the run; refuse a run that is too short for them."""
    own = config["method"]["selection_fractions"]
    steps = scheduled_steps(list(config["setting"]["selection_fractions"] if own is None else own), max_steps)
    if len(set(steps)) < len(steps) or (steps and steps[-1] >= max_steps):
        raise ConfigError(
            f"trainer.max_steps={max_steps} is too short for the {len(steps)} rounds of "
            f"dataset={config['dataset']['name']}, which would take place at steps {list(steps)}; train longer, or "
            "give selection_steps"
        )
    return steps


def _make_query(config: Mapping[str, Any], num_rounds: int) -> Query:
    """Make the labelling mode and budget; refuse radii or a budget that do not fit the mode."""
    mode = config["mode"]
    cap = mode["image_cap"]
    if cap is not None and mode["budget_per"] == "image":
        raise ConfigError(f"mode.image_cap={cap} has no effect with mode.budget_per=image; leave it out")
    try:
        return Query(
            pixel=mode["pixel"],
            whole_image=mode["whole_image"],
            radius=int(mode["radius"]),
            suppress_radius=int(mode["suppress_radius"]),
            budget=float(config["budget"]),
            num_rounds=num_rounds,
            budget_per=mode["budget_per"],
            image_cap=DEFAULT_IMAGE_CAP if cap is None else float(cap),
            grid=config["protocol"]["pixel_grid"] if mode["pixel"] else "label",
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def make_dataset(node: Mapping[str, Any]) -> DatasetSpec:
    """Make the description of a data set from the plain ``dataset`` group; refuse an unknown or wrong class table."""
    table = node["taxonomy"]
    if isinstance(table, str) and table not in TAXONOMIES:
        raise ConfigError(f"dataset.taxonomy={table} is unknown; choose one of {sorted(TAXONOMIES)}")
    taxonomy = TAXONOMIES[table] if isinstance(table, str) else instantiate(table)
    return fill(DatasetSpec, {**node, "taxonomy": taxonomy})


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain, resolved containers; refuse a data set without classes."""
    if "dataset" in cfg and OmegaConf.is_missing(cfg.dataset, "classes"):
        raise ConfigError(
            f"dataset={cfg.dataset.name} needs dataset.classes, the names of the classes; docs/your-own-data.md shows "
            "how to describe your own data"
        )
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def instantiate(node: Any, **more: Any) -> Any:
    """Make the object that a node describes by its ``_target_``.

    Raises:
        ValueError: The object refuses its arguments; the message is its own.
    """
    try:
        return hydra.utils.instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, (ValueError, RuntimeError)):
            raise ConfigError(str(error)) from error
        if isinstance(cause, RipuError) or is_out_of_memory(cause):
            raise cause from None
        said = " ".join(str(cause).split())
        raise ConfigError(f"{node['_target_']} refuses its arguments ({said[:300]}); correct them") from error


def fill(kind: type[_T], node: Mapping[str, Any]) -> _T:
    """Make a dataclass from the entries of a plain node that it has fields for."""
    return kind(
        **{
            field.name: tuple(node[field.name]) if str(field.type).startswith("tuple") else node[field.name]
            for field in fields(kind)  # type: ignore[arg-type]
        }
    )
