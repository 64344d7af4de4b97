"""Whether another round pays: what the sentence may rest on, and what it may not."""

from __future__ import annotations

import re

import pytest

from ripu.report.verdict import judge

STEPS = [100, 120, 140, 160, 180, 200]


def points(*mious: float) -> list[tuple[int, float]]:
    return list(zip(STEPS, mious, strict=False))


def test_steady_gains_are_likely_to_go_on() -> None:
    verdict = judge(points(20.0, 23.0, 26.0, 29.0), STEPS[:3])
    assert (verdict.answer, verdict.gain, verdict.spread) == ("likely", 3.0, 0.0)
    assert "+3.0, +3.0, +3.0" in verdict.sentence


def test_a_flat_curve_is_not() -> None:
    assert judge(points(20.0, 29.0, 30.0, 30.0, 30.0), STEPS[:4]).answer == "open"  # the bend looks like scatter
    assert judge(points(30.0, 30.1, 30.0, 30.1, 30.0), STEPS[:4]).answer == "unlikely"


def test_what_scatters_is_open() -> None:
    verdict = judge(points(10.9, 15.5, 9.1, 15.0, 16.0), STEPS[:4])
    assert verdict.answer == "open"
    # gains 4.6, -6.4, 5.9, 1.0; their differences -11, 12.3, -4.9
    assert verdict.spread == pytest.approx(((11.0**2 + 12.3**2 + 4.9**2) / 3 / 6) ** 0.5 / 2**0.5)


def test_a_long_last_phase_does_not_count_as_a_gain_of_labels() -> None:
    curve = [(100, 20.0), (120, 22.0), (140, 22.1), (160, 22.2), (260, 30.0)]
    verdict = judge(curve, [100, 120, 140, 160])
    assert verdict.gain == pytest.approx(0.1)
    assert "5.0 times as long" in verdict.sentence
    assert "+7.8" in verdict.sentence


@pytest.mark.parametrize("mious", [(), (20.0,), (20.0, 21.0)])
def test_one_gain_says_nothing(mious: tuple[float, ...]) -> None:
    verdict = judge(points(*mious), STEPS[:2])
    assert (verdict.answer, verdict.gain) == ("unknown", None)


def test_evaluations_before_the_first_round_and_missing_ones_do_not_count() -> None:
    assert judge([(10, 50.0), *points(20.0, 23.0, 26.0)], STEPS[:2]).gain == 3.0
    assert judge(points(20.0, float("nan"), 23.0, 26.0), STEPS[:3]).gain == 3.0
    assert judge(points(20.0, 23.0), []).answer == "unknown"


def test_it_is_one_sentence() -> None:
    for verdict in (judge(points(20.0, 23.0, 26.0, 29.0), STEPS[:3]), judge([], [])):
        assert len(re.findall(r"[.?!](\s|$)", verdict.sentence)) == 1
