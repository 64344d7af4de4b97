"""The schedule and the query of a run, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ripu.io.errors import ConfigError
from ripu.schedule import Plan, scheduled_steps
from ripu.selection.query import DEFAULT_IMAGE_CAP, Query


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Make the schedule of a run from its plain, resolved configuration.

    Raises:
        ConfigError: Steps that do not fit into the run.
    """
    setting, start = config["setting"], config["start"]
    has_labels = start["run"] is not None or start["labels"] is not None
    max_steps = int(config["trainer"]["max_steps"])
    steps, pretrain = config["selection_steps"], config["pretrain_steps"]
    if setting["target_labels"] == "revealed":
        steps = _round_steps(config, max_steps)
        if pretrain is None:
            pretrain = 0 if has_labels else _pretraining(config, steps, max_steps)
        if not steps and not has_labels:
            raise ConfigError(
                "selection_steps=[] asks for nothing, and there are no labels to train on; give steps, begin with "
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
            if value is not None:
                raise ConfigError(f"{key}={value} has no effect in setting={setting['name']}; leave it out")
        steps, pretrain = (), max_steps if setting["target_labels"] == "none" else 0
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


def _pretraining(config: Mapping[str, Any], steps: Sequence[int], max_steps: int) -> int:
    if config["protocol"]["pretraining"] == "until_first_round" and steps:
        return steps[0]
    return round(float(config["setting"]["pretrain_fraction"]) * max_steps)


def make_query(config: Mapping[str, Any], num_rounds: int) -> Query:
    """Make the labelling mode and budget of a run with rounds.

    Raises:
        ConfigError: Radii or a budget that do not fit the mode.
    """
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
