"""From a composed configuration to objects; with the entry points and its neighbours the only place that knows Hydra."""

from __future__ import annotations

from ripu.config import resolvers
from ripu.config.checks import check_config, check_job_of_sweep, check_processes
from ripu.config.messages import explain, quiet_libraries
from ripu.config.spec import has_rounds, instantiate, make_plan, make_taxonomy, plain, uses_source
from ripu.config.validate import config_dir
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError
from ripu.run.assembly.data import (
    check_transforms,
    find_data,
    index_folder,
    load_parts,
    make_datamodule,
    make_scenes,
    make_val,
)
from ripu.run.assembly.network import INITIAL_WEIGHTS, check_start, make_module, make_network
from ripu.run.assembly.selection import check_room, make_engine, make_query, make_region, make_store, target_images

__all__ = [
    "INITIAL_WEIGHTS",
    "ConfigError",
    "Scenes",
    "check_config",
    "check_job_of_sweep",
    "check_processes",
    "check_room",
    "check_start",
    "check_transforms",
    "config_dir",
    "explain",
    "find_data",
    "has_rounds",
    "index_folder",
    "instantiate",
    "load_parts",
    "make_datamodule",
    "make_engine",
    "make_module",
    "make_network",
    "make_plan",
    "make_query",
    "make_region",
    "make_scenes",
    "make_store",
    "make_taxonomy",
    "make_val",
    "plain",
    "quiet_libraries",
    "resolvers",
    "target_images",
    "uses_source",
]
