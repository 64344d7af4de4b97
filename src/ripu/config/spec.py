"""One frozen description of a run, made once from its configuration.

Nothing below the commands reads a configuration: they read a :class:`RunSpec`. Objects that ``_target_`` describes stay
plain nodes until :func:`instantiate` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ripu.config.migrate import upgrade
from ripu.config.nodes import Node, fill, instantiate, own_arguments
from ripu.config.parts import (
    CheckpointSpec,
    DatasetSpec,
    DataSpec,
    EvaluationSpec,
    MethodSpec,
    OptimizerSpec,
    PersonSpec,
    ProtocolSpec,
    SettingSpec,
    StartSpec,
    TrainerSpec,
    make_dataset,
    make_method,
)
from ripu.datasets.taxonomy import Taxonomy
from ripu.io.errors import ConfigError
from ripu.regions import RegionShape
from ripu.schedule import Plan, scheduled_steps
from ripu.selection.query import DEFAULT_IMAGE_CAP, Query


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

    ``config`` is plain and resolved: of a command line (:func:`ripu.config.nodes.plain`), or as an older version
    stored it.

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
        optimizer_node=own_arguments(config["optimizer"], OptimizerSpec),
        average_decay=config["ema"]["decay"],
        protocol=fill(ProtocolSpec, config["protocol"]),
        data=fill(DataSpec, config["data"]),
        evaluation=fill(EvaluationSpec, config["evaluation"]),
        checkpoint=fill(CheckpointSpec, config["checkpoint"]),
        trainer=fill(TrainerSpec, config["trainer"]),
    )


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
    if steps == max_steps and not renewals:
        raise ConfigError(
            f"pretrain_steps={steps} leaves none of trainer.max_steps={max_steps} to train on the target; lower it, or "
            "use setting=source_only method=ripu"
        )
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
