"""``python -m ripu.replay run=RUN acquisitions=[ripu,entropy,random]``: ask again, without training.

The target images of a run are scored by its network under other scores, windows, region shapes or budgets. A table says
what each would have revealed, and how much of it the run has asked about as well.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import logging
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ripu.config.app import chosen, command
from ripu.config.messages import explain, quiet_libraries
from ripu.config.migrate import upgrade
from ripu.config.spec import RunSpec, make_spec, plain
from ripu.config.validate import config_dir
from ripu.datasets.scenes import Scenes
from ripu.io.console import Progress
from ripu.io.errors import ConfigError
from ripu.io.reading import UntrustedError, read_json
from ripu.run import restore
from ripu.run.assembly.data import make_scenes
from ripu.run.assembly.selection import make_engine, make_store, target_images
from ripu.run.device import make_device

if TYPE_CHECKING:  # torch takes long to import: only when something is replayed
    import torch

    from ripu.datasets.errors import Fault
    from ripu.inference.logits_cache import LogitSource
    from ripu.labelstore import LabelStore
    from ripu.selection.engine import SelectionEngine

_log = logging.getLogger(__name__)

OWN = "the run"
"""Name of the run's own picks in tables."""

INPUTS_FILE = "replay-inputs.json"
"""What the rounds of a replay depend on, written before the first of them."""


def replay(cfg: DictConfig) -> dict[str, Any]:
    """Replay the selection of one run.

    Args:
        cfg: The composed configuration of ``conf/replay.yaml``.

    Returns:
        The content of ``replay.json``.

    Raises:
        ConfigError: The run has no usable checkpoint, a name is unknown, settings do not go together, or the folder
            holds another replay.
    """
    run, out = Path(cfg.run), Path(cfg.paths.output_dir)
    path = Path(cfg.checkpoint) if cfg.checkpoint is not None else run / "checkpoints" / "final.ckpt"
    if not path.exists():
        raise ConfigError(f"run={cfg.run}: {path} does not exist; name the folder of a finished run, or a checkpoint=")
    if (out / "replay.json").exists():
        raise ConfigError(f"paths.output_dir={out} holds a replay already; name another folder")

    from ripu.io.writing import write_json
    from ripu.labelstore import LabelStore
    from ripu.labelstore.files import file_digest
    from ripu.report.summary import left_out
    from ripu.run.results import provenance
    from ripu.selection.comparison import compare, summary

    device = make_device(cfg.accelerator)
    stored = restore.read_checkpoint(path)
    config = upgrade(stored["hyper_parameters"]["config"])
    jobs = {name: make_spec(plain(_config(config, cfg, node))) for name, node in _acquisitions(cfg, config).items()}
    base = next(iter(jobs.values()))
    query = base.query
    assert query is not None
    num_rounds = _num_rounds(cfg.rounds, query.num_rounds)
    asked: dict[str, LabelStore] = {}
    facts: dict[str, dict[str, Any]] = {}
    if (run / "labels").is_dir():
        asked[OWN] = LabelStore.open(run / "labels")
        facts[OWN] = {}
    digest = file_digest(path)
    inputs = _inputs(digest, jobs, num_rounds, asked.get(OWN))
    _check_same(inputs, out, jobs)
    scenes = make_scenes(base)
    images = target_images(scenes, run / "labels")
    engines = {name: make_engine(job, scenes, images) for name, job in jobs.items()}
    source = _logit_source(cfg, base, scenes, stored, device)
    if cfg.cache is not None:
        source.keep_in(Path(cfg.cache), digest)
    write_json(out / INPUTS_FILE, inputs)
    unreadable: dict[tuple[str, str], dict[str, str]] = {}
    for name, job in jobs.items():
        started = time.monotonic()
        with make_store(job, scenes, out / name, images, write=True) as asked[name]:
            carry_along(asked.get(OWN), asked[name])
            engine = engines[name]
            assert engine is not None
            picks, faults = _ask_again(name, engine, asked[name], source, num_rounds)
        _tell(faults, unreadable)
        facts[name] = {"picks": picks, "seconds": round(time.monotonic() - started, 1)}
    comparison = compare(asked, scenes.target, num_rounds)
    results: dict[str, Any] = {
        "run": str(run),
        "checkpoint": str(path),
        "rounds": num_rounds,
        "mode": base.mode,
        "radius": query.radius,
        "suppress_radius": query.suppress_radius,
        "budget": base.budget,
        "budget_per": query.budget_per,
        "region": base.region_node,
        "images": len(scenes.target),
        **comparison,
        "unreadable": [unreadable[key] for key in sorted(unreadable)],
        "provenance": provenance(),
    }
    for name, more in facts.items():
        results["asked"][name] |= more
    write_json(out / "replay.json", results)
    print(summary(results) + left_out(results["unreadable"]))
    print(f"\nin {out}: replay.json, and a label store for each score: {', '.join(f'{name}/labels' for name in jobs)}")
    return results


