"""Replays: the rounds of a run asked again under other scores, windows, shapes or budgets, without training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ripu.config.spec import RunSpec
from ripu.datamodule import RipuDataModule
from ripu.datasets.scenes import Scenes
from ripu.inference.logits_cache import LogitSource
from ripu.io.console import Progress
from ripu.io.errors import ConfigError
from ripu.io.reading import UntrustedError, leaves, read_json
from ripu.io.writing import write_json
from ripu.labelstore import LabelStore, TargetImage, carried_images
from ripu.models.checkpoints import file_digest
from ripu.module import RipuModule
from ripu.report.summary import left_out
from ripu.run.assembly.data import make_scenes
from ripu.run.assembly.network import check_scores
from ripu.run.assembly.selection import make_engine, make_store, target_images
from ripu.run.restore import make_reader, restored_module
from ripu.run.trainer import provenance
from ripu.selection.comparison import compare, summary
from ripu.selection.engine import SelectionEngine
from ripu.selection.forward import Labelled
from ripu.selection.rank_part import RoundTally

_log = logging.getLogger(__name__)

OWN = "the run"  # name of the run's own picks in tables
INPUTS_FILE = "replay-inputs.json"  # inputs of the rounds of a replay, written before the first of them


def replay_rounds(
    run: Path,
    out: Path,
    checkpoint: Path,
    stored: Mapping[str, Any],
    jobs: Mapping[str, RunSpec],
    device: torch.device,
    *,
    rounds: int | None = None,
    cache: Path | None = None,
    batch: int | None = None,
    num_workers: int = 0,
) -> dict[str, Any]:
    """Ask the rounds of a run again with its network, write ``replay.json`` and print a table.

    ``out`` also gets a label store for each score. ``stored`` is the content of the checkpoint, and ``jobs`` are the
    run with other settings, by the name of the score. Without ``rounds`` or ``batch`` (images per forward), they are as
    in the run. ``cache`` keeps the logits for the next replay.

    Returns:
        The content of ``replay.json``.

    Raises:
        ConfigError: The run has fewer rounds, or ``out`` contains another replay.
    """
    base = next(iter(jobs.values()))
    query = base.query
    assert query is not None
    num_rounds = query.num_rounds if rounds is None else rounds
    if not 1 <= num_rounds <= query.num_rounds:
        raise ConfigError(f"rounds={rounds} must lie in 1..{query.num_rounds}, the number of rounds of the run")
    own = LabelStore.open(run / "labels") if (run / "labels").is_dir() else None
    digest = file_digest(checkpoint)
    inputs = _inputs(jobs, digest, own, num_rounds)
    _check_same(inputs, out, jobs)
    for job in jobs.values():
        check_scores(job)
    scenes = make_scenes(base)
    images = target_images(scenes, run / "labels")
    engines = {name: make_engine(job, scenes, images) for name, job in jobs.items()}
    module = restored_module(base, stored).to(device).eval()
    batch = base.evaluation.batch if batch is None else batch
    reader = make_reader(base, scenes.target.without_labels(), scenes.val, num_workers, batch, scenes.source)
    source = LogitSource(module, reader, device, scenes.taxonomy.num_classes)
    if cache is not None:
        source.keep_in(cache, digest)
    write_json(out / INPUTS_FILE, inputs)
    asking = _Asking(num_rounds, own, scenes, images, reader, source, module)
    for name, job in jobs.items():
        asking.ask(name, job, engines[name], out / name)
    results = {**_header(run, checkpoint, base, num_rounds), **asking.results(), "provenance": provenance()}
    write_json(out / "replay.json", results)
    print(summary(results) + left_out(results["unreadable"]))
    print(f"\nin {out}: replay.json, and a label store for each score: {', '.join(f'{name}/labels' for name in jobs)}")
    return results


def _inputs(
    jobs: Mapping[str, RunSpec], checkpoint_digest: str, own: LabelStore | None, num_rounds: int
) -> dict[str, Any]:
    """Return what the rounds depend on beyond the configuration in the checkpoint."""
    base = next(iter(jobs.values()))
    return {
        "checkpoint_sha256": checkpoint_digest,
        "begins_with_sha256": [] if own is None else [event.content_sha256 for event in own.log.carried],
        "rounds": num_rounds,
        "budget": base.budget,
        "mode": base.config["mode"],
        "region": base.region_node,
        "acquisition": {name: job.acquisition for name, job in jobs.items()},
        "first_round": base.first_round,
    }


def _header(run: Path, checkpoint: Path, base: RunSpec, num_rounds: int) -> dict[str, Any]:
    """Return the part of ``replay.json`` that says what was asked again, and how."""
    query = base.query
    assert query is not None
    return {
        "run": str(run),
        "checkpoint": str(checkpoint),
        "rounds": num_rounds,
        "mode": base.mode,
        "radius": query.radius,
        "suppress_radius": query.suppress_radius,
        "budget": base.budget,
        "budget_per": query.budget_per,
        "region": base.region_node,
        "first_round": base.scores["first_round"],
    }


@dataclass
class _Asking:
    """The part of a replay that all its scores share, and what comes of asking."""

    num_rounds: int
    own: LabelStore | None  # that of the run
    scenes: Scenes
    images: list[TargetImage]
    reader: RipuDataModule
    source: LogitSource
    module: RipuModule
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the name of the score
    unreadable: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  # by part and file

    def __post_init__(self) -> None:
        self.asked = {} if self.own is None else {OWN: self.own}

    def ask(self, name: str, job: RunSpec, engine: SelectionEngine | None, folder: Path) -> None:
        """Ask all rounds of one score."""
        assert engine is not None
        started, own, tallies = time.monotonic(), self.own, []
        with make_store(job, self.scenes, folder, self.images, write=True) as store:
            self.asked[name] = store
            if own is not None and own.carried and not store.log.events:  # a replay begins with the labels of the run
                store.carry(own.carried, carried_images(store.images, own, None, num_rounds=0))
            for index in range(self.num_rounds):
                tallies.append(self._ask_round(name, engine, store, index))
        for fault in chain.from_iterable(tally.unreadable for tally in tallies):
            if (fault.part, fault.file) not in self.unreadable:
                self.unreadable[fault.part, fault.file] = fault._asdict()
                _log.warning("%s: %s; nothing is asked about it (data.unreadable=skip)", fault.part, fault.cause)
        picks = sum(tally.picks for tally in tallies)
        self.facts[name] = {"picks": picks, "seconds": round(time.monotonic() - started, 1)}

    def results(self) -> dict[str, Any]:
        """Return the part of ``replay.json`` that says what came of asking."""
        target = self.scenes.target
        found = {"images": len(target), **compare(self.asked, target, self.num_rounds)}
        for name, more in self.facts.items():
            found["asked"][name] |= more
        return {**found, "unreadable": [self.unreadable[key] for key in sorted(self.unreadable)]}

    def _ask_round(self, name: str, engine: SelectionEngine, store: LabelStore, index: int) -> RoundTally:
        reader, source = self.reader, self.source
        scorer = engine.scorer.of_round(index)
        return engine.run(
            store,
            index,
            index + 1,
            network=source.network,
            pool=reader.pool_loader  # features are not kept
            if scorer.needs_features
            else source.pool(with_images=scorer.needs_image),
            with_features=self.module.with_features,
            source=None if reader.source is None else Labelled(len(reader.source), reader.source_pool_loader),
            device=source.device,
            progress=Progress(f"{name}, round {index + 1} of {self.num_rounds}", len(engine.scorer.image_ids)),
        )


def _check_same(inputs: Mapping[str, Any], out: Path, names: Iterable[str]) -> None:
    """Refuse a folder with rounds of another replay: they would stay, and the table would mix both."""
    record, remedy = out / INPUTS_FILE, "name another folder, or remove this one"
    if not record.exists():
        if any((out / name / "labels").exists() for name in names):
            raise ConfigError(
                f"paths.output_dir={out} contains label stores, but {INPUTS_FILE} (inputs) is missing; {remedy}"
            )
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
            f"paths.output_dir={out} contains part of a replay with other inputs ({'; '.join(differs[:5])}); {remedy}, "
            "or repeat its own command"
        )
