"""The optimiser: its groups of parameters, and its learning rate over the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from ripu.models.layers import backbone_layers

Schedule = Literal["poly", "cosine", "constant"]


@dataclass(frozen=True)
class Optimization:
    """An optimiser with its learning rates; see ``conf/optimizer``.

    Attributes:
        make: Makes the optimiser of groups of parameters, each with its ``lr`` and ``weight_decay``.
        learning_rate: Of the last layer of the backbone, at the start of the schedule.
        head_lr_factor: Learning rate of the head over ``learning_rate``.
        layer_decay: Learning rate of a layer of the backbone over that of the next one towards the output.
        weight_decay: On weights of two dimensions or more; on all others, too, if ``norm_decay``.
        norm_decay: True if biases and the scales of norms decay like all other weights.
        clip_norm: Largest Euclidean norm of the whole gradient; None: no limit.
        schedule, warmup_steps, poly_power, poly_horizon: See :func:`rate_factor`; the horizon is the length of the run
            by default.
    """

    make: Callable[[list[dict[str, Any]]], Optimizer]
    learning_rate: float
    head_lr_factor: float = 10.0
    layer_decay: float = 1.0
    weight_decay: float = 5e-4
    norm_decay: bool = True
    clip_norm: float | None = None
    schedule: Schedule = "poly"
    warmup_steps: int = 0
    poly_power: float = 0.9
    poly_horizon: int | None = None

    def optimizer(self, network: nn.Module, kept: nn.Module | None = None, kept_factor: float = 1.0) -> Optimizer:
        """Return the optimiser of a :class:`ripu.models.interface.SegmentationNetwork`; see :meth:`groups`.

        On a CPU, Adam and AdamW update in one pass over memory, unless ``fused`` or ``foreach`` is given.
        """
        made = self.make(self.groups(network, kept, kept_factor))
        for group in made.param_groups if isinstance(made, Adam | AdamW) else ():
            if group["fused"] is None and group["foreach"] is None:
                group["fused"] = all(parameter.device.type == "cpu" for parameter in group["params"]) or None
        return made

    def groups(
        self, network: nn.Module, kept: nn.Module | None = None, kept_factor: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return the groups of parameters: those of the backbone from its input to its output, then those of the head.

        Those of ``kept``, what an objective keeps beside the network, come last, at ``kept_factor`` times the learning
        rate. All are named ``backbone``, ``head`` or ``kept``. A group is divided only if its parameters decay
        differently.
        """
        backbone, head = network.parameter_groups()  # type: ignore[operator]
        layers = backbone_layers(network) if self.layer_decay != 1.0 else [backbone]
        rates = [self.learning_rate * self.layer_decay**depth for depth in reversed(range(len(layers)))]
        parts = [*(("backbone", layer, rate) for layer, rate in zip(layers, rates, strict=True))]
        parts.append(("head", head, self.learning_rate * self.head_lr_factor))
        if own := [one for one in (kept.parameters() if kept is not None else ()) if one.requires_grad]:
            parts.append(("kept", own, self.learning_rate * kept_factor))
        return [
            {"params": chosen, "lr": rate, "weight_decay": decay, "name": name}
            for name, parameters, rate in parts
            for chosen, decay in self._by_decay(parameters)
        ]

    def _by_decay(self, parameters: list[nn.Parameter]) -> list[tuple[list[nn.Parameter], float]]:
        if self.norm_decay or not self.weight_decay:
            return [(parameters, self.weight_decay)]
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        return [(chosen, decay) for chosen, decay in ((others, 0.0), (weights, self.weight_decay)) if chosen]

    def factor(self, step: int, max_steps: int) -> float:
        """Return the learning rate of a step over that of ``learning_rate``, in a run of ``max_steps``."""
        horizon = self.poly_horizon or max_steps if self.schedule == "poly" else max_steps
        return rate_factor(step, self.schedule, horizon, self.warmup_steps, self.poly_power)


def rate_factor(step: int, schedule: Schedule, horizon: int, warmup_steps: int = 0, power: float = 0.9) -> float:
    """Return the learning rate of a step, counted from 0, over the largest one.

    ``poly``: ``(1 - step / horizon) ** power``; ``cosine``: ``(1 + cos(pi * step / horizon)) / 2``; both are 0 past the
    horizon. ``constant``: 1. During warm-up the result is multiplied by ``(step + 1) / (warmup_steps + 1)``.

    >>> [round(rate_factor(step, "cosine", 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    done = min(1.0, step / horizon)
    factors: dict[Schedule, float] = {
        "poly": (1.0 - done) ** power,
        "cosine": (1.0 + math.cos(math.pi * done)) / 2.0,
        "constant": 1.0,
    }
    return factors[schedule] * min(1.0, (step + 1) / (warmup_steps + 1))
