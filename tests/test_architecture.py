"""The import rules of the package, and that what is public says what it does."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ripu
from running import environment

ROOT = Path(ripu.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
COMMANDS = {"ripu.train", "ripu.evaluate", "ripu.predict", "ripu.doctor.__main__", "ripu.replay"}
BUILDING = ("ripu.run.assembly", "ripu.run.restore", "ripu.config.resolvers")
ENTRY_POINTS = {
    *BUILDING,
    "ripu.config.output_folder",
    "ripu.run",
    "ripu.config.validate",
    "ripu.config.app",
    *COMMANDS,
}
UPPER = ("ripu.module", "ripu.datamodule", "ripu.selection", "ripu.train", "ripu.run", "ripu.report", *BUILDING)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every imported module, in functions too; relative imports do not occur."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files_in(*packages: str) -> list[Path]:
    found = [path for path in FILES if is_in(module_name(path), *packages)]
    assert found, packages
    return found


def forbid(paths: list[Path], *packages: str) -> None:
    wrong = {(module_name(path), name) for path in paths for name in imports(path) if is_in(name, *packages)}
    assert not wrong


def test_functional_imports_torch_and_the_standard_library_alone() -> None:
    for path in files_in("ripu.functional"):
        for name in imports(path):
            assert is_in(name, "torch", "ripu.functional") or name.partition(".")[0] in sys.stdlib_module_names, name


def test_the_label_store_needs_neither_torch_nor_lightning_nor_hydra() -> None:
    forbid(files_in("ripu.labelstore"), "torch", "pytorch_lightning", "torchmetrics", "hydra", "omegaconf")
    code = "import sys, ripu.labelstore; sys.exit(bool({'torch', 'hydra', 'pytorch_lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


def test_hydra_stays_at_the_entry_points() -> None:
    forbid([path for path in FILES if not is_in(module_name(path), *ENTRY_POINTS)], "hydra", "omegaconf")


def test_lightning_goes_by_one_name() -> None:
    forbid(FILES, "lightning", "lightning_fabric")


def test_wandb_is_reached_through_yaml_and_one_file() -> None:
    forbid(
        [path for path in FILES if module_name(path) != "ripu.dashboards.wandb_board"],
        "wandb",
        "ripu.dashboards.wandb_board",
    )


def test_imports_point_down() -> None:
    lower = files_in("ripu.acquisition", "ripu.losses", "ripu.datasets", "ripu.models", "ripu.labelstore")
    forbid(lower, *UPPER)
    forbid(files_in("ripu.functional"), "ripu.acquisition", "ripu.datasets", "ripu.models", *UPPER)
    forbid(files_in("ripu.module", "ripu.datamodule"), "ripu.selection", "ripu.train", "ripu.run", *BUILDING)
    forbid(files_in("ripu.selection"), "ripu.train", "ripu.run", "ripu.report", *BUILDING)
    forbid([path for path in FILES if module_name(path) != "ripu.train"], "ripu.train")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_what_is_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path}: no module docstring"

    def check(node: ast.AST, where: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                is_public = not child.name.startswith("_")
                assert not is_public or ast.get_docstring(child), f"{where}.{child.name} has no docstring"
                if isinstance(child, ast.ClassDef) and is_public:
                    check(child, f"{where}.{child.name}")

    check(tree, module_name(path))


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
