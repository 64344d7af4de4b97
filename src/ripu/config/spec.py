"""One frozen description of a run, made once from its configuration.

Nothing below the commands reads a configuration: they read a :class:`RunSpec`. Its parts bear the names of the groups
in ``conf/``; objects that ``_target_`` describes stay plain nodes until :func:`instantiate` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ripu.config.migrate import upgrade
from ripu.io.errors import ConfigError, RipuError, is_out_of_memory
from ripu.schedule import Plan, scheduled_steps

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ripu.datasets.taxonomy import Taxonomy
    from ripu.regions import RegionShape
    from ripu.selection.query import Query

Node = Mapping[str, Any]
"""A plain node with ``_target_``, which :func:`instantiate` makes an object of."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class DatasetSpec:
    """The data of a run.

    Attributes:
        name: Name of the data set.
        num_classes: C.
        taxonomy: The classes, in train-id order.
        prepare: Generates the data; None where they must be there.
        source: Loads the labelled source scenes.
        target: Loads the target scenes.
        val: Loads the validation scenes.
        static_mask: A grey PNG, non-zero where nothing is ever asked.
    """

    name: str
    num_classes: int
    taxonomy: Taxonomy
    prepare: Node | None
    source: Node
    target: Node
    val: Node
    static_mask: str | None


@dataclass(frozen=True)
class SettingSpec:
    """The labels and domains that a run trains on.

    Attributes:
        name: Name of the setting.
        target_labels: ``revealed`` by rounds, ``all`` or ``none``.
        uses_source: False where no source image is read.
    """

    name: str
    target_labels: str
    uses_source: bool

    @property
    def is_active(self) -> bool:
        """True where target labels are those that rounds (or ``start``) reveal."""
        return self.target_labels == "revealed"


@dataclass(frozen=True)
class StartSpec:
    """The warm start of a run.

    Attributes:
        run: Folder of a finished run whose last weights and labels the run begins with.
        labels: Folder of masks that the run begins with.
        ids: Ids of these masks: ``train`` or ``label``.
        missing_masks: ``refuse`` or ``allow`` target images without a mask.
    """

    run: str | None
    labels: str | None
    ids: str
    missing_masks: str

    @property
    def has_labels(self) -> bool:
        """True where the run begins with target labels."""
        return self.run is not None or self.labels is not None

    @property
    def weights(self) -> Path | None:
        """The checkpoint of ``run``; None without one."""
        return None if self.run is None else Path(self.run) / "checkpoints" / "final.ckpt"


