"""A run killed six times and resumed ends with the bytes of an undisturbed run. ``make soak`` kills more often."""

from __future__ import annotations

from pathlib import Path

import pytest

import kills
from kills import Kill, Way

SIX = (
    (0, Kill("pre-training", 1, {"kind": "step", "step": 1, "when": "after"})),
    (2, Kill("half a shard", 2, {"kind": "half", "label": "picks", "round": 0, "count": 1})),
    (0, Kill("right after a commit", 2, {"kind": "committed", "round": 0})),
    (2, Kill("half a checkpoint", 4, {"kind": "checkpoint", "name": "step-00000005.*", "when": "half"})),
    (2, Kill("before the manifest", 5, {"kind": "replace", "name": "manifest.json", "when": "before", "round": 1})),
    (0, Kill("between checkpoint and record", 7, {"kind": "replace", "name": "step-00000008.sha256", "when": "after"})),
)


@pytest.mark.slow
def test_six_kills_change_nothing(data_root: Path, tmp_path: Path) -> None:
    kills.finish(data_root, tmp_path / "whole", Way())
    groups = [kills.kill(data_root, tmp_path / "run", Way(workers), one) for workers, one in SIX]
    kills.finish(data_root, tmp_path / "run", Way())
    for group in groups:
        kills.check_gone(group)
    assert kills.differences(tmp_path / "whole", tmp_path / "run") == dict.fromkeys(
        ("weights", "labels", "results", "metrics"), 0
    )
