"""Text for people at a terminal: the progress of long work, and command lines that can be pasted into a shell."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

PLAIN_SECONDS = 15.0
"""Seconds between two lines without a terminal."""

_T = TypeVar("_T")
_PLAIN = re.compile(r"/?[A-Za-z_][\w.-]*(/[\w.+-]+)*", re.ASCII)
_FOLDER_KEYS = (
    *(
        "paths.",
        "start.",
        "hydra.",
        "data.cache",
        "model.checkpoint",
        "model.weights",
        "method.previous",
        "method.translated",
    ),
    *("--config-dir", "--config-path"),
    *("dataset.root", "dataset.source", "dataset.target", "dataset.val", "dataset.static_mask"),
)
_FOLDER_OPTIONS = frozenset({"--config-dir", "-cd", "--config-path", "-cp"})  # the next word is a folder
_NOT_TEXT = re.compile(r"null|true|false|nan|inf", re.IGNORECASE)


def is_terminal() -> bool:
    """Return whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Discard what libraries print on stdout, from C++ too."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def time_left(done: int, total: int, seconds: float) -> str:
    """Return the time that is left, in words, if ``done`` of ``total`` items took ``seconds``.

    >>> time_left(10, 20, 30.0), time_left(1, 20, 30.0)
    ('about 30 s left', 'about 9.5 min left')
    """
    left = seconds / max(done, 1) * (total - done)
    if left < 90:
        return f"about {left:.0f} s left"
    return f"about {left / 60:.1f} min left" if left < 5400 else f"about {left / 3600:.1f} h left"


class Progress:
    """A display on stderr of how many items are done and the time left.

    On a terminal it is a bar that disappears at the end. Elsewhere (a log file, a cluster job, ``TERM=dumb``) it is a
    line every :data:`PLAIN_SECONDS`, so short work says nothing.
    """

    def __init__(self, what: str, total: int, unit: str = "images", *, is_enabled: bool = True) -> None:
        """Begin ``what`` with none of ``total`` items done; ``is_enabled=False`` shows nothing at all."""
        self.what, self.total, self.unit = what, total, unit
        self._is_enabled = is_enabled
        self._began = self._last_line = time.monotonic()
        self._done = 0
        self._bar: tqdm[Any] | None = None
        if is_enabled and is_terminal():
            self._bar = tqdm(total=total, desc=what, unit=f" {unit}", leave=False, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Show that ``done`` items are done, of a new ``total`` if it is given; close when all are."""
        self.total, self._done = self.total if total is None else total, done
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(done - self._bar.n)
        elif self._is_enabled and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            seconds = self._last_line - self._began
            print(
                f"{self.what}: {done}/{self.total} {self.unit}, {done / seconds:.1f} {self.unit}/s, "
                f"{time_left(done, self.total, seconds)}",
                file=sys.stderr,
                flush=True,
            )
        if done >= self.total:
            self.close()

    def add(self, count: int = 1) -> None:
        """Show that further items are done."""
        self(self._done + count)

    def say(self, text: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def track(items: Iterable[_T], what: str, total: int, unit: str = "images", *, is_enabled: bool = True) -> Iterator[_T]:
    """Pass items on and show how many went by; the other arguments are those of :class:`Progress`."""
    with Progress(what, total, unit, is_enabled=is_enabled) as progress:
        for item in items:
            yield item
            progress.add()


def override(key: str, value: object) -> str:
    """Return ``key=value`` as Hydra reads it, with the value in quotes if its text means something to Hydra.

    >>> override("resume", "yes"), override("paths.output_dir", "outputs/mode=ra")
    ('resume=yes', "paths.output_dir='outputs/mode=ra'")
    """
    text = str(value)
    if _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text):
        return f"{key}={text}"
    # Backslashes before a quote or at the end would escape it; ${ would be an interpolation.
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{key}='{text}'".replace("${", r"\${")


def argument(key: str, value: object) -> str:
    """Return ``key=value`` for a command of Hydra, quoted for Hydra and for the shell.

    >>> print(argument("start.run", "outputs/run 1"))
    'start.run='"'"'outputs/run 1'"'"''
    """
    return _shell_words([override(key, value)])


def command_line(name: str, words: Sequence[str] = ()) -> str:
    """Return the line that runs module ``name`` of this package; its words are not quoted for the shell yet.

    >>> command_line("train", ["dataset=gtav", override("paths.output_dir", "a,b")])
    'python -m ripu.train dataset=gtav \\'paths.output_dir=\\'"\\'"\\'a,b\\'"\\'"\\'\\''
    """
    return _shell_words(["python", "-m", f"ripu.{name}", *words])


def without_folders(command: str) -> str:
    """Return a command without the names of files and folders, which are nobody's business in a published file.

    >>> without_folders("python -m ripu.train --config-dir /home/ann/conf experiment=table1/ra paths.output_dir=secret")
    'python -m ripu.train --config-dir ... experiment=table1/ra paths.output_dir=...'
    >>> without_folders("python -m ripu.train -cd ann model.weights=ann.pt dataset.val.images=ann seed=1")
    'python -m ripu.train -cd ... model.weights=... dataset.val.images=... seed=1'
    """
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError:
        return "python -m ripu.train ..."
    before = ["", *words]
    return " ".join(
        "..." if last in _FOLDER_OPTIONS else _without_folder(word) for last, word in zip(before, words, strict=False)
    )


def _without_folder(word: str) -> str:
    key, sign, value = word.partition("=")
    if not sign:
        return "..." if re.search(r"[/\\]", word) else word
    is_folder = re.search(r"[/\\]", value) and key != "experiment"
    is_hidden = is_folder or value.startswith("{")  # a mapping may have folders inside, e.g. paths={output_dir: NAME}
    return f"{key}=..." if is_hidden or key.lstrip("+").startswith(_FOLDER_KEYS) else word


def _shell_words(words: Sequence[str]) -> str:
    """Return one line of words, quoted as the shells of this system read them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
