"""Which image and which label belong together.

They do when the wildcards of their patterns match the same text: ``left/*/*_rgb.png`` and ``truth/*/*_ids.png`` pair
``left/rome/7_rgb.png`` with ``truth/rome/7_ids.png``. A folder stands for all pictures directly in it, paired by name without
ending. Accents may be composed or not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import SUFFIXES
from ripu.datasets.scenes import Scene

Patterns = str | Sequence[str]


def composed(name: str) -> str:
    """A name with its accents composed: macOS and archives made there write ``e`` and an accent for ``é``."""
    return unicodedata.normalize("NFC", name)


def is_hidden(path: Path) -> bool:
    """Whether a file is none of the data, e.g. the ``._NAME`` that macOS puts beside files on drives of other systems."""
    return path.name.startswith(".")


def listed(patterns: Patterns) -> list[str]:
    """One pattern or several, as a list."""
    return [patterns] if isinstance(patterns, str) else [str(pattern) for pattern in patterns]


def matches(root: Path, pattern: str, key: str) -> dict[tuple[str, ...], Path]:
    """The pictures that a pattern matches.

    Args:
        root: Where it starts.
        pattern: A folder, or a glob.
        key: Its name in the configuration, for messages.

    Returns:
        What the wildcards match (of a folder: names without ending), accents composed -> the picture, sorted by path.

    Raises:
        SceneError: It leaves ``root``, matches nothing, or pictures whose names are the same.
    """
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise SceneError(f"{key}={pattern} must lie below dataset.root={root}; set dataset.root to a folder above it")
    pattern = PurePosixPath(pattern).as_posix()  # as globs take it: without ./ and //
    forms = (pattern, composed(pattern), unicodedata.normalize("NFD", pattern))
    pattern = next((form for form in dict.fromkeys(forms) if (root / form).is_dir() or any(root.glob(form))), pattern)
    found: dict[tuple[str, ...], Path] = {}
    if (root / pattern).is_dir():
        folder = root / pattern
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_hidden(path))
        found = {(composed(path.stem),): path for path in paths}
        if len(found) != len(paths):
            raise SceneError(
                f"{key}={pattern} has pictures that differ in their ending (or the way accents are written) alone; use a glob, "
                "e.g. *.png, or take some out"
            )
    else:
        shape = re.compile(_regex(pattern))
        paths = sorted(path for path in root.glob(pattern) if path.is_file() and not is_hidden(path))
        for path in paths:
            match = shape.fullmatch(path.relative_to(root).as_posix())
            assert match is not None, (pattern, path)
            wildcards = tuple(map(composed, match.groups()))
            if wildcards in found:
                raise SceneError(
                    f"{path} and {found[wildcards]} differ in the way accents are written alone; take one out"
                )
            found[wildcards] = path
    if not found:
        there = sorted(entry.name for entry in root.iterdir())[:8] if root.is_dir() else None
        raise SceneError(
            f"{key}={pattern} matches no picture in {root}, "
            + ("which does not exist; set dataset.root" if there is None else f"where there are {there}")
        )
    return found


def label_fit(turn: int, image: tuple[int, int], label: tuple[int, int]) -> str:
    """Compare the size of a label with that of an image that its EXIF data turn.

    Args:
        turn: EXIF orientation of the image file.
        image: (height, width) of the upright image.
        label: (height, width) of the label.

    Returns:
        ``lying`` if the label fits the image as stored, on its side; ``unclear`` if it fits the image both as stored and
        upright; otherwise empty.
    """
    if turn >= 5 and label == image[::-1] != image:
        return "lying"
    return "unclear" if turn != 1 and label == image and (turn < 5 or image[0] == image[1]) else ""


def _parts(scene: Scene) -> tuple[str, ...]:
    return PurePosixPath(composed(scene.image.with_suffix("").as_posix())).parts


def _regex(pattern: str) -> str:
    """A glob as a regular expression with one group a wildcard."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    table = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}
    return "".join(
        table[part] if part in table else f"({part.replace('[!', '[^')})" if part.startswith("[") else re.escape(part)
        for part in parts
    )


def choose(scenes: list[Scene], path: Path, key: str) -> list[Scene]:
    """The scenes that a list names, in the order of the data set."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(
            f"{key}.list_file={path} cannot be read ({error}); name a text file below dataset.root"
        ) from error
    by_name: dict[str, list[int]] = {}
    for index, scene in enumerate(scenes):
        by_name.setdefault(composed(scene.image.stem), []).append(index)
    chosen: set[int] = set()
    unknown: list[str] = []
    unclear: list[str] = []
    for line in lines:
        text = composed(line.strip())
        if not text or text.startswith("#"):
            continue
        named = _named(text.replace("\\", "/"), scenes, by_name)
        options = by_name.get(named.name, [])
        for depth in range(2, len(named.parts) + 1):
            if len(options) < 2:
                break
            end = named.parts[-depth:]
            options = [one for one in options if _parts(scenes[one])[-depth:] == end] or options
        if len(options) == 1:
            chosen.add(options[0])
        else:
            (unclear if options else unknown).append(text)
    if unknown:
        raise SceneError(
            f"{key}.list_file={path}: {len(unknown)} lines name no image of {key}.images: {unknown[:3]}; correct the list, "
            "or the patterns"
        )
    if unclear:
        raise SceneError(
            f"{key}.list_file={path}: {len(unclear)} lines fit several images: {unclear[:3]}; write more of their path"
        )
    if not chosen:
        raise SceneError(f"{key}.list_file={path} names no image; write one a line")
    return [scenes[index] for index in sorted(chosen)]


def _named(line: str, scenes: Sequence[Scene], by_name: Mapping[str, Sequence[int]]) -> PurePosixPath:
    """The path at the beginning of a line, without ending: its first word, or more where an image has them in its path."""
    ends = [match.start() for match in re.finditer(r"\s", line)] + [len(line)]
    for end in reversed(ends):
        path = PurePosixPath(line[:end])
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        spaced = next((number for number, part in enumerate(path.parts) if re.search(r"\s", part)), None)
        if spaced is None:
            return path
        tail = path.parts[spaced:]
        if any(_parts(scenes[one])[-len(tail) :] == tail for one in by_name.get(path.name, ())):
            return path
    raise AssertionError(line)  # the first word has no space
