"""The documents: links lead somewhere, named files exist, and the README's Python runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from PIL import Image

import ripu
from ripu.export import export
from running import ROOT, compose, environment, untrained_checkpoint

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
    run = untrained_checkpoint(tmp_path)
    (tmp_path / "RUN" / "checkpoints").mkdir(parents=True)
    run.rename(tmp_path / "RUN" / "checkpoints" / "final.ckpt")
    Image.new("RGB", (60, 40)).save(tmp_path / "image.png")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(code, names)
    assert names["network"].score("image.png").shape == (40, 60)  # type: ignore[attr-defined]
    assert (tmp_path / "labels" / "manifest.json").exists()
    names["store"].close()  # type: ignore[attr-defined]


def test_the_python_of_the_export_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX without this package gives the labels that the package gives."""
    monkeypatch.chdir(tmp_path)
    checkpoint = untrained_checkpoint(tmp_path)
    export(compose(f"checkpoint={checkpoint}", "output=net.onnx", config_name="export"))
    Image.effect_noise((48, 32), 90).convert("RGB").save("image.png")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[-1]
    names: dict[str, object] = {}
    exec(code, names)
    assert (names["label"] == ripu.load("net.onnx", "cpu").predict("image.png")).all()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    notebook = shutil.copy(ROOT / "docs" / "quickstart.ipynb", tmp_path)
    content = json.loads(Path(notebook).read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in content["cells"])
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", str(notebook), "--rootdir", "."]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_site_has_every_page_and_at_most_fourteen() -> None:
    nav = re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md"))
    assert len([page for page in nav if "/" not in page and page != "index.md"]) <= 14
