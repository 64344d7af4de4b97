"""Runs that wait for people: refused or ended before anything that takes long to import."""

from __future__ import annotations

from ripu.config.spec import RunSpec
from ripu.labelstore.cut import FOLDER, waiting_round
from ripu.labelstore.errors import StoreMissingError
from ripu.labelstore.reader import LabelReader


def round_to_answer(spec: RunSpec) -> int | None:
    """Return the round whose answers a run waits for on resume; None if it can continue.

    The newest checkpoint is found by name, without reading it.

    Args:
        spec: The run.

    Raises:
        LabelStoreError: The label store is damaged.
    """
    if spec.person is None or not spec.resume:
        return None
    steps = [int(path.stem[5:]) for path in (spec.output_dir / "checkpoints").glob("step-[0-9]*.ckpt")]
    try:
        store = LabelReader(spec.output_dir / "labels")
    except StoreMissingError:
        return None
    folder = spec.output_dir / FOLDER
    return waiting_round(store.num_rounds, folder, spec.plan.selection_steps, max(steps, default=0))
