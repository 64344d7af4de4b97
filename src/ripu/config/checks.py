"""Checks that refuse a training that cannot be run, before any long work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ripu.config.nodes import fill, plain
from ripu.config.parts import MethodSpec, SettingSpec, make_method
from ripu.config.spec import RunSpec, make_spec
from ripu.config.validate import check_values
from ripu.io.console import argument, command_line
from ripu.io.errors import ConfigError
from ripu.selection.query import Query


def checked_spec(cfg: DictConfig, *, words: Sequence[str] = (), experiment: str | None = None) -> RunSpec:
    """Make the description of a run from a composed configuration of ``ripu.train``; refuse one that cannot be run.

    ``words`` are those of the command line, ``experiment`` is the choice of ``experiment=``.

    Raises:
        ConfigError: Naming the key, its value, what is allowed and why.
    """
    check_values(cfg, "train")
    _check_output(cfg)
    config = plain(_without_hydra(cfg))
    # First, because a schedule that does not fit would be blamed on keys that nobody gave.
    _check_setting(make_method(config["method"]), fill(SettingSpec, config["setting"]))
    spec = make_spec(config, words=words, experiment=experiment)
    _check_spec(spec)
    if not spec.has_rounds and spec.budget != cfg.mode.budget:
        where = "without rounds (selection_steps=[])" if spec.setting.is_active else f"in setting={spec.setting.name}"
        raise ConfigError(f"budget={spec.budget} has no effect {where}; leave it out")
    return spec


def _without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a configuration without the values that Hydra itself gives, which are not known before it has started."""
    if HydraConfig.initialized():
        return cfg

    def settled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: settled(value) for key, value in node.items()}
        return None if isinstance(node, str) and "${hydra:" in node else node

    known: DictConfig = OmegaConf.create(settled(OmegaConf.to_container(cfg, resolve=False)))
    return known


def _check_output(cfg: DictConfig) -> None:
    """Refuse an output folder that a run cannot have, or that is not given although the run needs a certain one."""
    if "ripu.started" in str(OmegaConf.to_container(cfg.paths, resolve=False)["output_dir"]):  # type: ignore[index,call-overload]
        if cfg.resume:
            raise ConfigError(
                "resume=true resumes the run in paths.output_dir, which is not given; add paths.output_dir=RUN"
            )
        if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("processes that torchrun starts need a folder that they share; add paths.output_dir=RUN")
    given = OmegaConf.select(cfg, "paths.output_dir")
    if OmegaConf.select(cfg, "paths.data_root") is None:
        raise ConfigError("paths.data_root=null is not allowed; name the parent of the data sets' folders")
    folder = check_output_folder(given)
    for part in ("source", "target", "val"):
        root = OmegaConf.select(cfg, f"dataset.{part}.root")
        if OmegaConf.select(cfg, f"dataset.{part}._target_") == "ripu.datasets.folder.load_folder":
            continue  # the user's own data may lie anywhere
        if root and folder.is_relative_to(os.path.abspath(str(root))):
            raise ConfigError(
                f"paths.output_dir={given} lies in the data set (dataset.{part}.root={root}); name a folder outside it"
            )


def check_output_folder(given: object) -> Path:
    """Return the absolute path of a ``paths.output_dir``; refuse a file, and a place where nothing can be written."""
    folder = Path(os.path.abspath(str(given)))
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not parent.is_dir():
        raise ConfigError(f"paths.output_dir={given}: {parent} is a file; name a folder")
    probe = parent / f".ripu-{os.getpid()}-{os.urandom(4).hex()}"
    try:  # permissions do not settle it on every file system
        probe.mkdir()
        probe.rmdir()
    except OSError:
        raise ConfigError(f"paths.output_dir={given}: {parent} cannot be written to; name another folder") from None
    return folder


def _check_spec(spec: RunSpec) -> None:
    if spec.trainer.accelerator == "cpu":
        check_processes(spec.trainer.devices, "trainer.accelerator=cpu")
    mask = spec.dataset.static_mask
    if mask is not None and not Path(mask).is_file():
        raise ConfigError(
            f"dataset.static_mask={mask} does not exist; give a grey PNG that is non-zero where nothing may be queried"
        )
    if spec.dataset.num_classes != spec.taxonomy.num_classes:
        raise ConfigError(
            f"dataset.num_classes={spec.dataset.num_classes}, but taxonomy {spec.taxonomy.name} has "
            f"{spec.taxonomy.num_classes} classes"
        )
    if spec.dry_run and spec.resume:
        raise ConfigError("dry_run=true forecasts a whole run, but resume=true continues one; leave one of them out")
    _check_method(spec)
    _check_start(spec)
    if spec.setting.needs_network and not spec.model_checkpoint and spec.start.run is None:
        or_run = ", or start.run=RUN" if spec.setting.is_active else ""
        raise ConfigError(
            f"setting={spec.setting.name} begins with a trained network; give "
            f"model.checkpoint=RUN/checkpoints/final.ckpt of a run with setting=source_only{or_run}"
        )
    if 0 in spec.plan.renewal_steps and not spec.model_checkpoint and spec.start.run is None:
        raise ConfigError(
            f"renewal_steps={list(spec.plan.renewal_steps)} lets method={spec.method.name} learn from the predictions "
            "of an untrained network; give model.checkpoint=RUN/checkpoints/final.ckpt of a run with "
            "setting=source_only, or renewal_steps that begin later"
        )
    if spec.query is not None and spec.query.whole_image and spec.person is not None:
        raise ConfigError(
            f"oracle._target_={spec.oracle['_target_']} asks people about places in images, but mode={spec.mode} asks "
            "for every pixel of an image; use oracle=truth, or mode=ra"
        )
    if spec.query is not None and not spec.query.whole_image and (spec.region is None or not spec.region.is_fixed):
        check_room(spec.query, spec.data.target_size, spec.data.target_size)


