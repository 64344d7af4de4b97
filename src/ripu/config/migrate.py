"""Configurations that older versions stored, brought to the keys of today."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "seed": 0,
    "resume": False,
    "dry_run": False,
    "selection_steps": None,
    "pretrain_steps": None,
    "region": None,
    "start": {"run": None, "labels": None, "ids": "train", "missing_masks": "refuse"},
    "mode": {"budget_per": "image", "image_cap": None},
    "setting": {"uses_source": True},
    "protocol": {
        "pretraining": "recipe",
        "pixel_grid": "label",
        "pixel_exclusion": 1,
        "loss_epsilon": 0.0,
        "source_sampling": "uniform",
        "flip": False,
    },
    "data": {"num_workers": 0, "cache": None, "unreadable": "stop"},
    "evaluation": {"batch": 4, "flip": False, "save_predictions": False, "pictures": 4, "gallery": 12},
    "checkpoint": {"every_steps": None, "every_minutes": 15.0, "keep": 2},
    "trainer": {
        "accelerator": "auto",
        "devices": 1,
        "strategy": "auto",
        "num_nodes": 1,
        "timeout_minutes": 30.0,
        "precision": "32-true",
        "accumulate": 1,
        "channels_last": True,
        "compile": False,
        "log_every_n_steps": 10,
        "deterministic": False,
    },
    "logger": {},
    "paths": {"beginnings": None},
    "dataset": {"prepare": None, "static_mask": None},
}
"""Keys that came later, with the values that earlier runs had without them."""


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with every key of today.

    Args:
        config: A plain, resolved configuration as a checkpoint or ``config.yaml`` holds it; it is not changed.

    Returns:
        A copy in which missing keys have the values that the run had without them.
    """
    upgraded = _filled(config, DEFAULTS)
    recipe = upgraded["dataset"].get("recipe") or {}
    for key in ("pretrain_fraction", "selection_fractions"):  # the recipe alone held them once
        if key in recipe:
            upgraded["setting"].setdefault(key, recipe[key])
    return upgraded


def _filled(node: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = copy.deepcopy(dict(node))
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(filled.get(key), Mapping):
            filled[key] = _filled(filled[key], value)
        elif key not in filled or (filled[key] is None and isinstance(value, Mapping)):
            filled[key] = copy.deepcopy(value)
    return filled
