"""A closed round that gave no label is named, with what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ripu.selection.waiting import WaitForAnswers


@pytest.mark.parametrize(
    ("changes", "has_source", "said"),
    [
        ({"new_class_pixels": {"road": 3}}, False, []),
        ({"picks": 0}, False, []),
        (
            {},
            False,
            ["closed without an answer", "there is no source", "before round 3, run python -m ripu.labels undo"],
        ),
        ({}, True, ["closed without an answer", "on the source, without any target label", "ripu.labels undo"]),
        (
            {"class_pixels": {"road": 9}},
            True,
            ["closed without an answer", "the labels known before", "ripu.labels undo"],
        ),
        ({"people": {"answered": 4}}, False, ["all its answers are void: no target label is known yet"]),
    ],
    ids=["labels", "nothing asked", "no source", "source", "known before", "void"],
)
def test_a_round_without_a_label_is_named(
    changes: dict[str, Any], has_source: bool, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = None
    wait = WaitForAnswers(Path("a run"), nothing, nothing, nothing, hold_minutes=None)
    entry = {"index": 1, "picks": 5, "new_class_pixels": {"road": 0}, "class_pixels": {"road": 0}}
    wait._warn_without_labels({**entry, "people": {"answered": 0}, **changes}, has_source)
    assert len(caplog.messages) == bool(said)
    assert all(part in caplog.text for part in said)
    assert ("undo" in caplog.text) is ("ripu.labels undo" in str(said))
