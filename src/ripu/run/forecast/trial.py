"""The trial run that a forecast measures: real steps, a real round and real evaluations over a few images."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ripu.config.spec import RunSpec
from ripu.datamodule import SOURCE, TARGET
from ripu.datasets.scenes import Scenes
from ripu.loading.class_balance import is_index_kept
from ripu.loading.image_cache import ImageCache
from ripu.loading.samples import EvalScenes, PoolScenes, TrainScenes
from ripu.report.page import try_page
from ripu.run.assembly.data import index_folder, make_datamodule, make_scenes, make_transforms, with_measured_range
from ripu.run.assembly.network import check_start, make_module
from ripu.run.assembly.selection import make_engine, make_store, target_images
from ripu.run.device import check_shares, num_processes
from ripu.run.forecast.estimate import Carried, Measured, kind_of
from ripu.run.lifecycle import report
from ripu.run.memory import begin_peak
from ripu.run.trainer import Run, add_callbacks, make_trainer
from ripu.run.warm_start import StartLabels, find_labels
from ripu.schedule import Plan
from ripu.selection.renewal import Renewals, images_of_renewal
from ripu.selection.round_report import carried_fraction
from ripu.training.checkpoint_callback import RunCheckpoint
from ripu.training.peak_memory import peak_memory_gib
from ripu.training.progress import ProgressBar

STEPS = 4  # of each kind; the first of a kind warms up and is not counted
BATCHES = 2  # of a round and of an evaluation; the first warms up
SAMPLES = 3  # that reading is timed on


class _QuietBar(ProgressBar):
    """A bar that shows nothing, and notes when each image of a round was done."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.disable()
        self.done: list[float] = []

    def on_selection(self, index: int, num_rounds: int) -> Callable[[int, int], None]:
        self.done = [time.monotonic()]
        return lambda done, total: self.done.append(time.monotonic())


