"""Stop signals: SIGTERM and SIGINT end a run after a whole step, those of SLURM and submitit requeue its job."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ripu.io.signals import is_slurm_job, request_stop, requeue_on_sigusr1, stop_now
from ripu.training.checkpoint_callback import RunCheckpoint

_log = logging.getLogger(__name__)

_REQUEUE = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
"""Signals whose handlers put the job back into the queue: ours under SLURM, and submitit's."""

_NOTHING, _STOP = 0, 1 + len(_REQUEUE)
"""Between them, 1 plus the place in ``_REQUEUE``."""


class StopSignals(pl.Callback):
    """Acts on signals between two steps; must follow :class:`RunCheckpoint` in the list of callbacks.

    During training steps, SIGTERM and SIGINT wait for the end of the step. All processes of a job agree on it, write a
    checkpoint and stop. A second signal does not wait, except SIGTERM under SLURM: slurmd and srun each send it, and
    SIGKILL follows where a step takes too long. An evaluation or a round is repeated on resume, so there the
    signals stop the run at once.

    SIGUSR1 under SLURM (``#SBATCH --signal=SIGUSR1@90``) and SIGUSR2 in a job of submitit requeue the job: at the end
    of a training step the checkpoint comes first. In an evaluation or a round, which may take longer than SLURM waits,
    the handlers that are there act at once.

    A checkpoint of Lightning's own requeueing (``hpc_ckpt_*.ckpt``, of earlier versions) is removed: it has no digest,
    and Lightning would load it for the last evaluation.
    """

    def __init__(self, run: Path, checkpoint: RunCheckpoint) -> None:
        """Watch the run in a folder, which ``checkpoint`` saves before it stops."""
        self.run, self.checkpoint = run, checkpoint
        self._wanted, self._number = _NOTHING, signal.SIGTERM
        self._is_training = False
        self._begun = -1
        self._before: dict[int, Any] = {}
        self._owner = os.getpid()
        forget_lightnings(run)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace Lightning's reactions to SIGTERM and, under SLURM, to SIGUSR1 before they are installed.

        At SIGTERM Lightning broadcasts at once in a job with several processes. Between training and the last
        evaluation, or during it, the processes would wait for each other forever. At SIGUSR1 it writes a checkpoint of
        its own in the middle of a step.
        """
        requeue_on_sigusr1()
        has_own = signal.getsignal(signal.SIGTERM) not in (None, signal.SIG_DFL)
        # Lightning calls a former handler after this one.
        replace_sigterm_notifier(trainer, (lambda number, frame: None) if has_own else stop_now)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which has installed its handlers by now."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _REQUEUE:
            if callable(signal.getsignal(number)):
                self._before[number] = signal.signal(number, self._on_requeue)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_stop)

    def _on_requeue(self, number: int, frame: Any) -> None:
        if os.getpid() != self._owner:  # a data worker: SLURM signals every process of the job
            return
        if not self._is_training:
            self._before[number](number, frame)
        else:
            self._wanted = max(self._wanted, 1 + _REQUEUE.index(signal.Signals(number)))

    def _on_stop(self, number: int, frame: Any) -> None:
        is_repeated = self._wanted == _STOP and not (number == signal.SIGTERM and is_slurm_job())
        if not self._is_training or is_repeated:
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
        if self._wanted != _NOTHING:
            self._requeue()

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
        self._wanted = wanted
        self._requeue()

    def _requeue(self) -> None:
        number = _REQUEUE[self._wanted - 1]
        self._wanted = _NOTHING
        if number in self._before:
            self._before[number](number, None)

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


def forget_lightnings(run: Path) -> None:
    """Remove the checkpoints of Lightning's own requeueing; see :class:`StopSignals`."""
    for path in run.glob("hpc_ckpt_*.ckpt"):
        _log.info("removing %s: the run's own checkpoint is from the same step", path)
        path.unlink(missing_ok=True)
