"""Geometry of the charts of the report page; ``templates/charts.html`` draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 42


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers within ``low`` and ``high``.

    >>> _ticks(0.0, 2.2)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Axis:
    """An axis: values from ``low`` to ``high`` lie between the positions ``start`` and ``end`` of the drawing."""

    name: str
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the position of a value."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of each tick."""
        values = _ticks(self.low, self.high, count=6)
        texts = [f"{one:,.0f}" if abs(one) >= 1000 or one == int(one) else f"{one:g}" for one in values]
        return [(self.place(value), text) for value, text in zip(values, texts, strict=True)]


@dataclass(frozen=True)
class LogAxis(Axis):
    """An axis of positive values, on which equal distances are equal ratios."""

    def place(self, value: float) -> float:
        """Return the position of a value."""
        part = math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of 1, 2 and 5 times each power of ten; over a wide range, of the powers alone."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if len(powers) < 5 else (1,)
        values = [factor * 10.0**power for power in powers for factor in factors]
        return [(self.place(value), f"{value:,.10g}") for value in values if self.low <= value <= self.high]


def _chart(label: str, x: Axis, y: Axis, lines: list[Any], marks: list[Any]) -> dict[str, Any]:
    """Return what the template reads, in positions of the drawing.

    Lines, the first one at the back, have dots as (x, y, radius, text). A line may also have the number of its row, a
    pattern of dashes and the outline of its dots. Marks, dotted lines behind the others, are
    (x1, y1, x2, y2, text, CSS colour).
    """
    return {"label": label, "x": x, "y": y, "lines": lines, "marks": marks, "width": WIDTH, "height": HEIGHT}


def _axes(x_name: str, x: tuple[float, float], y_name: str, y: tuple[float, float]) -> tuple[Axis, Axis]:
    return Axis(x_name, *x, LEFT, WIDTH - RIGHT), Axis(y_name, *y, HEIGHT - BOTTOM, TOP)


def line_chart(
    points: Sequence[tuple[float, float, str]],
    x_name: str,
    y_name: str,
    label: str,
    marks: Sequence[tuple[float, str, str]] = (),
) -> dict[str, Any]:
    """Lay out one line in the accent colour, with vertical lines at marks of (x, text, CSS colour).

    The points, at least one, are (x, y, text); those that are not finite are left out. The label is for screen readers.
    """
    points = [one for one in points if math.isfinite(one[0]) and math.isfinite(one[1])]
    xs, ys = [one[0] for one in points] + [mark[0] for mark in marks], [one[1] for one in points]
    margin = 0.08 * ((max(ys) - min(ys)) or 1.0)
    span = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    x, y = _axes(x_name, span, y_name, (max(0.0, min(ys) - margin), max(ys) + margin))
    dots = [(x.place(at), y.place(value), 4.0, text) for at, value, text in points]
    placed = [(x.place(at), y.end, x.place(at), y.start, text, color) for at, text, color in marks]
    return _chart(label, x, y, [{"color": "var(--accent)", "opacity": 1.0, "dots": dots}], placed)


def reliability(named: Sequence[tuple[str, str, NDArray[np.float64]]]) -> dict[str, Any]:
    """Lay out accuracy against confidence; the size of a dot grows with its share of the pixels.

    Each evaluation has a name, a CSS colour and bins (B, 3): pixels, correct pixels, summed confidence.
    """
    x, y = _axes("confidence (%)", (0.0, 100.0), "accuracy (%)", (0.0, 100.0))
    lines = []
    for name, color, bins in named:
        total = max(float(bins[:, 0].sum()), 1.0)
        dots = []
        for pixels, right, summed in bins[bins[:, 0] > 0].tolist():
            confidence, accuracy, part = 100 * summed / pixels, 100 * right / pixels, pixels / total
            text = f"{name}: {100 * part:.1f} % of the pixels, confidence {confidence:.1f} %, accuracy {accuracy:.1f} %"
            dots.append((x.place(confidence), y.place(accuracy), 3 + 7 * math.sqrt(part), text))
        lines.append({"color": color, "opacity": 0.8, "dots": dots})
    return _chart("Reliability diagram", x, y, lines, [(x.start, y.start, x.end, y.end, "", "")])


def curves_chart(
    lines: Sequence[tuple[dict[str, Any], Sequence[tuple[float, float, str]]]], x_name: str, y_name: str, label: str
) -> dict[str, Any]:
    """Lay out several lines over a logarithmic axis, in a wide drawing.

    Each line, at least one, has its style (``row``, ``color``, ``dash``, ``shape``) and points of (x, y, text), x
    above 0.
    """
    xs = [x for _, points in lines for x, _, _ in points]
    ys = [y for _, points in lines for _, y, _ in points]
    margin = 0.08 * ((max(ys) - min(ys)) or 1.0)
    x = LogAxis(x_name, min(xs) / 1.25, max(xs) * 1.25, LEFT, 2 * WIDTH - RIGHT)
    y = Axis(y_name, max(0.0, min(ys) - margin), max(ys) + margin, HEIGHT + 80 - BOTTOM, TOP)
    placed = [
        {**style, "opacity": 1.0, "dots": [(x.place(at), y.place(value), 4.0, text) for at, value, text in points]}
        for style, points in lines
    ]
    return {**_chart(label, x, y, placed, []), "width": 2 * WIDTH, "height": HEIGHT + 80}
