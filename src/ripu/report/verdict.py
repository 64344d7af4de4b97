"""Whether another round is likely to pay, in a sentence, from the learning curve alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WORTHWHILE = 0.5
"""A round pays if it brings this much mIoU (percent points)."""

LONG_PHASE = 1.5
"""A last phase longer than the median one by this factor is left out: its gain is that of training, too."""


@dataclass(frozen=True)
class Verdict:
    """What to expect of a further round.

    Attributes:
        answer: ``likely``, ``open``, ``unlikely`` or ``unknown``.
        gain: Expected gain in mIoU (percent points); None where it is unknown.
        spread: What the expectation is uncertain by; None where it is unknown.
        sentence: Answer and evidence.
    """

    answer: str
    gain: float | None
    spread: float | None
    sentence: str


def judge(points: Sequence[tuple[int, float]], rounds: Sequence[int]) -> Verdict:
    """Judge from mIoU before the first round and after every round.

    ``likely`` is a gain that pays and is more than twice its spread, ``unlikely`` one that would not pay even with twice
    its spread on top; anything else is ``open``.

    The expected gain is the mean of the last two rounds' gains. The spread is that of this mean if evaluations scatter
    independently around a locally straight curve: second differences of n points have six times the variance of a
    point. With few points both are rough, and one run says nothing of the spread over seeds.

    Args:
        points: (step, mIoU in percent) of all evaluations, steps increasing.
        rounds: Steps of the rounds.

    Returns:
        The verdict.

    >>> judge([(10, 20.0), (20, 25.0), (30, 28.0), (40, 30.0)], [10, 20, 30]).answer
    'likely'
    """
    if not rounds:
        return Verdict("unknown", None, None, "No round took place, so nothing is known of what one would bring.")
    curve = [(step, miou) for step, miou in points if step >= rounds[0] and math.isfinite(miou)]
    note = ""
    if len(curve) >= 4:
        lengths = [later - earlier for (earlier, _), (later, _) in pairwise(curve)]
        usual = statistics.median(lengths[:-1])
        if lengths[-1] > LONG_PHASE * usual:
            last = curve[-1][1] - curve[-2][1]
            curve = curve[:-1]
            note = (
                f"; the last phase ({last:+.1f}), {lengths[-1] / usual:.1f} times as long as the others, is left out, since "
                "its gain is that of training, too"
            )
    gains = [later - earlier for (_, earlier), (_, later) in pairwise(curve)]
    if len(gains) < 2:
        have = f"{len(gains)} gain{'s' if len(gains) != 1 else ''}"
        return Verdict(
            "unknown", None, None, f"Too early to say: {have} after a round so far, and two are needed{note}."
        )
    gain = (gains[-1] + gains[-2]) / 2
    seconds = [later - earlier for earlier, later in pairwise(gains)]
    scatter = math.sqrt(statistics.fmean(value * value for value in seconds) / 6)
    spread = scatter * math.sqrt(2) / 2
    listed = ", ".join(f"{one:+.1f}" for one in gains)
    if gain > WORTHWHILE and gain > 2 * spread:
        answer, words = "likely", "Another round is likely to pay"
    elif gain + 2 * spread < WORTHWHILE:
        answer, words = "unlikely", "Another round is unlikely to pay"
    else:
        answer, words = "open", "Whether another round pays is open"
    sentence = (
        f"{words}: the rounds brought {listed} points of mIoU, the last two {gain:+.1f} on average with an uncertainty of "
        f"about ±{spread:.1f} (scatter of {len(curve)} evaluations of this one run; {WORTHWHILE:g} points count as "
        f"paying){note}."
    )
    return Verdict(answer, gain, spread, sentence)
