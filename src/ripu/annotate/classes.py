"""The classes on the page, and their letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ripu.annotate.errors import AnnotationError

KEYS = "asdfgjklqwertyiopzxcbnm"
"""Letters for classes, in the order in which they are assigned; H, U and V have other uses."""


@dataclass(frozen=True)
class AnnotationClass:
    """A class on the page.

    Attributes:
        id: Train id.
        name: Its name.
        color: RGB, 0..255.
        key: The letter that stands for it; empty if there are more classes than letters.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    key: str


def class_keys(names: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    """Return a letter for each class: the chosen one, else a free one of its name, else of :data:`KEYS`, else none.

    Args:
        names: The classes in train-id order.
        chosen: Class name -> letter.

    Raises:
        AnnotationError: A letter is used twice, has another use, or is given to an unknown class.

    Example:
        >>> class_keys(["road", "roof", "sky"], {"sky": "y"})
        ['r', 'o', 'y']
    """
    for name, letter in chosen.items():
        if name not in names:
            raise AnnotationError(f"oracle.keys names the unknown class {name!r}; the classes are {', '.join(names)}")
        if not isinstance(letter, str) or len(letter) != 1 or letter.lower() not in KEYS:
            raise AnnotationError(
                f"oracle.keys gives {name!r} the key {letter!r}; use one of the letters {', '.join(KEYS)}"
            )
    taken = [letter.lower() for letter in chosen.values()]
    if len(set(taken)) < len(taken):
        raise AnnotationError("oracle.keys gives two classes the same letter; give each its own")
    free = [letter for letter in KEYS if letter not in taken]
    letters = []
    for name in names:
        if name in chosen:
            letters.append(chosen[name].lower())
            continue
        wanted = [letter for letter in name.lower() if letter in free] or free
        if not wanted:
            letters.append("")
            continue
        letters.append(wanted[0])
        free.remove(wanted[0])
    return letters
