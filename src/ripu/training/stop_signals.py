"""Stopped from outside: SIGTERM and SIGINT end a run at a whole step, SLURM's signal requeues its job."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

from ripu.io.signals import request_stop, stop_now
from ripu.training.checkpoint import RunCheckpoint
from ripu.training.lightning_bridge import cluster_environment, replace_sigterm_notifier

_log = logging.getLogger(__name__)

_NOTHING, _REQUEUE, _STOP = range(3)


class StopSignals(pl.Callback):
    """Acts on signals where nothing is half done; must follow :class:`RunCheckpoint` in the list of callbacks.

    While steps are trained, SIGTERM and SIGINT wait for the end of the step; all processes of a job agree on it, a
    checkpoint is written and the run is over. A second one does not wait. In an evaluation or a round, which are done
    again when the run is picked up, they end the run at once.

    Under SLURM with Lightning's automatic requeueing (``#SBATCH --signal=SIGUSR1@90``), Lightning's handler runs at the
    end of the step, behind a checkpoint of the run's own. What Lightning saves for itself (``hpc_ckpt_*.ckpt``) is the
    same state once more and is removed: it has no checksum, and Lightning would load it for the last evaluation.
    """

    def __init__(self, run: Path, checkpoint: RunCheckpoint) -> None:
        """Set up.

        Args:
            run: The run's folder.
            checkpoint: Saves it.
        """
        self.run = run
        self.checkpoint = checkpoint
        self._wanted = _NOTHING
        self._number = signal.SIGTERM
        self._is_training = False
        self._begun = -1
        self._requeue: Any = None
        self._before: dict[int, Any] = {}
        forget_lightnings(run)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning's answer to SIGTERM out, before it is in place.

        In a job of several processes it is a broadcast in the middle of whatever is being done: between training and the
        last evaluation, or in it, the processes would wait for each other for ever.
        """
        has_own = signal.getsignal(signal.SIGTERM) not in (None, signal.SIG_DFL)
        replace_sigterm_notifier(trainer, _nothing if has_own else stop_now)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which has set its handlers by now."""
        if threading.current_thread() is not threading.main_thread():
            return
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            number = environment.requeue_signal
            if number is not None and callable(signal.getsignal(number)):
                self._requeue = signal.getsignal(number)
                self._requeue_number = number
                self._take(number, self._on_requeue)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._take(number, self._on_stop)

    def _take(self, number: int, handler: Any) -> None:
        self._before[number] = signal.signal(number, handler)

    def _on_requeue(self, number: int, frame: Any) -> None:
        self._wanted = max(self._wanted, _REQUEUE)

    def _on_stop(self, number: int, frame: Any) -> None:
        if not self._is_training or self._wanted == _STOP:
            stop_now(number, frame)
        request_stop(number)
        self._wanted = _STOP
        self._number = signal.Signals(number)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, steps are trained."""
        self._is_training = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Between two steps: do what a signal asked for."""
        step = trainer.global_step
        if step != self._begun:
            self._begun = step
            self._act(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The steps of a phase are over: from here on signals stop at once."""
        self._leave_training()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The phase and its round are saved: do what a signal asked for in between."""
        self._leave_training()
        self._act(trainer)

    def _leave_training(self) -> None:
        self._is_training = False
        if self._wanted == _STOP:
            stop_now(self._number, None)

    def _act(self, trainer: pl.Trainer) -> None:
        wanted = self._wanted
        if trainer.world_size > 1:
            told = torch.tensor(wanted, device=trainer.strategy.root_device)
            wanted = int(trainer.strategy.reduce(told, reduce_op="max"))
        if wanted == _NOTHING:
            return
        if trainer.global_step > 0:
            self.checkpoint.save(trainer)
        if wanted == _STOP:
            stop_now(self._number, None)
        self._wanted = _NOTHING
        if self._requeue is not None:
            self._requeue(self._requeue_number, None)
            if trainer.is_global_zero:
                forget_lightnings(self.run)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        self._is_training = False
        for number, handler in self._before.items():
            if handler is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
        self._before = {}


def _nothing(number: int, frame: Any) -> None:
    """The handler that was there before is called behind this one."""


def forget_lightnings(run: Path) -> None:
    """Remove the checkpoints that Lightning writes when SLURM requeues a job; see :class:`StopSignals`."""
    for path in run.glob("hpc_ckpt_*.ckpt"):
        _log.info("removing %s: the run's own checkpoint is of the same step", path)
        path.unlink(missing_ok=True)