def _num_rounds(given: int | None, known: int) -> int:
    num_rounds = known if given is None else int(given)
    if not 1 <= num_rounds <= known:
        raise ConfigError(f"rounds={given} must lie in 1..{known}, the number of rounds of the run")
    return num_rounds


def _logit_source(
    cfg: DictConfig, base: RunSpec, scenes: Scenes, stored: Mapping[str, Any], device: torch.device
) -> LogitSource:
    """The network of the run over its target images."""
    from ripu.inference.logits_cache import LogitSource

    module = restore.restored_module(base, stored)
    module.to(device).eval()
    batch = base.evaluation.batch if cfg.batch is None else cfg.batch
    datamodule = restore.make_reader(base, scenes.target.without_labels(), scenes.val, cfg.num_workers, batch)
    return LogitSource(module, datamodule, device, scenes.taxonomy.num_classes)


def _ask_again(
    name: str, engine: SelectionEngine, store: LabelStore, source: LogitSource, num_rounds: int
) -> tuple[int, list[Fault]]:
    """All rounds of one score: the number of picks, and files that could not be read."""
    picks = 0
    faults: list[Fault] = []
    for index in range(num_rounds):
        tally = engine.run(
            store,
            index,
            index + 1,
            network=source.network,
            pool=source.pool(with_images=engine.scorer.needs_image),
            device=source.device,
            progress=Progress(f"{name}, round {index + 1} of {num_rounds}", len(engine.scorer.image_ids)),
        )
        picks += tally.picks
        faults += tally.unreadable
    return picks, faults


def _tell(faults: Iterable[Fault], told: dict[tuple[str, str], dict[str, str]]) -> None:
    """Tell of files that could not be read, of each once."""
    for fault in faults:
        if (fault.part, fault.file) not in told:
            told[fault.part, fault.file] = fault.to_json()
            _log.warning("%s: %s; nothing is asked of it (data.unreadable=skip)", fault.part, fault.cause)


# ------------------------------------------------------------------------------------------------- a replay that goes
# on


def _inputs(checkpoint: str, jobs: Mapping[str, RunSpec], num_rounds: int, own: LabelStore | None) -> dict[str, Any]:
    """What the rounds of a replay depend on; the rest of its configuration is the checkpoint's."""
    base = next(iter(jobs.values()))
    return {
        "checkpoint_sha256": checkpoint,
        "begins_with_sha256": [] if own is None else [event.content_sha256 for event in own.log.carried],
        "rounds": num_rounds,
        "budget": base.budget,
        "mode": base.config["mode"],
        "region": base.region_node,
        "acquisition": {name: job.acquisition for name, job in jobs.items()},
    }


