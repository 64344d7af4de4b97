"""Checkpoints that a run can be picked up from: whole or not there, and checked before they are believed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ripu.io.signals import ignore_dead_workers
from ripu.io.writing import TMP_PREFIX, AtomicFile, publish, sync, writing
from ripu.schedule import Plan

_log = logging.getLogger(__name__)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def step_of(path: Path) -> int:
    """The training step of a checkpoint, from its name ``step-00000012.ckpt``."""
    return int(path.stem.partition("-")[2])


def newest_checkpoint(folder: Path, below: int | None = None) -> Path | None:
    """The newest whole checkpoint of a run.

    Args:
        folder: The run's ``checkpoints`` folder.
        below: Only those of steps below this one; None for all.

    Returns:
        Its path; None where there is none. Damaged ones are named in a warning and passed over.
    """
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if below is not None and step_of(path) >= below:
            continue
        record = path.with_suffix(".sha256")
        if record.exists() and record.read_text().strip() == _digest(path):
            return path
        _log.warning("checkpoint %s is damaged or was not finished; going back to the one before", path)
    return None


def remove_leftovers(run: Path) -> None:
    """Remove what a process that was killed has left half done in a run's folder; the label store sees to its own.

    These are files that were not renamed into their places, and checkpoints whose removal was broken off.

    Args:
        run: The folder; no other process may be writing to it.
    """
    checkpoints = run / "checkpoints"
    half = [path for folder in (run, run / "report", checkpoints) for path in folder.glob(f"{TMP_PREFIX}*")]
    half += checkpoints.glob("*.tmp")
    found = sorted(checkpoints.glob("step-*.ckpt"))
    last = max((step_of(path) for path in found if path.with_suffix(".sha256").exists()), default=-1)
    # Later ones without a record were not finished, or are damaged: they are told of, not removed.
    half += [path for path in found if step_of(path) < last and not path.with_suffix(".sha256").exists()]
    half += [path for path in checkpoints.glob("step-*.sha256") if not path.with_suffix(".ckpt").exists()]
    for path in run.glob(".ripu-*"):  # whether the folder can be written to was being tried
        with contextlib.suppress(OSError):
            path.rmdir()
    for path in half:
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


class RunCheckpoint(pl.Callback):
    """Saves every N steps, every M minutes, at the end of every phase and on errors; keeps the newest ones.

    A checkpoint at a step where a round is due is written after the round is committed, so that a run that is picked
    up never misses one.
    """

    def __init__(
        self, folder: Path, plan: Plan, *, every_steps: int | None = None, every_minutes: float = 15.0, keep: int = 2
    ) -> None:
        """Set up.

        Args:
            folder: Where checkpoints go.
            plan: The phases of the run.
            every_steps: Save after this many steps; None for no such saves.
            every_minutes: Save when the last one is this old.
            keep: How many to keep.

        Raises:
            ValueError: A number that makes no sense.
        """
        if keep < 1 or every_minutes <= 0 or (every_steps is not None and every_steps < 1):
            raise ValueError(
                f"checkpoint.every_steps={every_steps}, every_minutes={every_minutes}, keep={keep}: all must be positive"
            )
        self.folder = folder
        self.plan = plan
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.keep = keep
        self._last_time = time.monotonic()
        self._settled = -1
        self._begun = -1
        self._processes = 0

    def state_dict(self) -> dict[str, Any]:
        """The number of processes, which decides what images a step sees."""
        return {"processes": self._processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self._processes = int(state_dict["processes"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The step that training begins with has its checkpoint, where it was picked up."""
        self._begun = trainer.global_step
        if self._processes not in (0, trainer.world_size):
            _log.warning(
                "the run was on %d processes until step %d and goes on with %d: a step now sees other images, and others than "
                "it would have seen; its figures are not those of a run on either number (trainer.devices, trainer.num_nodes)",
                self._processes,
                trainer.global_step,
                trainer.world_size,
            )
        self._processes = trainer.world_size

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save where a number of steps or minutes has passed.

        At the beginning of a step, not at the end of the one before: by now Lightning has logged what that one measured,
        and among accumulated micro-batches only the first finds the state of a whole step.
        """
        step = trainer.global_step
        if step == self._begun:
            return
        self._begun = step
        if step in self.plan.boundaries or step == self._settled:
            return
        due = self.every_steps is not None and step % self.every_steps == 0
        late = time.monotonic() - self._last_time > 60 * self.every_minutes
        if due or trainer.strategy.broadcast(late):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of a phase, after its round."""
        self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what can be saved, where this process can do so alone; a step that was broken off is undone for it."""
        ignore_dead_workers()
        step = trainer.global_step
        is_whole = getattr(pl_module, "undo_step", lambda: True)()
        if trainer.world_size == 1 and is_whole and step > 0 and step not in self.plan.boundaries:
            try:
                self.save(trainer)
            except OSError as error:  # the error that stopped the run is the one to tell of
                _log.warning("no checkpoint of step %d: %s", step, error)

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of this step (all ranks call this; rank 0 writes)."""
        step = trainer.global_step
        self._last_time = time.monotonic()
        if step == self._settled:
            return
        for logger in trainer.loggers:
            logger.save()  # a run that is picked up here does not measure again what came before
        path = self.folder / f"step-{step:08d}.ckpt"
        with _saved(trainer, path, weights_only=False) as temporary:
            if trainer.is_global_zero:
                self._publish(temporary, path)
        if trainer.is_global_zero:
            found = sorted(self.folder.glob("step-*.ckpt"))
            done = [one for one in found if one <= path]
            # What lies behind this step was damaged when the run was picked up, and must not count as kept.
            for old in done[: -self.keep] + found[len(done) :]:
                old.with_suffix(".sha256").unlink(missing_ok=True)
                old.unlink()
        self._settled = step

    def _publish(self, temporary: Path, path: Path) -> None:
        """Put a written checkpoint and its digest in their places; where that is broken off, the one before counts."""
        sync(temporary)
        with AtomicFile(path.with_suffix(".sha256")) as record:
            record.write(f"{_digest(temporary)}\n".encode())
            path.unlink(missing_ok=True)  # a damaged one of the same step
            record.publish(durable=True)
        publish(temporary, path)
        sync(self.folder)


def save_final(trainer: pl.Trainer, path: Path) -> None:
    """Write the weights that a run ends with, whole or not at all (all ranks call this; rank 0 writes).

    Raises:
        WriteError: The disk is full; the run can be resumed from its last checkpoint.
    """
    with _saved(trainer, path, weights_only=True) as temporary:
        if trainer.is_global_zero:
            sync(temporary)
            publish(temporary, path)


@contextlib.contextmanager
def _saved(trainer: pl.Trainer, path: Path, *, weights_only: bool) -> Iterator[Path]:
    """Save a checkpoint beside its place, under a name that all ranks know; it goes where it is not published."""
    temporary = path.with_suffix(".tmp")
    try:
        with writing(path):
            trainer.save_checkpoint(temporary, weights_only=weights_only)
            yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
