"""A judgement from the learning curve alone: is another round likely to pay?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

WORTHWHILE = 0.5  # a round pays if it gains this much mIoU (percentage points)

LONG_PHASE = 1.5
"""A last phase that exceeds the median one by this factor is left out: more training contributes to its gain."""


class Verdict(NamedTuple):
    """The outlook for a further round; gain and spread are percentage points of mIoU."""

    answer: str  # likely, open, unlikely or unknown
    gain: float | None
    spread: float | None
    sentence: str


def judge(points: Sequence[tuple[int, float]], rounds: Sequence[int]) -> Verdict:
    """Judge from mIoU before the first round and after every round.

    ``likely`` is a gain that pays and exceeds twice its spread. ``unlikely`` is a gain that would not pay even if it
    were twice its spread higher. Anything else is ``open``.

    The expected gain is the mean of the last two rounds' gains. Its spread assumes evaluations that scatter
    independently around a locally straight curve: second differences of n points have six times the variance of a
    point. With few points both are rough, and one run says nothing about the spread over seeds.

    Points are (step, mIoU in percent) of all evaluations, steps increasing; rounds are steps, too.

    >>> judge([(10, 20.0), (20, 25.0), (30, 28.0), (40, 30.0)], [10, 20, 30]).answer
    'likely'
    """
    if not rounds:
        return Verdict("unknown", None, None, "No round took place, so nothing is known about the gain of one.")
    curve = [(step, miou) for step, miou in points if step >= rounds[0] and math.isfinite(miou)]
    note = ""
    if len(curve) >= 4:
        lengths = [later - earlier for (earlier, _), (later, _) in pairwise(curve)]
        usual = statistics.median(lengths[:-1])
        if lengths[-1] > LONG_PHASE * usual:
            note = (
                f"; the last phase ({curve[-1][1] - curve[-2][1]:+.1f}) is left out, since it is "
                f"{lengths[-1] / usual:.1f} times as long as the others and gains from that training, too"
            )
            curve = curve[:-1]
    gains = [later - earlier for (_, earlier), (_, later) in pairwise(curve)]
    if len(gains) < 2:
        have = f"{len(gains)} gain{'s' if len(gains) != 1 else ''}"
        sentence = f"Too early to say: {have} after a round so far, but two are needed{note}."
        return Verdict("unknown", None, None, sentence)
    gain = (gains[-1] + gains[-2]) / 2
    seconds = [later - earlier for earlier, later in pairwise(gains)]
    scatter = math.sqrt(statistics.fmean(value * value for value in seconds) / 6)
    spread = scatter * math.sqrt(2) / 2
    if gain > WORTHWHILE and gain > 2 * spread:
        answer, words = "likely", "Another round is likely to pay"
    elif gain + 2 * spread < WORTHWHILE:
        answer, words = "unlikely", "Another round is unlikely to pay"
    else:
        answer, words = "open", "Another round may or may not pay"
    sentence = (
        f"{words}: the rounds gained {', '.join(f'{one:+.1f}' for one in gains)} points of mIoU, the last two "
        f"{gain:+.1f} on average with an uncertainty of about ±{spread:.1f} (scatter of {len(curve)} evaluations of "
        f"this run; a round pays from {WORTHWHILE:g} points on){note}."
    )
    return Verdict(answer, gain, spread, sentence)
