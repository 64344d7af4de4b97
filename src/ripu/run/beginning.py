"""What a run begins with: carried labels, answers that have come since, a beginning that other runs share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from ripu.datasets.errors import SkippedFileError
from ripu.datasets.scenes import Scenes
from ripu.io.errors import ConfigError
from ripu.labelstore import ImageAnswers, LabelStore, StoreMissingError
from ripu.run import initial_labels
from ripu.run.assembly import plain
from ripu.run.initial_labels import StartLabels
from ripu.run.processes import early_rank, num_processes
from ripu.run.shared_beginning import Beginning, key_of
from ripu.schedule import Plan
from ripu.selection.oracles import Oracle
from ripu.training.checkpoint import newest_checkpoint

__all__ = ["find_start", "put_again", "take_beginning"]

_log = logging.getLogger(__name__)


def find_start(cfg: DictConfig, scenes: Scenes) -> StartLabels | None:
    """The labels that a run begins with, for the process that writes; see :func:`ripu.run.initial_labels.find`.

    None where they are in the store of the run already: what they came from is not needed any more.

    Raises:
        ConfigError: A mask is missing or not in order.
        LabelStoreError: The run that is gone on from has other classes or images.
    """
    if early_rank() != 0 or _has_carried(Path(cfg.paths.output_dir) / "labels"):
        return None
    return initial_labels.find(cfg, scenes.target, scenes.taxonomy)


def _has_carried(labels: Path) -> bool:
    try:
        return bool(LabelStore.open(labels).carried)
    except StoreMissingError:
        return False


def put_again(store: LabelStore, oracle: Oracle) -> None:
    """Put what was asked and never answered to the oracle once more, e.g. where images have been labelled since.

    Args:
        store: The label store of the run, open for writing.
        oracle: Who answers; nobody is asked where nothing is unanswered.
    """

    def answers() -> Iterator[ImageAnswers]:
        for image in store.images:
            pixels = np.unique(store.unanswered(image.image_id))
            try:
                labels = oracle.answer(image.image_id, *np.divmod(pixels, image.width)) if len(pixels) else None
            except SkippedFileError:  # told of when the image is next asked about
                continue
            if labels is not None:
                yield ImageAnswers(image.image_id, pixels, labels)

    found = store.append_answers(answers())
    if found:
        _log.info("%d pixels that were asked about and not answered are labelled by now", found)


def take_beginning(cfg: DictConfig, run: Path, plan: Plan, scenes: Scenes) -> Beginning | None:
    """Go on from the state before the first round that a run of the same beginning has left, or be the one to leave it.

    Args:
        cfg: The configuration; ``paths.beginnings`` is the shared folder.
        run: The folder of the run.
        plan: Its schedule.
        scenes: Its data.

    Returns:
        The beginning; None where none is shared: without a folder, without steps before the first round, and in a run
        that goes on with checkpoints of its own.

    Raises:
        ConfigError: The run has several processes.
    """
    folder = cfg.paths.beginnings
    if folder is None or not plan.selection_steps or plan.selection_steps[0] < 2:
        return None
    if num_processes(cfg) > 1:
        raise ConfigError(
            f"paths.beginnings={folder} shares the beginnings of single-process runs; use trainer.devices=1, or leave it out"
        )
    if cfg.resume and newest_checkpoint(run / "checkpoints") is not None:
        return None
    parts = [part for part in (scenes.source, scenes.target, scenes.val) if part is not None]
    beginning = Beginning(Path(folder), key_of(plain(cfg), plan, parts), plan, run)
    beginning.take()
    return beginning
