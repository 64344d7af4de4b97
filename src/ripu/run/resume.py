"""Resuming a run: from its newest whole checkpoint whose rounds the label store has."""

from __future__ import annotations

import logging
from pathlib import Path

from ripu.labelstore import LabelStore, StoreMissingError
from ripu.models.checkpoints import newest_checkpoint, step_of
from ripu.schedule import Plan

_log = logging.getLogger(__name__)


def find_checkpoint(run: Path, plan: Plan) -> Path | None:
    """Find the checkpoint that a run resumes from: the newest whole one that the label store has all the rounds of.

    After a round was undone, that is one from before the round.

    Args:
        run: The folder of the run.
        plan: Its schedule.

    Returns:
        Its path; None where there is none: the run then begins anew with the labels that it has.

    Raises:
        LabelStoreError: The label store is damaged, or it is gone and the run had rounds already.
    """
    folder, labels = run / "checkpoints", run / "labels"
    newest = newest_checkpoint(folder)
    if newest is None or plan.num_rounds(step_of(newest)) == 0:
        return newest
    if not labels.is_dir():
        raise StoreMissingError(
            f"{labels} is gone, and {newest} is from after {plan.num_rounds(step_of(newest))} rounds; restore the "
            "folder from a copy of the run, or start another run: answered queries would be asked again"
        )
    done = LabelStore.open(labels).num_rounds
    if plan.num_rounds(step_of(newest)) <= done:
        return newest
    before = newest_checkpoint(folder, below=plan.selection_steps[done])
    _log.warning(
        "%s is from after a round that is not in %s (undone?); resuming from %s, and round %d takes place again",
        newest,
        labels,
        before or "the start",
        done,
    )
    return before
