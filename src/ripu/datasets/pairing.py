"""Pairing of images with the labels whose wildcards match the same text, and the choice of images by a list.

``left/*/*_rgb.png`` and ``truth/*/*_ids.png`` pair ``left/rome/7_rgb.png`` with ``truth/rome/7_ids.png``. A folder
stands for all images directly in it, paired by name without extension. Accents may be composed or decomposed.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import SUFFIXES, files_below
from ripu.datasets.scenes import Scene

Patterns = str | Sequence[str]
_log = logging.getLogger(__name__)


def composed(name: str) -> str:
    """Compose the accents of a name: macOS, and archives made there, store ``é`` as ``e`` and an accent."""
    return unicodedata.normalize("NFC", name)


def pair_by_name(images: Path, labels: Path, name: str) -> tuple[tuple[Scene, ...], int, int]:
    """Pair the PNG files of two folders that have the same name, and warn about the others.

    Return the scenes sorted by name, and the numbers of images and labels.
    """
    first, second = ({path.name: path for path in sorted(folder.glob("[!.]*.png"))} for folder in (images, labels))
    scenes = tuple(Scene(path.stem, path, second[key]) for key, path in first.items() if key in second)
    unpaired = sorted(first.keys() ^ second.keys())
    if scenes and unpaired:
        _log.warning("%s: %d files have no partner and are left out: %s", name, len(unpaired), unpaired[:5])
    return scenes, len(first), len(second)


def matches(root: Path, pattern: str, key: str) -> dict[tuple[str, ...], Path]:
    """Find the images that a pattern (a folder or a glob below ``root``) matches; ``key`` is its configuration key.

    Returns:
        Text matched by the wildcards (for a folder: name without extension), accents composed -> the image, sorted by
        path.

    Raises:
        SceneError: The pattern leaves ``root``, matches nothing, or matches images that cannot be told apart.
    """
    _refuse_outside(root, pattern, key)
    pattern = PurePosixPath(pattern).as_posix()  # without ./ and //, as globs need it
    forms = (pattern, composed(pattern), unicodedata.normalize("NFD", pattern))
    pattern = next(
        (form for form in dict.fromkeys(forms) if (root / form).is_dir() or any(_glob(root, form))),
        pattern,
    )
    found: dict[tuple[str, ...], Path] = {}
    if (root / pattern).is_dir():
        for path in _visible(path for path in (root / pattern).iterdir() if path.suffix.lower() in SUFFIXES):
            if found.setdefault((composed(path.stem),), path) != path:
                raise SceneError(
                    f"{key}={pattern} has images whose names differ only in their extension or in how accents are "
                    "written; use a glob, e.g. *.png, or take some out"
                )
    else:
        shape = re.compile(pattern_regex(pattern))
        for path in _visible(path for path in _glob(root, pattern) if path.is_file()):
            match = shape.fullmatch(path.relative_to(root).as_posix())
            assert match is not None, (pattern, path)
            other = found.setdefault(tuple(map(composed, match.groups())), path)
            if other != path:
                raise SceneError(f"{path} and {other} differ only in how accents are written; take one out")
    if not found:
        deeper = next((path for path in files_below(root / pattern) if path.suffix.lower() in SUFFIXES), None)
        if deeper is not None:
            raise SceneError(
                f"{key}={pattern} has images only in folders below it, e.g. {deeper.relative_to(root).as_posix()}; "
                f"write {pattern}/**/*{deeper.suffix}"
            )
        entries = sorted(entry.name for entry in root.iterdir())[:8] if root.is_dir() else None
        raise SceneError(
            f"{key}={pattern} matches no image in {root}, which "
            + ("does not exist; set dataset.root" if entries is None else f"contains {entries}")
        )
    return found


def below(root: Path, name: str, key: str) -> Path:
    """Return the path of a file below ``root``; refuse a name that leaves it."""
    _refuse_outside(root, name, key)
    return root / name


def glob_files(root: Path, pattern: str, key: str) -> list[Path]:
    """Return the files that a glob below ``root`` matches, sorted; refuse a glob that leaves it."""
    _refuse_outside(root, pattern, key)
    return _visible(path for path in _glob(root, pattern) if path.is_file())


def glob_images(root: Path, pattern: str, key: str) -> list[Path]:
    """Return what :func:`glob_files` does; refuse a glob that matches nothing."""
    found = glob_files(root, pattern, key)
    if not found:
        raise SceneError(f"{key}={pattern} matches no file in {root}; correct the pattern, or set dataset.root")
    return found


def _refuse_outside(root: Path, pattern: str, key: str) -> None:
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise SceneError(f"{key}={pattern} must lie below dataset.root={root}; set dataset.root to a folder above it")


def label_fit(turn: int, image: tuple[int, int], label: tuple[int, int]) -> str:
    """Compare the (height, width) of a label with that of the upright image, whose file has an EXIF orientation.

    Return ``lying`` if the label fits the image as stored, on its side; ``unclear`` if it fits the image both as stored
    and upright; otherwise an empty text.
    """
    if turn >= 5 and label == image[::-1] != image:
        return "lying"
    return "unclear" if turn != 1 and label == image and (turn < 5 or image[0] == image[1]) else ""


def choose(scenes: list[Scene], path: Path, key: str) -> list[Scene]:
    """Return the scenes that a text file names, in their own order.

    Each line is matched by its end, as much of it as is needed to tell the images apart.

    Raises:
        SceneError: The file cannot be read, is empty, or has a line that names no image or several.
    """
    file = f"{key}.list_file={path}"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SceneError(f"{file} cannot be read ({error}); name a text file below dataset.root") from error
    except UnicodeDecodeError as error:
        raise SceneError(f"{file} is not text in UTF-8 ({error}); save it as UTF-8") from error
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
            options = [index for index in options if _parts(scenes[index])[-depth:] == end] or options
        if len(options) == 1:
            chosen.add(options[0])
        else:
            (unclear if options else unknown).append(text)
    if unknown:
        raise SceneError(
            f"{file}: {len(unknown)} lines name no image of {key}.images: {unknown[:3]}; correct the list, or the "
            "patterns"
        )
    if unclear:
        raise SceneError(f"{file}: {len(unclear)} lines fit several images: {unclear[:3]}; write more of their path")
    if not chosen:
        raise SceneError(f"{file} names no image; write one per line")
    return [scenes[index] for index in sorted(chosen)]


def _glob(root: Path, pattern: str) -> Iterable[Path]:
    """Return the paths that a glob matches; ``**`` follows links to folders, which pathlib silently leaves out."""
    if "**/" not in pattern:
        return root.glob(pattern)
    parts, shape = PurePosixPath(pattern).parts, re.compile(pattern_regex(pattern))
    fixed = next(number for number, part in enumerate(parts) if re.search(r"[*?[]", part))
    below = files_below(root.joinpath(*parts[:fixed]))
    return [path for path in below if shape.fullmatch(path.relative_to(root).as_posix())]


def _visible(paths: Iterable[Path]) -> list[Path]:
    """Sort paths; leave out files such as the ``._NAME`` that macOS puts beside files on foreign drives."""
    return sorted(path for path in paths if not path.name.startswith("."))


def _parts(scene: Scene) -> tuple[str, ...]:
    return PurePosixPath(composed(scene.image.with_suffix("").as_posix())).parts


def pattern_regex(pattern: str) -> str:
    """Return a glob as a regular expression with one group per wildcard."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    table = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}
    return "".join(
        table[part] if part in table else f"({part.replace('[!', '[^')})" if part.startswith("[") else re.escape(part)
        for part in parts
    )


def _named(line: str, scenes: Sequence[Scene], by_name: Mapping[str, Sequence[int]]) -> PurePosixPath:
    """Return the path at the start of a line, without suffix: its first word, or more if an image path has spaces."""
    ends = [match.start() for match in re.finditer(r"\s", line)] + [len(line)]
    for end in reversed(ends):
        path = PurePosixPath(line[:end])
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        spaced = next((number for number, part in enumerate(path.parts) if re.search(r"\s", part)), None)
        if spaced is None:
            return path
        tail = path.parts[spaced:]
        if any(_parts(scenes[index])[-len(tail) :] == tail for index in by_name.get(path.name, ())):
            return path
    raise AssertionError(line)  # the first word has no space
