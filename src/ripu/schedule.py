"""The schedule of a run: pre-training, selection rounds, the end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Plan:
    """The schedule of a run in optimiser steps, counted from 0.

    Its boundaries (the end of pre-training, every selection step, every renewal and the end) cut a run into phases. The
    labels and pseudo-labels that training sees do not change within a phase. A round precedes a renewal of its step.
    """

    max_steps: int  # pre-training included
    pretrain_steps: int = 0  # at the beginning, which see source images only (Algorithm 1, line 3)
    selection_steps: tuple[int, ...] = ()  # numbers of finished steps at which a round takes place; strictly increasing
    renewal_steps: tuple[int, ...] = ()  # the same of renewals, in which a method looks at all target images anew

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"trainer.max_steps={self.max_steps} trains nothing; give 1 or more")
        if not 0 <= self.pretrain_steps <= self.max_steps:
            raise ValueError(
                f"pretrain_steps={self.pretrain_steps} is outside 0..{self.max_steps} (trainer.max_steps); lower it or "
                "train longer"
            )
        steps, renewals = self.selection_steps, self.renewal_steps
        for name, those, what in (("selection_steps", steps, "round"), ("renewal_steps", renewals, "renewal")):
            if any(later <= earlier for earlier, later in pairwise(those)):
                raise ValueError(f"{name}={list(those)} must increase; a step has at most one {what}")
        if steps and (steps[0] < 0 or steps[-1] >= self.max_steps):
            raise ValueError(
                f"selection_steps={list(steps)} must lie in 0..{self.max_steps - 1}: a round at or after "
                f"trainer.max_steps={self.max_steps} would ask for labels that are never trained on"
            )
        if steps and steps[0] < self.pretrain_steps:
            raise ValueError(
                f"the first of selection_steps={list(steps)} lies inside pre-training (pretrain_steps="
                f"{self.pretrain_steps}); move it to {self.pretrain_steps} or later"
            )
        if renewals and not self.pretrain_steps <= renewals[0] <= renewals[-1] < self.max_steps:
            raise ValueError(
                f"renewal_steps={list(renewals)} must lie in {self.pretrain_steps}..{self.max_steps - 1}, from the end "
                "of pre-training (pretrain_steps) to the last step (trainer.max_steps)"
            )

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Steps at which a phase begins or ends, from 0 to ``max_steps``."""
        return tuple(sorted({0, self.pretrain_steps, *self.selection_steps, *self.renewal_steps, self.max_steps}))

    def phase(self, step: int) -> tuple[int, int]:
        """Return the first step and the end (exclusive) of the phase of training step ``step``."""
        start = max(boundary for boundary in self.boundaries if boundary <= step)
        stop = min((boundary for boundary in self.boundaries if boundary > step), default=self.max_steps)
        return start, stop

    def num_rounds(self, step: int) -> int:
        """Return the number of rounds that are over when training step ``step`` begins."""
        return sum(boundary <= step for boundary in self.selection_steps)

    def num_renewals(self, step: int) -> int:
        """Return the number of renewals that are over when training step ``step`` begins."""
        return sum(boundary <= step for boundary in self.renewal_steps)

    def is_pretraining(self, step: int) -> bool:
        """Return whether training step ``step`` sees source images only."""
        return step < self.pretrain_steps

    def describe(self, step: int) -> str:
        """Return the name of the phase of training step ``step`` for progress messages."""
        if self.is_pretraining(step):
            return "pre-training on source"
        rounds, renewals = len(self.selection_steps), len(self.renewal_steps)
        if rounds:
            return f"adapting, {self.num_rounds(step)} of {rounds} rounds"
        return f"adapting, {self.num_renewals(step)} of {renewals} renewals" if renewals else "training"


def scheduled_steps(fractions: list[float], max_steps: int) -> tuple[int, ...]:
    """Turn fractions of a run into steps, rounded to the nearest one.

    >>> scheduled_steps([0.25, 0.3], max_steps=40_000)
    (10000, 12000)
    """
    return tuple(round(fraction * max_steps) for fraction in fractions)
