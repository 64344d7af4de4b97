"""Figures over runs: learning curves, mIoU against the labelled share, and the sweep over k (Fig. 6). No torch."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ripu.report.plots import save, start, style
from ripu.report.rows import Row, row_name


def _shortened(names: Sequence[str]) -> list[str]:
    """Shorten names to what tells them apart: drop the words that all share, and the prefixes of keys.

    >>> _shortened(["gtav ra mode.radius=1 region._target_=ripu.regions.Square (n=3)", "gtav pa mode.radius=8 (n=3)"])
    ['ra radius=1 region=Square (n=3)', 'pa radius=8 (n=3)']

    A key stays whole if its last word does not tell it from another.

    >>> _shortened(["a.rate=1 b.rate=1 data.seed=0", "a.rate=2 b.rate=1 data.seed=1", "a.rate=2 b.rate=2 data.seed=0"])
    ['a.rate=1 b.rate=1 data.seed=0', 'a.rate=2 b.rate=1 data.seed=1', 'a.rate=2 b.rate=2 data.seed=0']
    """
    words = [re.split(r" (?![^\[\](){}]*[\])}])", name) for name in names]  # not within the brackets of a value
    if len(names) > 1:
        shared = set.intersection(*map(set, words))
        words = [[word for word in one if word not in shared or word.startswith("(n=")] or one for one in words]
    keys = {word.partition("=")[0] for one in words for word in one if re.match(r"[\w.]+=", word)}
    short = {key: key.removesuffix("._target_").rpartition(".")[2] for key in keys}
    wanted = list(short.values())
    short = {key: key if name in ("seed", "yaml") or wanted.count(name) > 1 else name for key, name in short.items()}

    def shorten(word: str) -> str:
        key, sign, value = word.partition("=")
        if not sign or key not in short:
            return word
        return f"{short[key]}={value.rpartition('.')[2] if key.endswith('._target_') else value}"

    return [" ".join(map(shorten, one)) for one in words]


def add_legend(figure: Any) -> None:
    """Put a legend below a figure with one pair of axes, and enlarge the figure to fit it."""
    (axis,) = figure.axes
    handles, names = axis.get_legend_handles_labels()
    names = _shortened(names)
    width, height = figure.get_size_inches()
    columns = 2 if len(names) > 3 and max(map(len, names)) < 7 * width else 1  # 17 letters of this size are an inch
    texts = [textwrap.fill(name, int(17 * (width / columns - 0.5)), break_on_hyphens=False) for name in names]
    lines = -(-sum(text.count("\n") + 1 for text in texts) // columns)
    figure.set_size_inches(width, height + 0.15 * lines + 0.1)
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def _finish(figure: Any, title: str, x_name: str, path: Path) -> list[Path]:
    figure.axes[0].set(xlabel=x_name, ylabel="mIoU (%)", title=title)
    figure.axes[0].grid(alpha=0.3)
    add_legend(figure)
    return save(figure, path)


def curve_points(row: Row) -> list[tuple[int, float, list[float]]]:
    """Return (step, mean labelled share in percent, mIoU of each run with that step), including the last iterate."""
    found: dict[int, list[tuple[float, float]]] = {}
    for run in row.runs:
        for one in [*(run.results.get("evaluations") or ()), {**run.results, "step": run.results.get("max_steps")}]:
            if one.get("step") is not None and one.get("mIoU") is not None:
                share = 100 * float(one.get("labelled_fraction") or 0)
                found.setdefault(int(one["step"]), []).append((share, float(one["mIoU"])))
    return [
        (step, statistics.fmean(share for share, _ in values), [miou for _, miou in values])
        for step, values in sorted(found.items())
    ]


def _by_dataset(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield each data set, its name as part of a file name, and its rows."""
    for dataset in dict.fromkeys(row.title["dataset"] for row in rows):
        yield dataset, re.sub(r"[^\w-]", "-", dataset), [row for row in rows if row.title["dataset"] == dataset]


def learning_curves(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw mIoU over steps, one figure per data set: the mean over seeds, with their range as a band."""
    written = []
    for dataset, word, own in _by_dataset(rows):
        figure, axis = start(figsize=(7.2, 4.4))
        for number, row in enumerate(own):
            points, look = curve_points(row), style(number)
            steps, means = [one[0] for one in points], [statistics.fmean(one[2]) for one in points]
            axis.plot(steps, means, label=f"{row_name(row)} (n={len(row.runs)})", **look)
            if len(row.runs) > 1:
                lows, highs = [min(one[2]) for one in points], [max(one[2]) for one in points]
                axis.fill_between(steps, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
        title = f"{dataset}: learning curves (band: range of the seeds)"
        written += _finish(figure, title, "step", folder / f"learning_curves_{word}")
    return written


def labelled_share(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw mIoU against the share of queried target pixels; settings without rounds are horizontal lines."""
    written = []
    for dataset, word, own in _by_dataset(rows):
        figure, axis = start(figsize=(7.2, 4.4))
        for number, row in enumerate(own):
            name, look = f"{row_name(row)} (n={len(row.runs)})", style(number)
            if not any(run.results.get("rounds") for run in row.runs):
                level = statistics.fmean(row.values("mIoU"))
                axis.axhline(level, color=look["color"], linestyle="--", linewidth=1.2, label=name)
                continue
            by_share = {round(share, 4): mious for _, share, mious in curve_points(row)}  # the last one of equal shares
            shares = sorted(by_share)
            axis.plot(shares, [statistics.fmean(by_share[share]) for share in shares], label=name, **look)
        title = f"{dataset}: mIoU against the labelled share"
        written += _finish(figure, title, "target pixels queried (%)", folder / f"labelled_share_{word}")
    return written


def window_sweep(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw Fig. 6: mIoU over the radius k of the window, RA and PA, if rows differ in ``mode.radius``.

    A line joins rows that differ in nothing else, except the distance between picks that follows from k.
    """
    written = []
    for dataset, word, own in _by_dataset(rows):
        lines: dict[str, list[tuple[int, list[float]]]] = {}
        for row in own:
            config = row.runs[0].config
            radius = config.get("mode.radius")
            if row.title["mode"] == "–" or radius is None:
                continue
            factor = config.get("protocol.pixel_exclusion", 1) if config.get("mode.pixel") else 2
            follows = {"mode.radius": radius, "mode.suppress_radius": int(factor) * int(radius)}
            others = {key: value for key, value in row.also.items() if key not in follows or value != follows[key]}
            title = [row.title["mode"].upper(), row.title["acquisition"], row.title["budget"]]
            title += [] if row.title["setting"] == "active" else [row.title["setting"]]
            name = " ".join([*title, *(f"{key}={value}" for key, value in others.items())])
            lines.setdefault(name, []).append((int(radius), row.values("mIoU")))
        lines = {name: sorted(points) for name, points in lines.items() if len({radius for radius, _ in points}) > 1}
        if not lines:
            continue
        figure, axis = start(figsize=(5.6, 4.0))
        for number, (name, points) in enumerate(lines.items()):
            means = [statistics.fmean(values) for _, values in points]
            spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
            axis.errorbar([radius for radius, _ in points], means, yerr=spread, capsize=3, label=name, **style(number))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({radius for points in lines.values() for radius, _ in points}))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        head = f"{dataset}: size of the window (bars: ± std over seeds)"
        written += _finish(figure, head, "k", folder / f"fig6_window_{word}")
    return written
