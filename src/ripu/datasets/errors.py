"""Errors about data on disk, and the record of a file that was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ripu.io.console import command_line
from ripu.io.errors import RipuError

# Beginnings of command-line words that only fit the original data
_DATA_KEYS = ("dataset", "paths.", "resume", "start.", "data.cache", "model.checkpoint", "model.weights", "hydra")


class DatasetNotFoundError(RipuError, ValueError):
    """A data set is not where it was looked for; the message says where to get it and what to run without it.

    ``source`` says where to register or download, ``found`` what the folder contains instead. ``stand_in`` is the
    ``dataset=`` of generated scenes with the same classes, ``words`` the rest of the command that runs on them.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        contents: str,
        source: str,
        *,
        found: str = "",
        stand_in: str = "streets",
        words: Sequence[str] = (),
    ) -> None:
        self._again = partial(DatasetNotFoundError, name, folder, contents, source, found=found, stand_in=stand_in)
        instead = f"  found instead:      {found}\n" if found else ""
        command = command_line("train", [f"dataset={stand_in}", *words])
        super().__init__(
            f"{name} was not found: there is no usable data in {folder}\n"
            f"  expected there:     {contents}\n{instead}"
            f"  where to get it:    {source}\n"
            "  another location:   paths.data_root=FOLDER, the parent of the data sets' folders\n"
            f"  without the data:   {command}   (generated street scenes)"
        )

    def for_command(self, words: Sequence[str]) -> DatasetNotFoundError:
        """Return the same error with the user's ``key=value`` words that make sense on generated data."""
        return self._again(words=[word for word in words if not word.lstrip("+~").startswith(_DATA_KEYS)])


class SceneError(RipuError, ValueError):
    """A file of a data set cannot be used; the message names the file, the cause and the remedy."""


class Fault(NamedTuple):
    """A file that could not be read; ``cause`` is the reader's message in one line."""

    part: str  # source, target or val
    image_id: str
    file: str
    cause: str


class SkippedFileError(SceneError):
    """A file cannot be read, and the policy is to leave its scene out (``data.unreadable=skip``)."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.cause)
        self.fault = fault

    def __reduce__(self) -> tuple[type[SkippedFileError], tuple[Fault]]:
        """Pass the fault along to another process."""
        return type(self), (self.fault,)
