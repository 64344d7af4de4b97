"""The documents: links lead somewhere, named files exist, and the README's Python runs."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", without_code(page.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"(?<![\w/.])((?:src/ripu|tests|conf|scripts|docs)/[\w./-]*\w/?)(?![\w{*]*[{*])", text):
        if "NAME" not in name:
            assert (ROOT / name).exists(), f"{name} does not exist"
    for module in re.findall(r"python -m (ripu[\w.]*\w)", text):
        assert module == "ripu.COMMAND" or find_spec(module) is not None, f"{module} is not a command"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert (tmp_path / "labels" / "manifest.json").exists()
    names["store"].close()  # type: ignore[attr-defined]


def test_the_site_has_every_page_and_at_most_eleven() -> None:
    nav = re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md"))
    assert len([page for page in nav if "/" not in page and page != "index.md"]) <= 11
