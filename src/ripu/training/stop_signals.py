"""Stop signals: SIGTERM and SIGINT end a run after a whole step, SLURM's signal requeues its job."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

from ripu.io.signals import request_stop, stop_now
from ripu.training.checkpoint_callback import RunCheckpoint

_log = logging.getLogger(__name__)

_NOTHING, _REQUEUE, _STOP = range(3)


class StopSignals(pl.Callback):
    """Acts on signals between two steps; must follow :class:`RunCheckpoint` in the list of callbacks.

    During training steps, SIGTERM and SIGINT wait for the end of the step. All processes of a job agree on it, write a
    checkpoint and stop. A second signal does not wait. An evaluation or a round is repeated on resume, so there the
    signals stop the run at once.

    Under SLURM with Lightning's automatic requeueing (``#SBATCH --signal=SIGUSR1@90``), Lightning's handler runs at the
    end of the step, after the run's own checkpoint. Lightning's checkpoint (``hpc_ckpt_*.ckpt``) repeats that state and
    is removed: it has no digest, and Lightning would load it for the last evaluation.
    """

    def __init__(self, run: Path, checkpoint: RunCheckpoint) -> None:
        """Watch the run in a folder, which ``checkpoint`` saves before it stops."""
        self.run, self.checkpoint = run, checkpoint
        self._wanted, self._number = _NOTHING, signal.SIGTERM
        self._is_training = False
        self._begun = -1
        self._requeue: Any = None
        self._before: dict[int, Any] = {}
        forget_lightnings(run)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace Lightning's reaction to SIGTERM before it is installed.

        Lightning broadcasts at once in a job with several processes. Between training and the last evaluation, or
        during it, the processes would wait for each other forever.
        """
        has_own = signal.getsignal(signal.SIGTERM) not in (None, signal.SIG_DFL)
        # Lightning calls a former handler after this one.
        replace_sigterm_notifier(trainer, (lambda number, frame: None) if has_own else stop_now)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which has installed its handlers by now."""
        if threading.current_thread() is not threading.main_thread():
            return
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            number = environment.requeue_signal
            if number is not None and callable(signal.getsignal(number)):
                self._requeue = self._before[number] = signal.signal(number, self._on_requeue)
                self._requeue_number = number
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_stop)

    def _on_requeue(self, number: int, frame: Any) -> None:
        self._wanted = max(self._wanted, _REQUEUE)

    def _on_stop(self, number: int, frame: Any) -> None:
        if not self._is_training or self._wanted == _STOP:
            stop_now(number, frame)
        request_stop(number)
        self._wanted = _STOP
        self._number = signal.Signals(number)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals wait for the end of a step from here on."""
        self._is_training = True

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Act on a pending signal between two steps."""
        step = trainer.global_step
        if step != self._begun:
            self._begun = step
            self._act(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals stop the run at once after the steps of a phase."""
        self._is_training = False
        if self._wanted == _STOP:
            stop_now(self._number, None)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act on a pending signal after the phase and its round are saved."""
        self.on_validation_start(trainer, pl_module)
        self._act(trainer)

    def _act(self, trainer: pl.Trainer) -> None:
        wanted = self._wanted
        if trainer.world_size > 1:
            own = torch.tensor(wanted, device=trainer.strategy.root_device)
            wanted = int(trainer.strategy.reduce(own, reduce_op="max"))
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

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Restore the former handlers."""
        self._is_training = False
        for number, handler in self._before.items():
            if handler is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
        self._before = {}

    on_exception = on_train_end


def replace_sigterm_notifier(trainer: pl.Trainer, handler: Callable[[int, Any], None]) -> None:
    """Replace the handler of SIGTERM that Lightning installs when training begins, under a private name."""
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[assignment]


def cluster_environment(trainer: pl.Trainer) -> Any:
    """Return the cluster environment of a trainer, under its private name; None without a cluster."""
    return trainer._accelerator_connector.cluster_environment


def forget_lightnings(run: Path) -> None:
    """Remove the checkpoints that Lightning writes when SLURM requeues a job; see :class:`StopSignals`."""
    for path in run.glob("hpc_ckpt_*.ckpt"):
        _log.info("removing %s: the run's own checkpoint is from the same step", path)
        path.unlink(missing_ok=True)