@dataclass(frozen=True)
class ObjectiveSpec:
    """Weights of the loss terms (Eq. 12) and tau; see ``conf/train.yaml``."""

    consistency_weight: float
    negative_weight: float
    negative_threshold: float


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimiser and its poly schedule; see ``conf/train.yaml``."""

    learning_rate: float
    head_lr_factor: float
    momentum: float
    weight_decay: float
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
    """When checkpoints are written, and how many are kept; see ``conf/train.yaml``."""

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
    """Everything that a run is, in plain values.

    Attributes:
        config: The plain, resolved configuration, as ``config.yaml`` and checkpoints keep it.
        words: Words of the command line, with the folder of the user's own configurations.
        experiment: The row of the paper's tables that the command line chose.
        output_dir: The folder of the run.
        data_root: The parent of the data sets' folders.
        beginnings: The folder of shared beginnings.
        seed: Seed of everything that is drawn.
        resume: Continue the run in ``output_dir``.
        dry_run: Forecast the run and keep nothing.
        plan: When things happen.
        query: The labelling mode and budget; None in a run without rounds.
        mode: Name of the labelling mode.
        budget: The budget as configured.
        acquisition: Describes the score.
        region_node: Describes the shape of regions; None for the squares of the query.
        model: Describes the network; ``checkpoint`` in it names weights to start from.
        loggers: Describe loggers besides ``metrics.csv``.
        dataset: The data.
        setting: The labels and domains that are trained on.
        start: The warm start.
        objective: Weights of the loss terms.
        optimizer: The optimiser.
        protocol: Readings of the paper.
        data: The images of a step.
        evaluation: Evaluations and pictures.
        checkpoint: When checkpoints are written.
        trainer: Devices, processes and arithmetic.
    """

    config: dict[str, Any]
    words: tuple[str, ...]
    experiment: str | None
    output_dir: Path
    data_root: Path
    beginnings: Path | None
    seed: int
    resume: bool
    dry_run: bool
    plan: Plan
    query: Query | None
    mode: str
    budget: float
    acquisition: Node
    region_node: Node | None
    model: Node
    loggers: tuple[Node, ...]
    dataset: DatasetSpec
    setting: SettingSpec
    start: StartSpec
    objective: ObjectiveSpec
    optimizer: OptimizerSpec
    protocol: ProtocolSpec
    data: DataSpec
    evaluation: EvaluationSpec
    checkpoint: CheckpointSpec
    trainer: TrainerSpec

    @property
    def has_rounds(self) -> bool:
        """True where the run asks for labels; with ``selection_steps=[]`` it trains on those that it begins with."""
        return bool(self.plan.selection_steps)

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
            ConfigError: The shape and the labelling mode do not go together, or its library is missing.
        """
        if self.query is None or self.region_node is None:
            return None
        shape: RegionShape = instantiate(self.region_node)
        if shape.is_fixed and self.query.pixel:
            raise ConfigError(
                f"region._target_={self.region_node['_target_']} cuts images into regions, and mode={self.mode} asks "
                "for single pixels; use mode=ra, or region=square"
            )
        radius = self.region_node.get("radius", self.query.radius)
        if not shape.is_fixed and radius != self.query.radius:
            raise ConfigError(
                f"region.radius={radius} differs from mode.radius={self.query.radius}; give mode.radius alone, which "
                "scores and squares share"
            )
        return shape


def make_spec(config: Mapping[str, Any], *, words: Sequence[str] = (), experiment: str | None = None) -> RunSpec:
    """Make the description of a run from its configuration.

    Args:
        config: The plain, resolved configuration: of a command line (:func:`plain`), or as an older version stored it.
        words: Words of the command line.
        experiment: The choice of ``experiment=``.

    Raises:
        ConfigError: The schedule, the query or the classes cannot be.
    """
    config = upgrade(config)
    paths, mode = config["paths"], config["mode"]
    setting, start = _fill(SettingSpec, config["setting"]), _fill(StartSpec, config["start"])
    dataset = make_dataset(config["dataset"])
    plan = _make_plan(config, setting, start)
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
        mode=mode["name"],
        budget=config["budget"],
        acquisition=config["acquisition"],
        region_node=config["region"],
        model=config["model"],
        loggers=tuple(node for node in config["logger"].values() if node is not None),
        dataset=dataset,
        setting=setting,
        start=start,
        objective=_fill(ObjectiveSpec, config["objective"]),
        optimizer=_fill(OptimizerSpec, config["optimizer"]),
        protocol=_fill(ProtocolSpec, config["protocol"]),
        data=_fill(DataSpec, config["data"]),
        evaluation=_fill(EvaluationSpec, config["evaluation"]),
        checkpoint=_fill(CheckpointSpec, config["checkpoint"]),
        trainer=_fill(TrainerSpec, config["trainer"]),
    )


