"""A loss or gradient that is not finite: the state that repeats the step is kept, and what it was made of is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ripu.io.errors import RipuError
from ripu.io.writing import WriteError, writing

if TYPE_CHECKING:
    from ripu.module import RipuModule

FOLDER = "nonfinite"


class NonFiniteError(RipuError, FloatingPointError):
    """Training met a loss or a gradient that is not finite; nothing of the step was learnt."""


def fail(
    module: RipuModule, what: str, batch: Mapping[str, Any], micro_batch: int, terms: Mapping[str, Tensor]
) -> NonFiniteError:
    """Keep the state of a step that failed, and make the error that tells of it.

    The state holds weights as they were before the step, the batch and the place in the stream of random numbers:
    ``python -m ripu.repeat FILE`` computes the step again.

    Args:
        module: The module; its network as before the step.
        what: What is not finite.
        batch: The micro-batch by domain: image, label, position, index.
        micro_batch: Number of the micro-batch in the step.
        terms: The terms of the loss.
    """
    step, rank = module.global_step, module.global_rank
    names = {domain: _names(module, domain, part) for domain, part in batch.items()}
    values = {name: float(term) for name, term in terms.items()}
    state = {
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
        "step": step,
        "micro_batch": micro_batch,
        "rank": rank,
        "threads": torch.get_num_threads(),
        "what": what,
        "terms": values,
        "images": names,
        "batch": {
            domain: {key: value.cpu() for key, value in part.items() if isinstance(value, Tensor)}
            for domain, part in batch.items()
        },
    }
    path = Path(module.trainer.default_root_dir) / FOLDER / f"step-{step:08d}-rank-{rank}.pt"
    kept = f"python -m ripu.repeat {path} computes it again"
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
    except WriteError as error:
        kept = f"the state that repeats it was not kept ({error})"
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    images = "; ".join(f"{domain} {', '.join(some)}" for domain, some in names.items())
    positions = {domain: part["position"].tolist() for domain, part in batch.items()}
    return NonFiniteError(
        f"{what} at step {step} ({shown}; images: {images}; positions {positions}); {kept}. A lower optimizer.learning_rate "
        "(in a run of its own) or trainer.precision=32-true (with resume=true) is what helps most often"
    )


def _names(module: RipuModule, domain: str, part: Mapping[str, Any]) -> list[str]:
    scenes = getattr(getattr(module.trainer, "datamodule", None), domain, None)
    indices = part["index"].tolist() if "index" in part else []
    return [str(index) if scenes is None else scenes.scenes[index].image_id for index in indices]
