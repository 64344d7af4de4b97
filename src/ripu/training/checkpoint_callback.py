"""Checkpoints to resume from: written whole or not at all, and verified by a digest before they are used."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ripu.io.errors import ConfigError
from ripu.io.signals import ignore_dead_workers
from ripu.io.writing import TMP_PREFIX, AtomicFile, publish, sync, writing
from ripu.models.checkpoints import file_digest, step_of
from ripu.schedule import Plan

_log = logging.getLogger(__name__)


def remove_leftovers(run: Path) -> None:
    """Remove the unfinished files of a killed process from a run's folder; the label store removes its own.

    These are temporary files that were never renamed, and checkpoints whose removal was interrupted. No other process
    may be writing to the folder.
    """
    checkpoints = run / "checkpoints"
    folders = (run, run / "report", checkpoints, *run.glob("pseudo_labels/*"))
    half = [path for folder in folders for path in folder.glob(f"{TMP_PREFIX}*")]
    # Names of unfinished files before 0.1.0
    half += [path for ending in ("tmp", "tmp256", "final") for path in checkpoints.glob(f"*.{ending}")]
    half += [run / name for name in ("config.yaml.tmp", "metrics.tmp", "panel.tmp")]
    half += [*run.glob(".*.tmp"), *(run / "report").glob(".*.tmp")]
    found = sorted(checkpoints.glob("step-[0-9]*.ckpt"))
    last = max((step_of(path) for path in found if path.with_suffix(".sha256").exists()), default=-1)
    # Later ones without a record are unfinished or damaged; newest_checkpoint warns of them, so they stay.
    half += [path for path in found if step_of(path) < last and not path.with_suffix(".sha256").exists()]
    half += [path for path in checkpoints.glob("step-*.sha256") if not path.with_suffix(".ckpt").exists()]
    for path in run.glob(".ripu-*"):  # from a test that the folder is writable
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

    At a step with a round, the checkpoint is written after the commit, so that a resumed run never misses a round.
    """

    def __init__(
        self, folder: Path, plan: Plan, *, every_steps: int | None = None, every_minutes: float = 15.0, keep: int = 2
    ) -> None:
        """Save into a folder: after ``every_steps`` steps (None: never), and if the last one is ``every_minutes`` old.

        Raises:
            ConfigError: A number is not positive.
        """
        if keep < 1 or every_minutes <= 0 or (every_steps is not None and every_steps < 1):
            raise ConfigError(
                f"checkpoint.every_steps={every_steps}, every_minutes={every_minutes}, keep={keep}: all must be "
                "positive"
            )
        self.folder, self.plan = folder, plan
        self.every_steps, self.every_minutes, self.keep = every_steps, every_minutes, keep
        self._last_time = time.monotonic()
        self._settled = self._begun = -1
        self._processes = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of processes, which decides the images that a step sees."""
        return {"processes": self._processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._processes = int(state_dict["processes"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the first step, which needs no checkpoint, and warn if the number of processes has changed."""
        self._begun = trainer.global_step
        if self._processes not in (0, trainer.world_size):
            _log.warning(
                "the run used %d processes until step %d and now resumes with %d: a step sees different images, so the "
                "results will match neither a run on the old nor on the new number (trainer.devices, "
                "trainer.num_nodes)",
                self._processes,
                trainer.global_step,
                trainer.world_size,
            )
        self._processes = trainer.world_size

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Save if enough steps or minutes have passed.

        This happens at the beginning of a step rather than at the end of the one before: Lightning has logged the
        metrics of that one by now, and among accumulated micro-batches only the first sees the state of a whole step.
        """
        step = trainer.global_step
        is_new, self._begun = step != self._begun, step
        if not is_new or step in self.plan.boundaries or step == self._settled:
            return
        due = self.every_steps is not None and step % self.every_steps == 0
        late = time.monotonic() - self._last_time > 60 * self.every_minutes
        if due or trainer.strategy.broadcast(late):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of a phase, after its round."""
        self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Undo the unfinished step and save the state before it, if this process can do so alone."""
        ignore_dead_workers()
        step = trainer.global_step
        is_whole = getattr(pl_module, "undo_step", lambda: True)()
        if trainer.world_size == 1 and is_whole and step > 0 and step not in self.plan.boundaries:
            try:
                self.save(trainer)
            except OSError as error:  # the error that stopped the run is the one to report
                _log.warning("no checkpoint of step %d: %s", step, error)

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of this step (all ranks call this; rank 0 writes)."""
        step = trainer.global_step
        self._last_time = time.monotonic()
        if step == self._settled:
            return
        for logger in trainer.loggers:
            logger.save()  # a run resumed here does not log the steps before it again
        path = self.folder / f"step-{step:08d}.ckpt"
        with _saved(trainer, path, weights_only=False) as temporary:
            if trainer.is_global_zero:  # if this is interrupted, the previous checkpoint stays valid
                sync(temporary)
                with AtomicFile(path.with_suffix(".sha256")) as record:
                    record.write(f"{file_digest(temporary)}\n".encode())
                    path.unlink(missing_ok=True)  # a damaged checkpoint of the same step
                    record.publish(durable=True)
                publish(temporary, path)
                sync(self.folder)
        if trainer.is_global_zero:
            found = sorted(self.folder.glob("step-*.ckpt"))
            done = [checkpoint for checkpoint in found if checkpoint <= path]
            # Later checkpoints were damaged when the run was resumed, and must not count as kept.
            for old in done[: -self.keep] + found[len(done) :]:
                old.with_suffix(".sha256").unlink(missing_ok=True)
                old.unlink()
        self._settled = step


def save_final(trainer: pl.Trainer, path: Path) -> None:
    """Write the final weights of a run, whole or not at all (all ranks call this; rank 0 writes).

    Raises:
        WriteError: The disk is full; the run can be resumed from its last checkpoint.
    """
    with _saved(trainer, path, weights_only=True) as temporary:
        if trainer.is_global_zero:
            sync(temporary)
            publish(temporary, path)


@contextlib.contextmanager
def _saved(trainer: pl.Trainer, path: Path, *, weights_only: bool) -> Iterator[Path]:
    """Save a checkpoint under a temporary name that all ranks know; remove it after an error."""
    temporary = path.with_suffix(".tmp")
    try:
        with writing(path):
            trainer.save_checkpoint(temporary, weights_only=weights_only)
            yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
