"""What goes out to another tool and comes back is the same, and only what was asked comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exchange import NASTY, PLAIN, REGIONS, Run
from ripu.annotate.codecs import FORMATS
from ripu.annotate.errors import AnnotationError

ALL = sorted(FORMATS)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "labels")


@pytest.mark.parametrize("regions", REGIONS)
@pytest.mark.parametrize("name", ALL)
def test_a_round_trip_brings_back_every_answer(tmp_path: Path, name: str, regions: str) -> None:
    run = Run(tmp_path / "labels", regions, NASTY)
    for index in range(2):
        out = tmp_path / f"round {index}"
        assert run.export(name, out, index) == len(run.questions_of(index))
        for _ in range(2):
            found, report = run.read(name, out)
            assert found == run.expected(index)
            incomplete = sum(254 in labels for labels in found.values())
            assert vars(report) == {
                "conflicts": [],
                "unknown_questions": [],
                "unknown_images": [],
                "dropped_pixels": 0,
                "incomplete": incomplete,
                "unsure": [],
            }