_SETTINGS = {"revealed": "active", "all": "fully_supervised", "none": "source_only", "unlabelled": "unlabelled"}
"""Target labels -> the setting that has them, with a source."""


def _check_setting(method: MethodSpec, setting: SettingSpec) -> None:
    """Refuse a method that needs what the setting lacks."""
    if setting.target_labels not in method.target_labels:
        why = {
            "revealed": "asks for target labels",
            "all": "has every target label",
            "none": "reads no target image",
            "unlabelled": "reads target images without labels",
        }
        known = [_SETTINGS[labels] for labels in method.target_labels]
        if method.target_labels == ["unlabelled"] and not method.needs_source:
            known = ["source_free_unlabelled"]
        others = " or ".join(f"setting={name}" for name in known)
        raise ConfigError(
            f"method={method.name} has no use for setting={setting.name}, which {why[setting.target_labels]}; use "
            f"{others}, or another method{' such as method=cbst' if setting.target_labels == 'unlabelled' else ''}"
        )
    if method.needs_source and not setting.uses_source:
        raise ConfigError(
            f"method={method.name} reads source images, and setting={setting.name} has none; use a setting with a "
            "source, or another method"
        )


def _check_method(spec: RunSpec) -> None:
    """Refuse a method that cannot ask in the labelling mode, or learns nothing from its renewals."""
    method = spec.method
    if method.modes and spec.has_rounds and spec.mode not in method.modes:
        modes = " or ".join(f"mode={name}" for name in method.modes)
        raise ConfigError(f"method={method.name} cannot ask with mode={spec.mode}; use {modes}, or another method")
    if spec.plan.renewal_steps and method.node is None:
        raise ConfigError(
            f"method.renewal_fractions={list(method.renewal_fractions)} lets method={method.name} look at all target "
            "images, from which it learns nothing; leave it out, or use a method that does, such as method=cbst"
        )


def _check_start(spec: RunSpec) -> None:
    """Refuse a warm start that the rest of the configuration has no use for; look at no file."""
    start = spec.start
    if not spec.setting.is_active:
        for name, value in (("run", start.run), ("labels", start.labels)):
            if value is not None:
                weights = argument("model.checkpoint", f"{value}/checkpoints/final.ckpt")
                raise ConfigError(
                    f"start.{name}={value} provides revealed labels, which setting={spec.setting.name} does not use; "
                    f"use {weights if name == 'run' else 'setting=active'}"
                )
    if start.run is None:
        return
    if spec.model_checkpoint:
        raise ConfigError(
            f"start.run={start.run} begins with that run's final weights, but model.checkpoint={spec.model_checkpoint} "
            "names others; leave one out (for its labels alone: "
            f"{command_line('labels', ['export', start.run, 'MASKS'])}, then start.labels=MASKS)"
        )
    if Path(start.run).absolute() == spec.output_dir.absolute():
        raise ConfigError(
            f"start.run={start.run} is paths.output_dir itself; a warm start needs a folder of its own (resume=true "
            "continues an unfinished run)"
        )


def check_room(query: Query, size: tuple[int, int], train_size: tuple[int, int]) -> None:
    """Refuse more picks than fit side by side into a label; sizes are (height, width) of it and in training."""
    wanted = query.picks_per_round(size, train_size) * query.num_rounds
    side = query.suppress_radius + 1
    room = -(-size[0] // side) * -(-size[1] // side)
    if wanted > room:
        what = "pixels" if query.pixel else "regions"
        raise ConfigError(
            f"budget={query.budget:g} is {wanted} {what} of a {size[0]} x {size[1]} image over {query.num_rounds} "
            f"rounds, but only {room} fit into it at mode.suppress_radius={query.suppress_radius}; lower the budget or "
            "the radius"
        )


def check_processes(devices: Any, where: str) -> None:
    """Refuse a ``trainer.devices`` on a CPU that is not a number of processes; ``where`` is the reason."""
    if devices != "auto" and not (str(devices).isdigit() and int(devices) > 0):
        raise ConfigError(
            f"trainer.devices={devices} is not allowed with {where}, where it is the number of processes; give 1 or "
            "more"
        )
