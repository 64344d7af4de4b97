"""The frame of a run: its folder, its trainer, its callbacks, and what is left behind when it is over."""

from __future__ import annotations

from ripu.checkpointing import newest_checkpoint, save_final
from ripu.resume import pick_up
from ripu.runs.beginning import find_start, put_again, take_beginning
from ripu.runs.folder import check_free, claim
from ripu.runs.processes import check_launcher, num_processes
from ripu.runs.results import Clock, provenance, report
from ripu.runs.trainer import add_callbacks, close, make_trainer
from ripu.skipped import SkippedFiles

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
