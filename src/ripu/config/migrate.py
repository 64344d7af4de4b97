"""Stored configurations of runs, read and brought up to today's keys.

Every default for a key that older runs lack and every renamed ``_target_`` stands here and nowhere else. The defaults
are what the code did before the key existed, not what ``conf/`` says today.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ripu.config.keys import key_of
from ripu.io.reading import UntrustedError, leaves, read_yaml


@dataclass(frozen=True)
class _Same:
    """Stands for the value of another key."""

    key: str


_DEFAULTS: Mapping[str, Any] = {
    # Groups
    "start": {"run": None, "labels": None, "ids": "train", "missing_masks": "refuse"},
    "first_round": {},
    "ema": {"decay": None},
    "method": {"name": "ripu", "target_labels": ["revealed", "all", "none"]},
    "oracle": {"_target_": "ripu.selection.oracles.GroundTruthOracle"},
    "region": {"_target_": "ripu.regions.Square", "radius": _Same("mode.radius")},
    # Keys of groups; a key is left out if its group is missing.
    "dry_run": False,
    "renewal_steps": None,
    "data.bands": None,
    "data.cache": None,
    "data.fit": "stretch",
    "data.measured_range": None,
    "data.unreadable": "stop",
    "data.value_range": "bit_depth",
    "evaluation.gallery": 0,
    "logger.tensorboard": None,
    "method.labelled_images": False,
    "method.modes": [],
    "method.needs_source": False,
    "method.pretrain_fraction": None,
    "method.renewal_fractions": [],
    "method.selection_fractions": None,
    "mode.budget_per": "image",
    "mode.image_cap": None,
    "mode.whole_image": False,
    "model.checkpoint": None,
    "objective._target_": "ripu.objectives.RipuObjective",
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.clip_norm": None,
    "optimizer.layer_decay": 1.0,
    "optimizer.norm_decay": True,
    "optimizer.schedule": "poly",
    "optimizer.warmup_fraction": 0.0,
    "paths.beginnings": None,
    "protocol.flip": _Same("evaluation.flip"),
    "protocol.loss_epsilon": 0.0,
    "protocol.norm_statistics": "target",
    "protocol.pixel_exclusion": 1,
    "protocol.pixel_grid": "label",
    "protocol.pretraining": "recipe",
    "protocol.score_numerics": "exact",
    "protocol.source_sampling": "uniform",
    "setting.max_steps": _Same("dataset.recipe.max_steps"),
    "setting.needs_network": False,
    "setting.pretrain_fraction": _Same("dataset.recipe.pretrain_fraction"),
    "setting.selection_fractions": _Same("dataset.recipe.selection_fractions"),
    "setting.uses_source": True,
    "trainer.timeout_minutes": 30.0,
}
"""Key -> its value in runs that are older than the key."""

_OF_TARGETS: Mapping[str, Mapping[str, Any]] = {
    "ripu.objectives.RipuObjective": {"class_balance": 0.0},
    "ripu.models.smp.SmpNetwork": {"train_encoder": "all", "lora_rank": 8},
    "ripu.models.deeplabv2.DeepLabV2": {"train_encoder": "all"},
    "ripu.models.deeplabv3plus.DeepLabV3Plus": {"train_encoder": "all"},
}
"""``_target_`` of ``model`` or ``objective`` -> the same for keys that others of their kind do not have."""

RENAMED: Mapping[str, str] = {
    "ripu.boards.TensorBoard": "ripu.dashboards.tensorboard.TensorBoard",
    "ripu.wandb_board.WandbBoard": "ripu.dashboards.wandb.WandbBoard",
}
"""``_target_`` of older runs -> today's name."""


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a stored configuration with the keys and names of today; keys that it has keep their values.

    It may come from any version, and from anybody.

    Example:
        >>> old = {"mode": {"radius": 3}, "setting": {"name": "active"}}
        >>> new = upgrade(old)
        >>> new["region"], new["setting"]["uses_source"]
        ({'_target_': 'ripu.regions.Square', 'radius': 3}, True)
    """
    new = {key: _with_names_of_today(value) for key, value in config.items()}
    for key, value in _DEFAULTS.items():
        group, _, name = key.rpartition(".")
        node = new.get(group) if group else new
        if isinstance(node, dict) and name not in node:
            node[name] = _resolved(value, config)
    for group in ("model", "objective"):
        if isinstance(node := new.get(group), dict) and isinstance(target := node.get("_target_"), str):
            new[group] = {**_OF_TARGETS.get(target, {}), **node}
    return new


def _with_names_of_today(node: Any, depth: int = 2) -> Any:
    """Copy the upper levels of a group, which contain its ``_target_`` entries."""
    if not isinstance(node, Mapping) or not depth:
        return node
    copied = {key: _with_names_of_today(value, depth - 1) for key, value in node.items()}
    if isinstance(target := copied.get("_target_"), str):
        copied["_target_"] = RENAMED.get(target, target)
    return copied


def _resolved(value: Any, config: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(part, config) for key, part in value.items()}
    if not isinstance(value, _Same):
        return value
    found: Any = config
    for name in value.key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return a plain configuration as the text of ``config.yaml``."""
    return OmegaConf.to_yaml(OmegaConf.create({**config}))


def read_stored(path: Path) -> dict[str, Any]:
    """Read the ``config.yaml`` of a run that may be older than today's keys.

    Raises:
        UntrustedError: It is damaged, or not a mapping.
        OSError: It cannot be read.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UntrustedError(f"{path} contains no configuration")
    return upgrade(content)


def read_values(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the ``config.yaml`` of a run by dotted key.

    Returns:
        All values, and those that tell runs apart: not how fast, where and with which seed they were trained.
    """
    values = leaves(read_stored(path))
    return values, {key: value for key, value in values.items() if key_of(key).is_compared}
