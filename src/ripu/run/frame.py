"""The frame of a run: its folder, its trainer, its callbacks, and what is left behind when it is over."""

from __future__ import annotations

from ripu.run.beginning import find_start, put_again, take_beginning
from ripu.run.folder import check_free, claim
from ripu.run.processes import check_launcher, num_processes
from ripu.run.results import Clock, provenance, report
from ripu.run.resume import pick_up
from ripu.run.trainer import add_callbacks, close, make_trainer
from ripu.training.checkpoint import newest_checkpoint, save_final
from ripu.training.skipped_files import SkippedFiles

__all__ = [
    "Clock",
    "SkippedFiles",
    "add_callbacks",
    "check_free",
    "check_launcher",
    "claim",
    "close",
    "find_start",
    "make_trainer",
    "newest_checkpoint",
    "num_processes",
    "pick_up",
    "provenance",
    "put_again",
    "report",
    "save_final",
    "take_beginning",
]