def _check_same(inputs: Mapping[str, Any], out: Path, names: Iterable[str]) -> None:
    """Refuse a folder with rounds of another replay: they would stand, and the table would mix both."""
    from ripu.io.reading import leaves

    record, remedy = out / INPUTS_FILE, "name another folder, or remove this one"
    if not record.exists():
        if any((out / name / "labels").exists() for name in names):
            raise ConfigError(f"paths.output_dir={out} holds label stores, and no {INPUTS_FILE} says of what; {remedy}")
        return
    try:
        before = read_json(record)
    except UntrustedError as error:
        raise ConfigError(f"paths.output_dir={out}: {error}; {remedy}") from error
    old, new = leaves(before) if isinstance(before, dict) else {}, leaves(inputs)
    differs = [
        key.removesuffix("_sha256") + ("" if key.endswith("_sha256") else f": {old.get(key)} -> {new.get(key)}")
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differs:
        raise ConfigError(
            f"paths.output_dir={out} holds part of a replay with other inputs ({'; '.join(differs[:5])}); {remedy}, or "
            "repeat the command that it was begun with"
        )


# ------------------------------------------------------------------------------------------------------- what to replay


def _acquisitions(cfg: DictConfig, config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration nodes of the scores by name, interpolations unresolved."""
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
    if cfg.acquisition is not None:
        node = OmegaConf.to_container(cfg.acquisition, resolve=False)
        assert isinstance(node, dict)
        return {chosen("acquisition") or _class_name(node): node}
    node = dict(config["acquisition"])
    for key in ("radius", "pixel"):  # resolved in the run; follow the mode where they did so there
        if key in node and node[key] == config["mode"][key]:
            node[key] = f"${{mode.{key}}}"
    return {_class_name(node): node}


def _class_name(node: Mapping[Any, Any]) -> str:
    return str(node["_target_"]).rsplit(".", 1)[-1]


def _config(config: Mapping[str, Any], cfg: DictConfig, acquisition: Any) -> DictConfig:
    """The configuration of the run with what is replayed differently."""
    root = cfg.paths.data_root
    job = OmegaConf.create(dict(config if root is None else restore.with_data_root(config, root)))
    given = OmegaConf.to_container(cfg.mode, resolve=False)
    assert isinstance(given, dict)
    given = {key: value for key, value in given.items() if value is not None}
    if "name" in given:
        job.mode = given
        job.budget = job.mode.budget
    else:
        job.mode = OmegaConf.merge(job.mode, given)
        if "radius" in given and "suppress_radius" not in given:
            exclusion = job.protocol.get("pixel_exclusion", 1) if job.mode.pixel else 2
            job.mode.suppress_radius = exclusion * given["radius"]
    if cfg.region is not None:
        job.region = OmegaConf.to_container(cfg.region, resolve=False)
    elif job.get("region") is not None and "radius" in job.region:
        job.region.radius = job.mode.radius
    if cfg.budget is not None:
        job.budget = cfg.budget
    if job.setting.target_labels != "revealed":  # a run without rounds: those that it would have had
        recipe = job.dataset.recipe
        job.setting = {
            "name": "active",
            "target_labels": "revealed",
            "uses_source": True,
            "max_steps": job.trainer.max_steps,
            "pretrain_fraction": recipe.pretrain_fraction,
            "selection_fractions": recipe.selection_fractions,
        }
    if job.get("selection_steps") is not None and not job.selection_steps:  # nor had one that trained on given labels
        job.selection_steps = None
    job.acquisition = acquisition
    return job


def carry_along(own: LabelStore | None, store: LabelStore) -> None:
    """Begin a new replay with the labels that the run itself began with (``start.run``, ``start.labels``)."""
    from ripu.labelstore import carried_images

    if own is not None and own.carried and not store.log.events:
        store.carry(own.carried, carried_images(store.images, own, None, num_rounds=0))


@command("replay")
def main(cfg: DictConfig) -> None:
    """The command line."""
    from hydra.core.hydra_config import HydraConfig

    with open_dict(cfg):
        cfg.paths.output_dir = HydraConfig.get().runtime.output_dir  # a job of a multirun has a folder of its own
    quiet_libraries()
    try:
        replay(cfg)
    except Exception as error:
        explain(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
