"""Shared beginnings: the state right before the first round, kept in a folder that several runs share.

Runs that differ in what they ask (score, mode, budget, region, k) do the same steps until their first round. The first
of them leaves its state one step before that round; the others resume from there, which gives bit by bit the result of
training from the start. A state is found by a digest of everything that training up to there depends on: the keys that
have an effect before the first round, the data files (name, size, time) and the way they are read, the code of this
package and of other objects that the configuration names, the versions of the packages that it computes with, and the
machine's numerics (torch, device, instruction sets, threads).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ripu.config.keys import key_of
from ripu.config.spec import RunSpec
from ripu.config.validate import locate
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError
from ripu.io.lock import FileLock
from ripu.io.reading import leaves
from ripu.io.writing import TMP_PREFIX, publish, writing
from ripu.models.checkpoints import newest_checkpoint
from ripu.run import warm_start
from ripu.run.device import num_processes
from ripu.schedule import Plan
from ripu.training.checkpoint_callback import RunCheckpoint

_log = logging.getLogger(__name__)

_COMPUTE = (
    *("albumentations", "numpy", "opencv-python-headless", "pillow"),
    *("pytorch-lightning", "segmentation-models-pytorch", "timm", "torchvision"),
)
"""Packages besides torch that training computes with."""

_OWN = (
    *("annotation", "checkpoints", "config.yaml", "labels", "log.txt", "train.log"),
    *(".hydra", "wandb", "wandb_id", "tensorboard"),
)
"""Files that a run keeps for itself; everything else in its folder belongs to the state."""


def take_beginning(spec: RunSpec, scenes: Scenes) -> Beginning | None:
    """Take the state before the first round that another run has left, or become the run that leaves it.

    Return None if nothing is shared: without ``paths.beginnings``, without steps before the first round, and in a run
    that resumes from a checkpoint of its own. Refuse several processes.
    """
    folder, rounds = spec.beginnings, spec.plan.selection_steps
    if folder is None or not rounds or rounds[0] < 2:
        return None
    if num_processes(spec.trainer) > 1:
        raise ConfigError(
            f"paths.beginnings={folder} shares the beginnings of single-process runs; use trainer.devices=1, or leave "
            "it out"
        )
    if spec.resume and newest_checkpoint(spec.output_dir / "checkpoints") is not None:
        return None
    beginning = Beginning(folder, digest_of(spec, scenes), spec.plan, spec.output_dir)
    beginning.take()
    return beginning


def digest_of(spec: RunSpec, scenes: Scenes) -> str:
    """Return the digest of everything that the state before the first round depends on, 32 hexadecimal digits."""
    config = {key: value for key, value in leaves(spec.config).items() if key_of(key).before_rounds}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts: dict[str, Any] = {
        "config": config,
        "steps": [spec.plan.max_steps, spec.plan.pretrain_steps, spec.plan.selection_steps[0]],
        "torch": [torch.__version__, torch.get_num_threads(), device, torch.backends.cpu.get_cpu_capability()],
        "packages": dict.fromkeys(_COMPUTE),
    }
    for name in _COMPUTE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts["packages"][name] = importlib.metadata.version(name)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for named in (*_files(config), *warm_start.files(spec.start)):  # e.g. a network to start from
        digest.update(f"{named.stat().st_size} {named.stat().st_mtime_ns}\n".encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    for source in _foreign_code(config):
        digest.update(source.read_bytes())
    for dataset in (scenes.source, scenes.target, scenes.val):
        digest.update(f"{None if dataset is None else dataset.reading}\n".encode())
        for scene in () if dataset is None else dataset.scenes:
            for path in (scene.image, scene.label):
                if path is not None:
                    status = path.stat()
                    digest.update(f"{scene.image_id} {path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _files(node: Any) -> Iterator[Path]:
    """Yield the files that a configuration names, in order."""
    if isinstance(node, Mapping):
        for key in sorted(node):
            yield from _files(node[key])
    elif isinstance(node, list):
        for item in node:
            yield from _files(item)
    elif isinstance(node, str) and node:
        with contextlib.suppress(OSError, ValueError):  # too long for a name, or not a name
            if Path(node).is_file():
                yield Path(node)


def _foreign_code(config: Mapping[str, Any]) -> list[Path]:
    """Return the files with the code of objects that a configuration names, bases of classes included, in order.

    Those of this package are left out, and so is what is not written in Python.
    """
    found = set()
    for target in _targets(config):
        named = locate(target, "_target_")
        for part in inspect.getmro(named) if isinstance(named, type) else (named,):
            if str(getattr(part, "__module__", "")).partition(".")[0] == "ripu":
                continue
            with contextlib.suppress(TypeError, OSError):  # not written in Python, or without a file
                if (file := inspect.getsourcefile(part)) is not None:
                    found.add(Path(file))
    return sorted(path for path in found if path.is_file())


def _targets(node: Any) -> Iterator[str]:
    """Yield the dotted names of objects in a configuration."""
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if isinstance(value, (Mapping, list, tuple)):
            yield from _targets(value)
        elif str(name).endswith("_target_"):
            yield str(value)


class Beginning(pl.Callback):
    """The shared state of one key: taken if it exists, left behind by the run that trains it.

    While one run trains it, other runs of the same key wait. If that run dies, its lock dies with it, and the next one
    trains the state.
    """

    def __init__(self, folder: Path, key: str, plan: Plan, run: Path) -> None:
        """Set up the state of a key (:func:`digest_of`) in the folder that runs share, for the run in ``run``."""
        self.folder = folder / key
        self.plan = plan
        self.run = run
        self.step = plan.selection_steps[0] - 1  # the state is one step before the first round
        self._lock: FileLock | None = None

    def take(self) -> bool:
        """Copy the state into this run's folder if it exists, and return True; else this run will leave it.

        On a file system without locks, nothing is shared, after a warning.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", wait_for="the run that trains the same beginning")
        if not lock.has_locks:
            _log.warning("%s: this run trains its beginning for itself and shares none", self.folder)
            lock.release()
            return False
        if newest_checkpoint(self.folder / "state" / "checkpoints") is None:
            self._lock = lock
            return False
        try:
            with writing(self.run):
                shutil.copytree(self.folder / "state", self.run, dirs_exist_ok=True)
        finally:
            lock.release()
        return True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave the state before the last step to the first round, when everything of the step before is logged."""
        if trainer.global_step != self.step or self._lock is None:
            return
        for logger in trainer.loggers:
            logger.save()
        half = self.folder / "state.half"
        try:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            for path in sorted(self.run.iterdir()):
                passing = path.name.startswith(TMP_PREFIX) or path.name.endswith((".tmp", ".lock"))
                if not passing and path.name not in _OWN:
                    (shutil.copytree if path.is_dir() else shutil.copy2)(path, half / path.name)
            RunCheckpoint(half / "checkpoints", self.plan).save(trainer)
            shutil.rmtree(self.folder / "state", ignore_errors=True)
            publish(half, self.folder / "state")
        except OSError as error:  # shutil.Error, too
            _log.warning(
                "%s: the beginning could not be left for other runs (%s); this one continues", self.folder, error
            )
            shutil.rmtree(half, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Release the lock if it is still held; the next run that waits for it trains the state."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
