from __future__ import annotations

from pathlib import Path

import pytest

from running import train_here


@pytest.fixture(scope="session")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds with a gallery of two images; copy it before changing anything but its page."""
    folder = tmp_path_factory.mktemp("report") / "run"
    train_here(data_root, folder, "budget=0.2", "evaluation.gallery=2")
    return folder
