"""The progress line of a run: phase, round, step, loss, mIoU and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from tqdm import tqdm

from ripu.io.console import PLAIN_SECONDS, Progress, is_terminal, time_left
from ripu.schedule import Plan
from ripu.training.training_log import HasStepLosses

# Fits a run of 40,000 steps into 80 columns
BAR_FORMAT = "{desc}{percentage:3.0f}%|{bar}|{n_fmt}/{total_fmt}, {remaining} left{postfix}"


class EvaluationBar(pl.Callback):
    """The progress bar of an evaluation without training."""

    def __init__(self) -> None:
        super().__init__()
        self._part: Progress | None = None
        self._is_enabled = True

    def _open(self, title: str, num_batches: Iterable[float]) -> None:
        self._part = Progress(title, int(sum(num_batches)), "batches", is_enabled=self._is_enabled)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._open("evaluating", trainer.num_test_batches)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Advance by a batch."""
        if self._part is not None:
            self._part.add()

    def on_test_end(self, *_: Any, **__: Any) -> None:
        """Close the bar; after an error, its message appears below."""
        if self._part is not None:
            self._part.close()
            self._part = None

    on_exception = on_test_end


class ProgressBar(EvaluationBar, LightningProgressBar):
    """One bar over the whole run on a terminal; occasional plain lines elsewhere."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self._bar: tqdm[Any] | None = None
        self._loss = self._miou = ""
        self._began = (0.0, 0)
        self._last_line = 0.0

    def disable(self) -> None:
        """Stay silent (on ranks other than 0)."""
        self._is_enabled = False

    def _say(self, text: str, *, now: bool = False) -> None:
        if self._is_enabled and (now or time.monotonic() - self._last_line > PLAIN_SECONDS):
            self._last_line = time.monotonic()
            if self._bar is not None:
                self._bar.write(text)
            else:
                print(text, flush=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        step = trainer.global_step
        self._began = (time.monotonic(), step)
        if self._is_enabled and is_terminal():
            total = self.plan.max_steps
            self._bar = tqdm(total=total, initial=step, dynamic_ncols=True, unit="step", bar_format=BAR_FORMAT)
            self._bar.set_description(self.plan.describe(step))
        else:
            self._say(f"step {step}/{self.plan.max_steps}: {self.plan.describe(step)}", now=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance to the trainer's step."""
        step = trainer.global_step
        if isinstance(pl_module, HasStepLosses) and (batch_idx + 1) % pl_module.accumulate == 0:
            self._loss = f"loss {float(pl_module.step_losses['loss']):.2f}"
        phase, facts = self.plan.describe(max(step - 1, 0)), ", ".join(filter(None, (self._loss, self._miou)))
        if self._bar is not None:
            self._bar.set_description(phase, refresh=False)
            self._bar.set_postfix_str(facts, refresh=False)
            self._bar.update(step - self._bar.n)
        else:
            started, first = self._began
            left = time_left(step - first, self.plan.max_steps - first, time.monotonic() - started)
            self._say(f"step {step}/{self.plan.max_steps}: {phase}, {facts}, {left}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar of an evaluation."""
        self._open("evaluating", trainer.num_val_batches)

    on_validation_batch_end = EvaluationBar.on_test_batch_end

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the progress bar of the final evaluation."""
        self._open("last evaluation", trainer.num_test_batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new mIoU."""
        super().on_test_end()
        value = trainer.callback_metrics.get("val/mIoU")
        if value is not None:
            self._miou = f"mIoU {float(value):.1f}"
            self._say(f"step {trainer.global_step}/{self.plan.max_steps}: {self._miou}", now=True)

    def on_selection(self, index: int, num_rounds: int) -> Callable[[int, int], None]:
        """Return a callable (images done, images in all) that shows the progress of a round."""
        started = time.monotonic()
        title = f"selecting, round {index + 1} of {num_rounds}"
        part = Progress(title, 0, is_enabled=self._is_enabled)

        def show(done: int, total: int) -> None:
            part(done, total)
            if done == total and self._bar is None:
                speed = done / (time.monotonic() - started + 1e-9)
                self._say(f"{title}: {done}/{total} images, {speed:.1f} images/s", now=True)

        return show

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close all bars; after an error, its message appears below."""
        super().on_test_end()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    on_test_end = on_exception = on_train_end