class _Stopwatch(pl.Callback):
    """Times steps, rounds and evaluation batches; must be the last callback."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.steps: dict[int, float] = {}
        self.batches: list[tuple[float, int]] = []
        self.round = 0.0
        self._began = self._mark = 0.0
        self._step = 0

    @staticmethod
    def _now(pl_module: pl.LightningModule) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        return time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._began, self._step = self._now(pl_module), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._mark = self._now(pl_module)
        self.steps[self._step] = self.steps.get(self._step, 0.0) + self._mark - self._began

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._began = self._now(pl_module)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.batches.append((self._now(pl_module) - self._began, len(batch["image"])))

    on_test_batch_start = on_validation_batch_start  # type: ignore[assignment]
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = self._now(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step in self.plan.selection_steps:
            renewals = _renewals(trainer)  # the only one of a trial may be at this step
            renewed = 0.0 if renewals is None else renewals.seconds
            self.round = self._now(pl_module) - self._mark - renewed


def measure(spec: RunSpec) -> Measured:
    """Carry out the trial run."""
    begin_peak()
    check_start(spec)
    spec = with_measured_range(spec)
    if spec.dataset.prepare is not None:
        make_scenes(spec)  # generated scenes exist already when the run itself begins
    began = time.monotonic()
    scenes = make_scenes(spec)
    found = time.monotonic() - began
    check_shares(spec, len(scenes.val))
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="ripu-dry-run-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        labels = find_labels(spec, scenes.target)
        carried = None if labels is None else _carry(spec, scenes, labels, folder / "whole")
        measured = _about(spec, scenes, carried)
        small = _first(scenes, BATCHES * spec.evaluation.batch)
        trial = _trial_spec(spec, folder)
        began = time.monotonic()
        module = make_module(trial)
        trainer = make_trainer(trial)
        images, store = [], None
        if spec.setting.is_active:
            images = target_images(small, folder / "labels")
            store = stack.enter_context(make_store(spec, small, folder, images, write=True))
            if labels is not None:
                labels.carry(store)
        carried_bytes = _bytes(folder / "labels", "*.dat")
        engine = make_engine(trial, small, images)
        datamodule = make_datamodule(trial, small, store)
        bar, watch = _QuietBar(trial.plan), _Stopwatch(trial.plan)
        run = Run(trial, trainer, small, module, datamodule, engine, store)
        add_callbacks(run, watch, bar=bar)
        measured.setup = found + time.monotonic() - began
        device = trainer.strategy.root_device
        measured.is_cpu = device.type == "cpu"
        measured.device = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.fit(module, datamodule)
            trainer.save_checkpoint(folder / "checkpoints" / "final.ckpt", weights_only=True)
            measured.checkpoint = _seconds(RunCheckpoint(folder / "again", trial.plan).save, trainer)
            trainer.test(module, datamodule, verbose=False)
            measured.report = _seconds(report, run)
        _take_times(measured, watch, bar, len(small.target))
        _take_reads(measured, spec, scenes, folder / "cache")
        measured.round_image = max(0.0, measured.round_image - measured.first_reads["pool"])
        _take_renewal(measured, run)
        if spec.has_rounds:
            measured.page = _seconds(try_page, folder)
            rest = watch.round - measured.page - (bar.done[-1] - bar.done[0])
            measured.round_rest = max(0.0, rest) / len(small.target)
        _take_sizes(measured, run, carried_bytes)
        _take_memory(measured, device)
        return measured


def _about(spec: RunSpec, scenes: Scenes, carried: Carried | None) -> Measured:
    """Return what is known before the trial run."""
    return Measured(
        spec,
        carried=carried,
        num_source=0 if scenes.source is None else len(scenes.source),
        num_target=len(scenes.target),
        num_val=len(scenes.val),
        label_sizes=[scenes.target.label_size(index) for index in range(len(scenes.target))],
        world_size=num_processes(spec.trainer),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def _first(scenes: Scenes, count: int) -> Scenes:
    """Return the scenes with no more than ``count`` to ask about and to evaluate on."""
    target, val = (replace(part, scenes=part.scenes[:count]) for part in (scenes.target, scenes.val))
    return replace(scenes, target=target, val=val)


def _carry(spec: RunSpec, scenes: Scenes, labels: StartLabels, folder: Path) -> Carried:
    """Copy all labels of the warm start, as the run itself will."""
    began = time.monotonic()
    images = target_images(scenes, folder / "labels")
    with make_store(spec, scenes, folder, images, write=True) as store:
        labels.carry(store)
        seconds = time.monotonic() - began
        picks, share = store.stats().carried.picks, carried_fraction(store)
        return Carried(len(store.carried), picks, share, _bytes(folder / "labels", "*.dat"), seconds)


def _trial_spec(spec: RunSpec, folder: Path) -> RunSpec:
    """Return the trial run: the same run, but short, in another folder, and in one process."""
    devices = spec.trainer.devices
    if isinstance(devices, str) and "," in devices:
        devices = [int(devices.split(",")[0])]
    devices = devices[:1] if isinstance(devices, list) else 1
    return replace(
        spec,
        output_dir=folder,
        beginnings=None,
        loggers=(),
        plan=_trial_plan(spec),
        first_round=None if len(spec.plan.selection_steps) > 1 else spec.first_round,  # its round stands for all
        oracle={"_target_": "ripu.selection.oracles.GroundTruthOracle"},  # nobody waits for an answer
        data=replace(spec.data, cache=None, num_workers=0),  # reading is timed by itself
        protocol=replace(spec.protocol, source_sampling="uniform"),
        checkpoint=replace(spec.checkpoint, every_steps=None, every_minutes=1e6),
        trainer=replace(spec.trainer, devices=devices, num_nodes=1, strategy="auto"),
    )


def _trial_plan(spec: RunSpec) -> Plan:
    """Return a plan of a few steps of each kind that the run has, with one round and one renewal if it has any."""
    plan = spec.plan
    kinds = {kind_of(plan, step, has_labels=spec.start.has_labels) for step in plan.boundaries[:-1]}
    source, before, after, renewed = (STEPS * (kind in kinds) for kind in ("source", "before", "after", "renewed"))
    first = source + before
    rounds = (max(1, first),) if spec.has_rounds else ()
    labelled = max(first, *rounds, 0) + after
    renewals = (max(1, labelled),) if plan.renewal_steps else ()
    return Plan(max(labelled, *renewals, 0) + renewed, source, rounds, renewals)


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


def _take_times(measured: Measured, watch: _Stopwatch, bar: _QuietBar, num_images: int) -> None:
    by_kind: dict[str, list[float]] = {}
    for step, seconds in sorted(watch.steps.items()):
        kind = kind_of(watch.plan, step, has_labels=measured.carried is not None)
        by_kind.setdefault(kind, []).append(seconds)
    for kind, times in by_kind.items():
        measured.steps[kind] = statistics.median_high(times[1:] or times)
    measured.warm_up = max(0.0, watch.steps[0] - measured.steps[next(iter(by_kind))])
    batches = watch.batches[1:] or watch.batches
    measured.val_image = sum(seconds for seconds, _ in batches) / sum(count for _, count in batches)
    if bar.done:
        batch = measured.spec.evaluation.batch
        first = batch if num_images > batch else 0
        scored = len(bar.done) - 1  # twice as many as there are images if the pool is surveyed first
        measured.round_image = (bar.done[-1] - bar.done[first]) / (scored - first) * (scored / num_images)


def _renewals(trainer: Any) -> Renewals | None:
    return next((one for one in trainer.callbacks if isinstance(one, Renewals)), None)


def _take_renewal(measured: Measured, run: Run) -> None:
    if (renewals := _renewals(run.trainer)) is None:
        return
    num_images, objective = len(run.scenes.target), run.module.objective
    image = renewals.seconds / images_of_renewal(objective, num_images)
    measured.renewal_image = max(0.0, image - measured.first_reads["pool"])
    measured.renewal_images = images_of_renewal(objective, measured.num_target)
    measured.pseudo_label_bytes = _bytes(run.spec.output_dir / "pseudo_labels", "*") / num_images


def _take_reads(measured: Measured, spec: RunSpec, scenes: Scenes, folder: Path) -> None:
    """Time the reading of samples as in the loaders, with and without an entry in the cache."""

    def cache(name: str) -> ImageCache | None:
        return None if spec.data.cache is None else ImageCache(folder / name)

    transforms = make_transforms(spec)
    size, every = spec.data.target_size, range(max(len(scenes.target), len(scenes.val)))
    target_label = scenes.target.require_label if spec.setting.target_labels == "all" else None
    target = TrainScenes(scenes.target, size, target_label, transforms, spec.seed, TARGET, cache=cache("target"))
    pool = PoolScenes(scenes.target, size, every, cache("pool"))
    val = EvalScenes(scenes.val, size, every, cache("val"))
    parts: dict[str, tuple[int, Callable[[int], Any]]] = {
        "target": (len(scenes.target), lambda index: target[index, index]),
        "pool": (len(scenes.target), lambda index: pool[index]),
        "val": (len(scenes.val), lambda index: val[index]),
    }
    if (origin := scenes.source) is not None:
        label, source_cache = origin.require_label, cache("source")
        source = TrainScenes(origin, spec.data.source_size, label, transforms, spec.seed, SOURCE, cache=source_cache)
        parts["source"] = len(origin), lambda index: source[index, index]
        if spec.protocol.source_sampling == "class_balanced" and not is_index_kept(origin, index_folder(spec)):
            parts["index"] = len(origin), origin.read_label
    labelled = [index for index, scene in enumerate(scenes.target.scenes) if scene.label is not None]
    if labelled:
        parts["label"] = len(labelled), lambda number: scenes.target.read_label(labelled[number])
    for name, (count, read) in parts.items():
        # From the end: the trial run has just read those at the beginning.
        chosen = range(count - 1, max(-1, count - 1 - SAMPLES), -1)
        first, again = (_seconds(list, map(read, chosen)) / len(chosen) for _ in range(2))
        if spec.data.cache is None:
            first = again = (first + again) / 2
        measured.first_reads[name], measured.reads[name] = first, min(first, again)
    if labelled:  # by image, with a label or without
        for seconds in (measured.first_reads, measured.reads):
            seconds["label"] *= len(labelled) / len(scenes.target)
    measured.index_label = measured.first_reads.pop("index", 0.0)
    measured.reads.pop("index", None)


def _take_sizes(measured: Measured, run: Run, carried_bytes: int) -> None:
    folder, evaluation, store = run.spec.output_dir, run.spec.evaluation, run.store
    checkpoints = sorted((folder / "checkpoints").glob("step-*.ckpt"))
    measured.checkpoint_bytes = checkpoints[-1].stat().st_size
    measured.final_bytes = (folder / "checkpoints" / "final.ckpt").stat().st_size
    num_images = len(run.scenes.target)
    if store is not None:
        records = _bytes(folder / "labels", "*.dat")
        measured.store_image_bytes = (records - carried_bytes) / num_images
        measured.store_head_bytes = (_bytes(folder / "labels", "*") - records) / num_images
        for done in store.stats().rounds:
            measured.clicks_per_pick = done.tally.clicks / done.tally.picks if done.tally.clicks else None
    gallery = min(evaluation.gallery, num_images)
    whole, by_round = _bytes(folder / "report", "*"), _bytes(folder / "report", "*-round-*.npz")
    if gallery:
        measured.gallery_round_bytes = by_round / gallery
    measured.gallery_bytes = (whole - by_round) / max(1, gallery)
    measured.page_share = (folder / "report.html").stat().st_size / whole if (folder / "report.html").exists() else 0.0
    if pictures := min(evaluation.pictures, num_images):
        measured.picture_bytes = (_bytes(folder / "pictures", "*") + _bytes(folder / "panel", "*")) / pictures
    text = (folder / "metrics.csv").read_text("utf-8")
    measured.row_bytes = len(text) / max(1, text.count("\n"))
    measured.prediction_bytes = _bytes(folder / "predictions", "*") / len(run.scenes.val)


def _take_memory(measured: Measured, device: torch.device) -> None:
    if (process := peak_memory_gib(device)["process"]) is not None:
        measured.memory["process"] = process
        measured.memory_total["process"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if device.type == "cuda":
        # The card must have what the allocator holds; the driver's own part comes on top.
        measured.memory["device"] = torch.cuda.max_memory_reserved(device) / 2**30
        measured.memory_total["device"] = torch.cuda.get_device_properties(device).total_memory / 2**30


def _bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())
