"""The layers of the package hold, and what import-linter and ruff cannot see."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import ripu
from running import ROOT, environment

PACKAGE = Path(ripu.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lint_imports(sources: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml for the package in a folder."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=sources,
        env={**environment(), "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold() -> None:
    done = lint_imports(PACKAGE.parent)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "planted", "broken"),
    [
        ("losses.py", "import ripu.train", "ripu.losses is not allowed to import ripu.train"),
        ("losses.py", "def late():\n    import ripu.train", "ripu.losses is not allowed to import ripu.train"),
        (
            "losses.py",
            "def late():\n    from ripu import greedy_picks",
            "ripu.losses is not allowed to import ripu.selection",
        ),
        ("io/console.py", "from ripu import schedule", "ripu.io is not allowed to import ripu.schedule"),
        ("train.py", "def late():\n    from ripu import repeat", "ripu.train is not allowed to import ripu.repeat"),
        ("labelstore/__init__.py", "import torch", "ripu.labelstore is not allowed to import torch"),
        ("selection/__init__.py", "def late():\n    import omegaconf", "ripu.selection -> omegaconf"),
        ("losses.py", "import pytorch_lightning", "ripu.losses -> pytorch_lightning"),
        ("run/__init__.py", "def late():\n    import wandb", "ripu.run -> wandb"),
        ("new_room.py", "", "new_room"),
    ],
)
def test_a_planted_import_breaks_a_contract(file: str, planted: str, broken: str, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "ripu", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "ripu" / file).open("a") as module:
        module.write(f"\n\n{planted}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stderr
    assert broken in done.stdout


@pytest.mark.parametrize(
    ("room", "libraries"),
    [("functional", {"torch"}), ("losses", {"torch", "ripu.functional.joint_gradient"}), ("schedule", set())],
)
def test_the_equations_and_the_schedule_stand_alone(room: str, libraries: set[str]) -> None:
    graph = grimp.build_graph("ripu", include_external_packages=True, cache_dir=None)
    inside = {f"ripu.{room}", *graph.find_descendants(f"ripu.{room}")}
    kernels = graph.find_descendants("ripu.functional.fused")
    imported = {name for module in inside - kernels for name in graph.find_modules_directly_imported_by(module)}
    assert imported - inside - sys.stdlib_module_names == libraries


def test_only_the_kernels_import_triton_and_numba() -> None:
    graph = grimp.build_graph("ripu", include_external_packages=True, cache_dir=None)
    imported = set()
    for package, compiler in {"cuda": "triton", "cpu": "numba"}.items():
        assert graph.find_modules_that_directly_import(compiler) <= graph.find_descendants(
            f"ripu.functional.fused.{package}"
        ) | {f"ripu.functional.fused.{package}"}
    for module in graph.find_descendants("ripu.functional.fused"):
        imported |= graph.find_modules_directly_imported_by(module)
    assert {name for name in imported - sys.stdlib_module_names if not name.startswith("ripu.functional.")} == {
        *("llvmlite", "numba", "torch", "triton"),
    }


@pytest.mark.parametrize("path", [path for path in FILES if ">>>" in path.read_text()], ids=module_name)
def test_examples_in_docstrings_hold(path: Path) -> None:
    result = doctest.testmod(importlib.import_module(module_name(path)))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_does_not_import_torch(command: str, tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['ripu.{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('ripu.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'pytorch_lightning', 'matplotlib', 'albumentations', 'wandb'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert ("Configuration groups" if command == "train" else "python -m ripu.evaluate checkpoint=RUN") in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_test_file_imports_another() -> None:
    """What two files need is in tests/support: a name that one file moves must not stop another from being read."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert files
    for path in files:
        tree = ast.parse(path.read_text())
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name.startswith("test_")], path


def test_any_folders_of_tests_run_together() -> None:
    """Several of them have a ``conftest.py``, and modules of one name get in each other's way."""
    folders = sorted({str(path.parent) for path in (ROOT / "tests").rglob("conftest.py")} - {str(ROOT / "tests")})
    assert len(folders) > 1
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *reversed(folders)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
