"""Failed training steps: the state before the step is restored, and a file keeps all that repeats the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ripu.io.console import command_line
from ripu.io.errors import RipuError
from ripu.io.writing import WriteError, writing
from ripu.models.checkpoints import save_new


class NonFiniteError(RipuError, FloatingPointError):
    """A loss, gradient or output that is not finite; training has learnt nothing from the step."""

    can_resume = False  # the same settings would end in the same step


class StepGuard:
    """Can undo a step until the optimiser acts: up to there, only running statistics and kept buffers have changed."""

    def __init__(self) -> None:
        self._statistics: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._is_open = False
        self._is_changing = False

    def begin(self, network: nn.Module, average: nn.Module | None = None, kept: nn.Module | None = None) -> None:
        """Copy what the forward passes of a step may change: running statistics, and the buffers of ``kept``."""
        self._statistics = [
            buffer
            for part in (*network.modules(), *(average.modules() if average is not None else ()))
            if isinstance(part, nn.modules.batchnorm._BatchNorm)
            for buffer in part.buffers(recurse=False)
        ]
        self._statistics += [] if kept is None else list(kept.buffers())
        with torch.no_grad():
            self._copies = [buffer.clone() for buffer in self._statistics]
        self._is_open = True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark the time in which the optimiser changes weights; afterwards the step is over."""
        self._is_changing = True
        yield  # an error in here leaves the state between two steps
        self._is_open = self._is_changing = False

    def undo(self) -> bool:
        """Restore what has changed if a step is unfinished; return False if the optimiser was changing it."""
        if self._is_changing:
            return False
        if self._is_open:
            with torch.no_grad():
                for buffer, copy in zip(self._statistics, self._copies, strict=True):
                    buffer.copy_(copy)
        self._is_open = False
        return True


def gradient_norms(network: nn.Module, device: torch.device) -> list[Tensor]:
    """Return the Euclidean norm of each gradient of a network, float32 scalars on ``device``.

    A norm is finite if the gradient is, unless its values exceed 1e18, where nothing is left to train. On a CPU, the
    largest magnitude would take ten times as long.
    """
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norms = torch._foreach_norm(gradients) if gradients else ()
    return [norm.to(device, torch.float32) for norm in norms]


def keep_failed_step(
    module: pl.LightningModule, cause: str, batch: Mapping[str, Any], micro_batch: int, terms: Mapping[str, Tensor]
) -> NonFiniteError:
    """Write the state of a step that failed to a file, and return the error to raise.

    The file contains the weights before the step, the batch and the place in the stream of random numbers: ``python -m
    ripu.repeat FILE`` computes the step again.

    Args:
        module: The module; its network as before the step.
        cause: The value that is not finite, e.g. ``the loss is nan``.
        batch: The micro-batch by domain: image, label, position, index.
        micro_batch, terms: Its number in the step and the terms of its loss.
    """
    step, rank = module.global_step, module.global_rank
    names = {}
    for domain, part in batch.items():
        scenes = getattr(getattr(module.trainer, "datamodule", None), domain, None)
        indices = part["index"].tolist() if "index" in part else []
        names[domain] = [str(index) if scenes is None else scenes.scenes[index].image_id for index in indices]
    values = {name: float(term) for name, term in terms.items()}
    state = {
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
        "step": step,
        "micro_batch": micro_batch,
        "rank": rank,
        "threads": torch.get_num_threads(),
        "what": cause,
        "terms": values,
        "images": names,
        "batch": {
            domain: {key: value.cpu() for key, value in part.items() if isinstance(value, Tensor)}
            for domain, part in batch.items()
        },
    }
    path = Path(module.trainer.default_root_dir) / "nonfinite" / f"step-{step:08d}-rank-{rank}.pt"
    kept = f"{command_line('repeat', [str(path)])} computes the step again"
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_new(state, path)
    except WriteError as error:
        kept = f"the state that repeats the step was not kept ({error})"
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    images = "; ".join(f"{domain} {', '.join(some)}" for domain, some in names.items())
    positions = {domain: part["position"].tolist() for domain, part in batch.items()}
    is_full = str(module.trainer.precision) == "32-true"
    more = "" if is_full else ", or trainer.precision=32-true (the same run may be resumed with it: resume=true)"
    return NonFiniteError(
        f"{cause} at step {step} ({shown}; images: {images}; positions {positions}); {kept}. The remedy is usually a "
        f"new run with a lower optimizer.learning_rate{more}"
    )
