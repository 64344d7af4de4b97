"""Commands that are printed for people: each works when it is pasted into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_PLAIN = re.compile(r"/?[A-Za-z_][\w.-]*(/[\w.+-]+)*", re.ASCII)
_NOT_TEXT = re.compile(r"null|true|false|nan|inf", re.IGNORECASE)


def override(key: str, value: object) -> str:
    """Return ``key=value`` as Hydra reads it, with the value in quotes where its text means something to Hydra.

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
    return shlex.quote(override(key, value))


def command_line(name: str, words: Sequence[str] = ()) -> str:
    """Return the line that runs module ``name`` of this package; its words are not quoted for the shell yet.

    >>> command_line("train", ["dataset=gtav", override("paths.output_dir", "a,b")])
    'python -m ripu.train dataset=gtav \\'paths.output_dir=\\'"\\'"\\'a,b\\'"\\'"\\'\\''
    """
    return shlex.join(["python", "-m", f"ripu.{name}", *words])
