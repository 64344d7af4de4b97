"""What a configuration says of a run: its schedule, whether it reads source images and asks, its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ripu.io.errors import ConfigError, is_of_package, is_out_of_memory
from ripu.run import initial_labels

if TYPE_CHECKING:  # torch and Lightning take long to import: only when something is built
    from ripu.datasets.taxonomy import Taxonomy
    from ripu.schedule import Plan


def make_plan(cfg: DictConfig) -> Plan:
    """The schedule of a run.

    Raises:
        ConfigError: Steps that do not fit into the run.
    """
    from ripu.schedule import Plan, scheduled_steps

    max_steps = int(cfg.trainer.max_steps)
    labels = cfg.setting.target_labels
    if labels == "revealed":
        steps = cfg.selection_steps
        if max_steps < 1:
            raise ConfigError(f"trainer.max_steps={max_steps} trains nothing; give 1 or more")
        if steps is None:
            steps = scheduled_steps(list(_timing(cfg, "selection_fractions")), max_steps)
            if len(set(steps)) < len(steps) or (steps and steps[-1] >= max_steps):
                raise ConfigError(
                    f"trainer.max_steps={max_steps} is too short for the {len(steps)} rounds of dataset={cfg.dataset.name}, "
                    f"which would take place at steps {list(steps)}; train longer, or give selection_steps"
                )
        pretrain = cfg.pretrain_steps
        if pretrain is None:
            pretrain = round(_timing(cfg, "pretrain_fraction") * max_steps)
            if cfg.protocol.get("pretraining") == "until_first_round" and steps:
                pretrain = steps[0]
            if initial_labels.is_given(cfg):
                pretrain = 0  # there are labels to train on
        if not steps and not initial_labels.is_given(cfg):
            raise ConfigError(
                "selection_steps=[] asks for nothing, and there are no labels to train on; give steps, begin with labels that "
                "are there (start.labels=FOLDER, start.run=RUN), or use setting=source_only"
            )
        if not steps and pretrain >= max_steps:
            raise ConfigError(
                f"pretrain_steps={pretrain} leaves none of trainer.max_steps={max_steps} to train on the labels that start "
                "brings; lower it"
            )
        if pretrain and not uses_source(cfg):
            raise ConfigError(f"pretrain_steps={pretrain} has no effect in setting={cfg.setting.name}; leave it out")
    else:
        for key in ("selection_steps", "pretrain_steps"):
            if cfg[key] is not None:
                raise ConfigError(f"{key}={cfg[key]} has no effect in setting={cfg.setting.name}; leave it out")
        steps, pretrain = (), max_steps if labels == "none" else 0
    try:
        return Plan(max_steps, int(pretrain), tuple(int(step) for step in steps))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _timing(cfg: DictConfig, key: str) -> Any:
    """When things happen, as the setting says it; configurations from before it did so leave it to the recipe."""
    return cfg.setting.get(key, cfg.dataset.recipe[key])


def uses_source(cfg: DictConfig) -> bool:
    """Whether a run reads source images at all."""
    return bool(cfg.setting.get("uses_source", True))


def has_rounds(cfg: DictConfig) -> bool:
    """Whether a run asks for anything; one with ``selection_steps=[]`` trains on the labels that it begins with."""
    return cfg.setting.target_labels == "revealed" and bool(make_plan(cfg).selection_steps)


def make_taxonomy(cfg: DictConfig) -> Taxonomy:
    """The classes of a run: a table of the package by its name, or one that the dataset's yaml describes.

    Raises:
        ConfigError: There is no table of this name.
        ValueError: The yaml's table is not in order.
    """
    from ripu.datasets.taxonomy import TAXONOMIES

    if not isinstance(cfg.dataset.taxonomy, str):
        if OmegaConf.is_missing(cfg.dataset, "classes"):
            raise ConfigError(
                f"dataset={cfg.dataset.name} needs dataset.classes, the names of the classes; docs/your-own-data.md tells "
                "how to describe data of one's own"
            )
        made: Taxonomy = instantiate(cfg.dataset.taxonomy)
        return made
    if cfg.dataset.taxonomy not in TAXONOMIES:
        raise ConfigError(f"dataset.taxonomy={cfg.dataset.taxonomy} is unknown; there are {sorted(TAXONOMIES)}")
    return TAXONOMIES[cfg.dataset.taxonomy]


def instantiate(node: Any, **more: Any) -> Any:
    """Make the object that a configuration node describes by its ``_target_``.

    Raises:
        ValueError: What the object's own code refuses, as it says it.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as make

    try:
        return make(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, (ValueError, RuntimeError)):
            raise ConfigError(str(error)) from error
        if is_of_package(cause) or is_out_of_memory(cause):
            raise cause from None
        said = " ".join(str(cause).split())
        raise ConfigError(
            f"{node['_target_']} refuses what it is given ({said[:300]}); correct its arguments"
        ) from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as a plain container."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
