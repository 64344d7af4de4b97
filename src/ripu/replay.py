"""``python -m ripu.replay run=RUN acquisitions=[ripu,entropy,random]``: ask again, without training.

The network of a run scores its target images under other scores, windows, region shapes or budgets. A table shows the
labels that each would have revealed, and their overlap with those that the run asked for.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ripu.config.app import chosen, command, quiet_libraries
from ripu.config.checks import check_output_folder
from ripu.config.nodes import plain
from ripu.config.spec import make_spec
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError, exit_on_error
from ripu.run import restore
from ripu.run.device import make_device


def replay(cfg: DictConfig) -> dict[str, Any]:
    """Replay the selection of one run.

    Returns:
        The content of ``replay.json``.

    Raises:
        ConfigError: The run has no usable checkpoint, a name is unknown, settings do not go together, or the folder
            contains another replay.
    """
    run, out = Path(cfg.run), Path(cfg.paths.output_dir)
    path = Path(cfg.checkpoint) if cfg.checkpoint is not None else run / "checkpoints" / "final.ckpt"
    if not path.exists():
        raise ConfigError(f"run={cfg.run}: {path} does not exist; name the folder of a finished run, or a checkpoint=")
    if (out / "replay.json").exists():
        raise ConfigError(f"paths.output_dir={out} contains a replay already; name another folder")
    device = make_device(cfg.accelerator)
    from ripu.run.replay_rounds import replay_rounds

    stored = restore.read_checkpoint(path)
    config = stored["hyper_parameters"]["config"]
    jobs = {name: make_spec(plain(_config(config, cfg, node))) for name, node in _acquisitions(cfg, config).items()}
    return replay_rounds(
        run,
        out,
        path,
        stored,
        jobs,
        device,
        rounds=cfg.rounds,
        cache=None if cfg.cache is None else Path(cfg.cache),
        batch=cfg.batch,
        num_workers=cfg.num_workers,
    )


def _acquisitions(cfg: DictConfig, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nodes of the scores by name, interpolations unresolved."""
    if cfg.acquisitions is not None and cfg.acquisition is not None:
        raise ConfigError(f"acquisition=... and acquisitions={list(cfg.acquisitions)} are both given; give one of them")
    if cfg.acquisitions is not None:
        folder = Path(config_dir()) / "acquisition"
        names = [cfg.acquisitions] if isinstance(cfg.acquisitions, str) else [str(name) for name in cfg.acquisitions]
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        unknown = [name for name in names if name not in known]
        if unknown or not names or len(set(names)) < len(names):
            raise ConfigError(f"acquisitions={names} must be different names of {known}")
        return {name: OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")) for name in names}
    node: Any
    if cfg.acquisition is not None:
        node, name = OmegaConf.to_container(cfg.acquisition, resolve=False), chosen("acquisition")
    else:
        node, name = _following(config["acquisition"], config["mode"]), None
    return {name or str(node["_target_"]).rsplit(".", 1)[-1]: node}


def _following(node: Mapping[str, Any], mode: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved score whose window follows the mode of the replay if it did so in the run."""
    copied = {key: _following(value, mode) if isinstance(value, Mapping) else value for key, value in node.items()}
    return copied | {key: f"${{mode.{key}}}" for key in ("radius", "pixel") if key in node and node[key] == mode[key]}


def _config(config: Mapping[str, Any], cfg: DictConfig, acquisition: Any) -> DictConfig:
    """Return the configuration of the run with the settings of the replay."""
    job = OmegaConf.create(dict(restore.with_data_root(config, cfg.paths.data_root)))
    modes: Any = OmegaConf.to_container(cfg.mode, resolve=False)
    given = {key: value for key, value in modes.items() if value is not None}
    if "name" in given:
        job.mode = given
        job.budget = job.mode.budget
    else:
        job.mode = OmegaConf.merge(job.mode, given)
        if "radius" in given and "suppress_radius" not in given:
            exclusion = job.protocol.pixel_exclusion if job.mode.pixel else 2
            job.mode.suppress_radius = exclusion * given["radius"]
    if cfg.region is not None:
        job.region = OmegaConf.to_container(cfg.region, resolve=False)
    elif "radius" in job.region:
        job.region.radius = job.mode.radius
    if cfg.budget is not None:
        job.budget = cfg.budget
    if job.setting.target_labels != "revealed":  # a run without rounds gets those of its recipe
        recipe = job.dataset.recipe
        job.setting = {
            "name": "active",
            "target_labels": "revealed",
            "uses_source": True,
            "max_steps": job.trainer.max_steps,
            "pretrain_fraction": recipe.pretrain_fraction,
            "selection_fractions": recipe.selection_fractions,
        }
    if job.selection_steps is not None and not job.selection_steps:  # so does one that trained on given labels
        job.selection_steps = None
    job.acquisition = acquisition
    if cfg.first_round is not None:
        job.first_round = OmegaConf.to_container(cfg.first_round, resolve=False)
    elif cfg.acquisitions is not None or cfg.acquisition is not None:  # scores that are compared ask in every round
        job.first_round = {}
    return job


@command("replay", lambda cfg: check_output_folder(cfg.paths.output_dir))
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    from hydra.core.hydra_config import HydraConfig

    with open_dict(cfg):
        cfg.paths.output_dir = HydraConfig.get().runtime.output_dir  # a job of a multirun has a folder of its own
    quiet_libraries()
    with exit_on_error():
        replay(cfg)


if __name__ == "__main__":
    main()
