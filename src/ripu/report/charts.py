"""Charts of the report as SVG text; colours of text and lines come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from ripu.inference import palette

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 42

ON_DARK = 0.88
"""White text needs a cell at least this opaque to be read on light paper."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        points: (x, y) pairs.
        color: CSS colour.
        name: Shown where a point is pointed at.
        tips: Text of each point; made from the name and the point where it is left out.
    """

    points: Sequence[tuple[float, float]]
    color: str
    name: str
    tips: Sequence[str] = ()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers that lie in low..high.

    >>> ticks(0.0, 2.2)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:g}"


class _Frame:
    """Axes, and the way from values to places."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_name: str, y_name: str) -> None:
        self.x, self.y = x, y
        self.parts: list[str] = []
        for value in ticks(*y, count=6):
            at = self.down(value)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self.parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(value)}</text>')
        for value in ticks(*x, count=6):
            at = self.across(value)
            self.parts.append(
                f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{_number(value)}</text>'
            )
        base = HEIGHT - BOTTOM
        self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
        self.parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
        )
        self.parts.append(
            f'<text transform="translate(12 {(TOP + base) / 2}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
        )

    def across(self, value: float) -> float:
        low, high = self.x
        return LEFT + (value - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    def svg(self, label: str) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(self.parts)}</svg>'
        )


def line_chart(
    lines: Sequence[Line], x_name: str, y_name: str, marks: Sequence[tuple[float, str, str]] = (), label: str = ""
) -> str:
    """Lines with a dot at every point.

    Args:
        lines: The lines; points that are not finite are left out.
        x_name: What x is.
        y_name: What y is.
        marks: (x, text, CSS colour) of upright lines.
        label: What the chart shows, for those who cannot see it.
    """
    every = [point for line in lines for point in line.points if all(map(math.isfinite, point))]
    if not every:
        return '<p class="missing">No evaluation yet.</p>'
    xs, ys = [point[0] for point in every] + [mark[0] for mark in marks], [point[1] for point in every]
    margin = 0.08 * ((max(ys) - min(ys)) or 1.0)
    x = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    frame = _Frame(x, (max(0.0, min(ys) - margin), max(ys) + margin), x_name, y_name)
    for at, text, color in marks:
        place = frame.across(at)
        frame.parts.append(
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{color}">'
            f"<title>{escape(text)}</title></line>"
        )
    for line in lines:
        places = [(frame.across(x), frame.down(y)) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        frame.parts.append(f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2.2"/>')
        for number, (x_at, y_at) in enumerate(places):
            tip = line.tips[number] if line.tips else f"{line.name}: {line.points[number][1]:.2f}"
            frame.parts.append(
                f'<circle cx="{x_at:.1f}" cy="{y_at:.1f}" r="4" fill="{line.color}"><title>{escape(tip)}</title></circle>'
            )
    return frame.svg(label or y_name)


def reliability(named: Sequence[tuple[str, str, NDArray[np.float64]]]) -> str:
    """Accuracy against confidence; the size of a dot grows with its share of the pixels.

    Args:
        named: Name, CSS colour and bins (B, 3: pixels, right ones, summed confidence) of each evaluation.
    """
    frame = _Frame((0.0, 100.0), (0.0, 100.0), "confidence (%)", "right (%)")
    frame.parts.append(
        f'<line class="mark" x1="{frame.across(0)}" y1="{frame.down(0)}" x2="{frame.across(100)}" y2="{frame.down(100)}"/>'
    )
    for name, color, bins in named:
        filled = bins[bins[:, 0] > 0]
        share = filled[:, 0] / max(float(bins[:, 0].sum()), 1.0)
        places = [
            (frame.across(100 * confidence / pixels), frame.down(100 * right / pixels))
            for pixels, right, confidence in filled.tolist()
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        frame.parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for (x, y), part, (pixels, right, confidence) in zip(places, share.tolist(), filled.tolist(), strict=True):
            sure, hit = 100 * confidence / pixels, 100 * right / pixels
            tip = f"{name}: {100 * part:.1f} % of the pixels, confidence {sure:.1f} %, right {hit:.1f} %"
            frame.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 7 * math.sqrt(part):.1f}" fill="{color}" fill-opacity="0.8">'
                f"<title>{escape(tip)}</title></circle>"
            )
    return frame.svg("Reliability diagram")


def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Shares of each true class by predicted class: rows are truth and add up to 100 %.

    Args:
        counts: (C, C).
        names: C names.
    """
    cell, left, top = 22, 92, 92
    size = cell * len(names)
    totals = counts.sum(axis=1)
    parts = []
    red, green, blue = palette.BLUE
    for row, truth in enumerate(names):
        middle = top + cell * row + cell / 2 + 4
        parts.append(f'<text x="{left - 5}" y="{middle:.0f}" text-anchor="end">{escape(truth)}</text>')
        parts.append(
            f'<text transform="translate({left + cell * row + cell / 2 + 4:.0f} {top - 5}) rotate(-60)">{escape(truth)}</text>'
        )
        for column, found in enumerate(names):
            share = counts[row, column] / totals[row] if totals[row] else 0.0
            if share < 0.0005:
                continue
            x, y = left + cell * column, top + cell * row
            opacity = 0.08 + 0.92 * math.sqrt(share)
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="rgb({red},{green},{blue})" '
                f'fill-opacity="{opacity:.3f}"><title>{escape(truth)} taken for {escape(found)}: {100 * share:.1f} % '
                f"({counts[row, column]:,} pixels)</title></rect>"
            )
            if share >= 0.095:
                tone = "on-dark" if opacity > ON_DARK else ""
                parts.append(
                    f'<text class="cell {tone}" x="{x + cell / 2 - 0.5}" y="{y + cell / 2 + 4}" text-anchor="middle">'
                    f"{100 * share:.0f}</text>"
                )
    frame = f'<rect class="frame" x="{left - 0.5}" y="{top - 0.5}" width="{size}" height="{size}" fill="none"/>'
    view, widest = f"0 0 {left + size + 46} {top + size + 4}", round(1.25 * (left + size + 46))
    size_text = f'style="max-width:{widest}px" viewBox="{view}"'
    return f'<svg class="confusion" {size_text} role="img" aria-label="Confusion matrix">{frame}{"".join(parts)}</svg>'