def make_dataset(node: Mapping[str, Any]) -> DatasetSpec:
    """Make the description of a data set from the plain ``dataset`` group.

    Raises:
        ConfigError: There is no class table of this name, or the one that is described is not in order.
    """
    from ripu.datasets.taxonomy import TAXONOMIES

    table = node["taxonomy"]
    if isinstance(table, str) and table not in TAXONOMIES:
        raise ConfigError(f"dataset.taxonomy={table} is unknown; there are {sorted(TAXONOMIES)}")
    taxonomy = TAXONOMIES[table] if isinstance(table, str) else instantiate(table)
    return _fill(DatasetSpec, {**node, "taxonomy": taxonomy})


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain, resolved containers.

    Raises:
        ConfigError: The user's own data set has no classes.
    """
    from omegaconf import OmegaConf

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
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as make

    try:
        return make(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, (ValueError, RuntimeError)):
            raise ConfigError(str(error)) from error
        if isinstance(cause, RipuError) or is_out_of_memory(cause):
            raise cause from None
        said = " ".join(str(cause).split())
        raise ConfigError(f"{node['_target_']} refuses its arguments ({said[:300]}); correct them") from error


def _fill(kind: type[_T], node: Mapping[str, Any]) -> _T:
    """Make a part of a spec from the entries of a node that it has fields for."""
    return kind(
        **{
            field.name: tuple(node[field.name]) if str(field.type).startswith("tuple") else node[field.name]
            for field in fields(kind)  # type: ignore[arg-type]
        }
    )


def _make_plan(config: Mapping[str, Any], setting: SettingSpec, start: StartSpec) -> Plan:
    max_steps = int(config["trainer"]["max_steps"])
    steps, pretrain = config["selection_steps"], config["pretrain_steps"]
    if setting.is_active:
        steps = _round_steps(config, max_steps)
        if pretrain is None:
            pretrain = _default_pretraining(config, steps, start, max_steps)
        if not steps and not start.has_labels:
            raise ConfigError(
                "selection_steps=[] asks for nothing, and there are no labels to train on; give steps, begin with "
                "existing labels (start.labels=FOLDER, start.run=RUN), or use setting=source_only"
            )
        if not steps and pretrain >= max_steps:
            raise ConfigError(
                f"pretrain_steps={pretrain} leaves none of trainer.max_steps={max_steps} to train on the labels of "
                "start; lower it"
            )
        if pretrain and not setting.uses_source:
            raise ConfigError(f"pretrain_steps={pretrain} has no effect in setting={setting.name}; leave it out")
    else:
        for key, value in (("selection_steps", steps), ("pretrain_steps", pretrain)):
            if value is not None:
                raise ConfigError(f"{key}={value} has no effect in setting={setting.name}; leave it out")
        steps, pretrain = (), max_steps if setting.target_labels == "none" else 0
    try:
        return Plan(max_steps, int(pretrain), tuple(int(step) for step in steps))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _round_steps(config: Mapping[str, Any], max_steps: int) -> Sequence[int]:
    if max_steps < 1:
        raise ConfigError(f"trainer.max_steps={max_steps} trains nothing; give 1 or more")
    given: Sequence[int] | None = config["selection_steps"]
    if given is not None:
        return given
    steps = scheduled_steps(list(config["setting"]["selection_fractions"]), max_steps)
    if len(set(steps)) < len(steps) or (steps and steps[-1] >= max_steps):
        raise ConfigError(
            f"trainer.max_steps={max_steps} is too short for the {len(steps)} rounds of "
            f"dataset={config['dataset']['name']}, which would take place at steps {list(steps)}; train longer, or "
            "give selection_steps"
        )
    return steps


def _default_pretraining(config: Mapping[str, Any], steps: Sequence[int], start: StartSpec, max_steps: int) -> int:
    if start.has_labels:
        return 0  # there are labels to train on
    if config["protocol"]["pretraining"] == "until_first_round" and steps:
        return int(steps[0])
    return round(float(config["setting"]["pretrain_fraction"]) * max_steps)


def _make_query(config: Mapping[str, Any], num_rounds: int) -> Query:
    from ripu.selection.query import DEFAULT_IMAGE_CAP, Query

    mode = config["mode"]
    cap = mode["image_cap"]
    if cap is not None and mode["budget_per"] == "image":
        raise ConfigError(f"mode.image_cap={cap} has no effect with mode.budget_per=image; leave it out")
    try:
        return Query(
            pixel=mode["pixel"],
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
