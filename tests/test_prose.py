"""House rules of the prose that a machine can check: imperative first lines, no phrase of a translation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = sorted(
    path
    for folder in ("src", "conf", "docs", "scripts")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".yaml", ".html", ".js")
) + [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
TRANSLATED = re.compile(
    r"\b(go(es)? on with|gone on with|(?<!there )is no (folder|file|number|run)\b|in little\b|tells of\b|is to be had)"
)


def first_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and first line of every docstring, those of attributes included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip().partition("\n")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_docstring_begins_with_a_question_word(path: Path) -> None:
    found = [
        (number, line) for number, line in first_lines(path) if re.match(r"(What|Where|Whether|How|Who|When)\b", line)
    ]
    assert not found


def test_no_text_reads_like_a_translation() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if TRANSLATED.search(line)
    ]
    assert not found
