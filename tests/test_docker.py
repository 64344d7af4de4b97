from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from running import ROOT

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install -e '.[dev]'")
def test_the_dockerfile_has_no_finding() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_gets_what_the_package_needs_and_nothing_else() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for name in line.split()}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert copied == sent
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], *project["license-files"], "src", "conf", "pyproject.toml"} == copied
    extras = re.search(r"/src\[(.*)\]", dockerfile)
    assert extras is not None
    assert set(extras[1].split(",")) == project["optional-dependencies"].keys() - {"dev", "docs"}


@pytest.mark.slow
def test_the_image_has_all_kernels_compiled(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="no kernels for CPUs without the extra fused")
    code = re.search(r'python -c "(.*)"', (ROOT / "Dockerfile").read_text("utf-8"))
    assert code is not None
    use = """
import torch, ripu
from ripu.functional import fused
assert fused.is_used(torch.zeros(1))
for radius, pixel in ((1, False), (4, False), (32, True)):
    score = ripu.ripu_score(torch.randn(1, 19, 40, 80), radius, size=(64, 128), pixel=pixel)
    ripu.greedy_picks(score[0], 10, 2 * radius, torch.ones(64, 128, dtype=torch.bool))
"""
    found = []
    for command in (code[1], use):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "RIPU_FUSED": "1"}
        subprocess.run([sys.executable, "-c", command], env=environment, check=True)
        found.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")})
    assert found[0]
    assert found[1] == found[0]
