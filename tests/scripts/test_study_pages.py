"""The pages of the studies say what their records say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

import benchmark
import chance
import study
from running import ROOT

STUDIES = ROOT / "docs" / "studies"


@pytest.mark.parametrize(("script", "name"), [(study, "results"), (chance, "chance"), (benchmark, "benchmark")])
def test_a_page_is_what_its_script_writes(
    script: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--no-runs", "--out", tmp_path, "--report", tmp_path / "page.md", "--record", STUDIES / f"{name}.jsonl"]
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    monkeypatch.setattr(script, "command", lambda data_root: f"python scripts/{script.__name__}.py --no-runs")
    script.main()
    assert (tmp_path / "page.md").read_text() == (STUDIES / f"{name}.md").read_text()
