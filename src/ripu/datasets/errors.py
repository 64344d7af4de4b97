"""Errors about data on disk, and the record of a file that was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ripu.io.errors import RipuError
from ripu.io.shell import command_line

_DATA_KEYS = ("dataset", "paths.", "resume", "start.", "data.cache", "model.checkpoint", "model.weights", "hydra")
"""Beginnings of command-line words that only fit the original data."""


class DatasetNotFoundError(RipuError, ValueError):
    """A data set is not where it was looked for; the message says where to get it and what to run without it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        contents: str,
        where: str,
        *,
        there: str = "",
        stand_in: str = "streets",
        words: Sequence[str] = (),
    ) -> None:
        """Compose the message.

        Args:
            name: Name of the data set as it is known in the field.
            folder: The folder that was searched.
            contents: The files that belong in it.
            where: Where to register or download.
            there: The folder's contents, if it holds something else.
            stand_in: The ``dataset=`` of generated scenes with the same classes.
            words: Further words of the command that runs the same experiment on them.
        """
        self._again = partial(DatasetNotFoundError, name, folder, contents, where, there=there, stand_in=stand_in)
        found = f"  found instead:      {there}\n" if there else ""
        command = command_line("train", [f"dataset={stand_in}", *words])
        super().__init__(
            f"{name} was not found: there is no usable data in {folder}\n"
            f"  expected there:     {contents}\n{found}"
            f"  where to get it:    {where}\n"
            "  another location:   paths.data_root=FOLDER, the parent of the data sets' folders\n"
            f"  without the data:   {command}   (generated street scenes)"
        )

    def for_command(self, words: Sequence[str]) -> DatasetNotFoundError:
        """Return the same error, naming the command that does on generated data what the user asked for.

        Args:
            words: The ``key=value`` words of the user's command; those that name data or files are left out.
        """
        kept = [word for word in words if not word.lstrip("+~").startswith(_DATA_KEYS)]
        return self._again(words=kept)


class SceneError(RipuError, ValueError):
    """A file of a data set cannot be used; the message names the file, the cause and the remedy."""


class Fault(NamedTuple):
    """A file that could not be read.

    Attributes:
        part: ``source``, ``target`` or ``val``.
        image_id: The scene.
        file: Path of the file.
        cause: The reader's message, in one line.
    """

    part: str
    image_id: str
    file: str
    cause: str

    def to_json(self) -> dict[str, str]:
        """Return the fault as a JSON object."""
        return self._asdict()


class SkippedFileError(SceneError):
    """A file cannot be read, and the policy is to leave its scene out (``data.unreadable=skip``)."""

    def __init__(self, fault: Fault) -> None:
        """Describe the file that could not be read."""
        super().__init__(fault.cause)
        self.fault = fault

    def __reduce__(self) -> tuple[type[SkippedFileError], tuple[Fault]]:
        """Pass the fault along to another process."""
        return type(self), (self.fault,)
