"""When things happen in a run: pre-training, selection rounds, the end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Plan:
    """The schedule of a run in optimiser steps, counted from 0.

    A run is cut into phases at its boundaries: the end of pre-training, every selection step and the end. Within a
    phase the labels that training sees do not change.

    Attributes:
        max_steps: Length of the run, pre-training included.
        pretrain_steps: Steps at the beginning that see source images alone (Algorithm 1, line 3).
        selection_steps: A round takes place when this many steps are done; strictly increasing.
    """

    max_steps: int
    pretrain_steps: int = 0
    selection_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"trainer.max_steps={self.max_steps} trains nothing; give 1 or more")
        if not 0 <= self.pretrain_steps <= self.max_steps:
            raise ValueError(
                f"pretrain_steps={self.pretrain_steps} is outside 0..{self.max_steps} (trainer.max_steps); lower it or "
                "train longer"
            )
        steps = self.selection_steps
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"selection_steps={list(steps)} must increase; a round takes place once at a step")
        if steps and (steps[0] < 0 or steps[-1] >= self.max_steps):
            raise ValueError(
                f"selection_steps={list(steps)} must lie in 0..{self.max_steps - 1}: a round at or after "
                f"trainer.max_steps={self.max_steps} would ask for labels that nothing is trained on"
            )
        if steps and steps[0] < self.pretrain_steps:
            raise ValueError(
                f"the first of selection_steps={list(steps)} lies inside pre-training (pretrain_steps="
                f"{self.pretrain_steps}); move it to {self.pretrain_steps} or later"
            )

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Steps at which a phase begins or ends, from 0 to ``max_steps``."""
        return tuple(sorted({0, self.pretrain_steps, *self.selection_steps, self.max_steps}))

    def phase(self, step: int) -> tuple[int, int]:
        """First step and end (exclusive) of the phase in which training step ``step`` lies."""
        start = max(boundary for boundary in self.boundaries if boundary <= step)
        stop = min((boundary for boundary in self.boundaries if boundary > step), default=self.max_steps)
        return start, stop

    def num_rounds(self, step: int) -> int:
        """How many rounds are over when training step ``step`` is taken."""
        return sum(1 for boundary in self.selection_steps if boundary <= step)

    def is_pretraining(self, step: int) -> bool:
        """Whether training step ``step`` sees source images alone."""
        return step < self.pretrain_steps

    def describe(self, step: int) -> str:
        """Name of the phase of training step ``step``, for people."""
        if self.is_pretraining(step):
            return "pre-training on source"
        rounds = len(self.selection_steps)
        return f"adapting, {self.num_rounds(step)} of {rounds} rounds" if rounds else "training"


def scheduled_steps(fractions: list[float], max_steps: int) -> tuple[int, ...]:
    """Turn fractions of a run into steps, e.g. 0.25 of 40,000 into 10,000 (rounded to the nearest step)."""
    return tuple(round(fraction * max_steps) for fraction in fractions)
