"""Names of files and classes in exchanged files."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.reading import MalformedError
from ripu.labelstore import VOID

_NAMED = 5


def stem_of(name: str) -> str:
    """Return the name of an exported file without folders, extension and any prefix that an upload added.

    >>> stem_of("/data/upload/7/0badf00d-0-12-3.png")
    '0-12-3'
    """
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"^[0-9a-f]{8}-(?=.*[-_])|\.[A-Za-z]{1,5}$", "", last)


def short(name: object) -> str:
    """Return a name from a file, shortened and safe to print."""
    text = str(name)
    return "".join(sign if sign.isprintable() else "?" for sign in text[:80]) + ("..." if len(text) > 80 else "")


class ClassNames:
    """The names of the classes and of void, and the names that a file has and the run does not."""

    def __init__(self, classes: Sequence[AnnotationClass]) -> None:
        """List the names; void is ``void``, or with ``_`` appended if a class has that name."""
        self.names = {one.id: one.name for one in classes}
        taken = {_key(name) for name in self.names.values()}
        void = "void"
        while void in taken:
            void += "_"
        self.void = void
        self.names[VOID] = void
        self.colors = {one.id: "#{:02x}{:02x}{:02x}".format(*one.color) for one in classes} | {VOID: "#000000"}
        self._ids = {_key(name): label for label, name in self.names.items()}
        folded = [key.casefold() for key in self._ids]
        self._folded = {key.casefold(): label for key, label in self._ids.items() if folded.count(key.casefold()) == 1}
        self._unknown: dict[str, str] = {}

    def find(self, name: str) -> int | None:
        """Return the label of a name (255 for void), or None; case matters only where names differ in nothing else."""
        key = _key(name)
        return self._ids.get(key, self._folded.get(key.casefold()))

    def label(self, name: str, where: str = "") -> int | None:
        """Return the label of a name; None for an unknown one, which :meth:`check` reports."""
        label = self.find(name)
        if label is None:
            self._unknown.setdefault(name, where)
        return label

    def check(self) -> None:
        """Refuse a file with unknown names.

        Raises:
            MalformedError: Some names are unknown; the message lists them with the nearest known ones.
        """
        if not self._unknown:
            return
        listed = []
        for name, where in list(self._unknown.items())[:_NAMED]:
            near = difflib.get_close_matches(_key(name)[:80], [*self.names.values()], 1, 0.5)
            hints = [*([where] if where else []), *([f"did you mean {near[0]!r}?"] if near else [])]
            listed.append(f"{short(name)!r}" + (f" ({', '.join(hints)})" if hints else ""))
        more = f" and {len(self._unknown) - _NAMED} more" if len(self._unknown) > _NAMED else ""
        classes = ", ".join(list(self.names.values())[:40])
        raise MalformedError(f"unknown classes: {', '.join(listed)}{more}", f"use the names of the run: {classes}")


def _key(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())
