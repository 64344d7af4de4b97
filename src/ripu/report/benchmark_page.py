"""The page of a benchmark: one HTML file with a table to sort and filter, and the curves of the rows it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.inference import palette
from ripu.io.errors import ConfigError
from ripu.io.writing import write_bytes
from ripu.report.benchmark import KINDS, OURS, BenchmarkRow, Spread, common_overrides, make_rows, read_runs
from ripu.report.charts import curves_chart
from ripu.report.page import asset, template

_DASHES = ("none", "7 4", "2 3")
"""Once all colours are used, the next systems get the next of these."""

_SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",  # a circle, a square, a triangle, a diamond
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.6L4.4,3.4H-4.4z",
    "M0,-5L5,0L0,5L-5,0z",
)
"""Outlines of the dots of a data set."""


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and the number that it is sorted by; None for text, and where nothing is known."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    cell: Callable[[BenchmarkRow], Cell]
    is_number: bool = True


def write_benchmark(record: Path, folder: Path | None = None) -> Path:
    """Write the page of a record beside it, or into a folder, under the record's name with ``.html``; return the file.

    Raises:
        ConfigError: The record is missing or damaged, or is where the page belongs.
    """
    page = make_benchmark(read_runs(record), record.name)
    path = (record.parent if folder is None else folder) / f"{record.stem}.html"
    if path.resolve() == record.resolve():
        raise ConfigError(f"the page would replace the record {record}; name another folder with --out")
    write_bytes(path, page.encode())
    return path


def make_benchmark(runs: Sequence[dict[str, Any]], name: str) -> str:
    """Return the page of the runs of a record with this name as HTML."""
    rows = make_rows(runs)
    styles = _styles(rows)
    page: str = template("benchmark.html").render(
        name=name,
        num_runs=len({(run["row"], run["seed"], tuple(run["overrides"])) for run in runs}),
        commits=sorted({str((run.get("provenance") or {}).get("commit") or "unknown") for run in runs}),
        common=common_overrides(runs),
        ours=OURS,
        columns=COLUMNS,
        rows=[(row, [column.cell(row) for column in COLUMNS]) for row in rows],
        datasets=list(dict.fromkeys(row.dataset for row in rows)),
        kinds=[kind for kind in (*KINDS, "?") if any(row.kind == kind for row in rows)],
        chart=_chart(rows, styles) if styles else None,
        legend=_legend(rows, styles),
        style=asset("page.css") + asset("benchmark.css"),
        script=asset("benchmark.js"),
    )
    return page


def _text(read: Callable[[BenchmarkRow], str | None]) -> Callable[[BenchmarkRow], Cell]:
    return lambda row: Cell(read(row) or "-")


def _number(read: Callable[[BenchmarkRow], float | None], form: str) -> Callable[[BenchmarkRow], Cell]:
    def cell(row: BenchmarkRow) -> Cell:
        value = read(row)
        return Cell("-" if value is None else format(value, form), value)

    return cell


def _spread(read: Callable[[BenchmarkRow], Spread | None], form: str) -> Callable[[BenchmarkRow], Cell]:
    def cell(row: BenchmarkRow) -> Cell:
        value = read(row)
        if value is None:
            return Cell("-")
        deviation = "" if value.deviation is None else f" ± {value.deviation:.1f}"
        return Cell(f"{value.mean:{form}}{deviation}", value.mean)

    return cell


def _count(values: Spread | None) -> int | None:
    return None if values is None else values.count


def _share(row: BenchmarkRow) -> Cell:
    return Cell("-" if row.share is None else f"{100 * row.share:.2f} %", row.share)


COLUMNS = (
    Column("system", _text(lambda row: row.name), is_number=False),
    Column("kind", _text(lambda row: row.kind), is_number=False),
    Column("data set", _text(lambda row: row.dataset), is_number=False),
    Column("setting", _text(lambda row: row.setting), is_number=False),
    Column("mode", _text(lambda row: row.mode), is_number=False),
    Column("paper, GTAV", _number(lambda row: row.gtav, ".1f")),
    Column("paper, SYNTHIA", _number(lambda row: row.synthia, ".1f")),
    Column("mIoU", _spread(lambda row: row.miou, ".1f")),
    Column("seeds", _number(lambda row: _count(row.miou), "d")),
    Column(f"minus {OURS}", _spread(lambda row: row.difference, "+.1f")),
    Column("pairs", _number(lambda row: _count(row.difference), "d")),
    Column("clicks", _number(lambda row: row.clicks, ",.0f")),
    Column("pixels", _number(lambda row: row.pixels, ",.0f")),
    Column("share", _share),
    Column("seconds", _number(lambda row: row.seconds, ",.0f")),
    Column("peak GiB", _number(lambda row: row.peak_gib, ".2f")),
)


def _styles(rows: Sequence[BenchmarkRow]) -> dict[int, dict[str, Any]]:
    """Return the style of each row with a curve, by its number: colour and dashes of the system, dots of the data."""
    drawn = [number for number, row in enumerate(rows) if any(clicks > 0 for clicks, _ in row.curve)]
    systems = list(dict.fromkeys(rows[number].name for number in drawn))
    datasets = list(dict.fromkeys(rows[number].dataset for number in drawn))
    styles = {}
    for number in drawn:
        turn, place = divmod(systems.index(rows[number].name), len(palette.SERIES))
        color = palette.SERIES[place]
        styles[number] = {
            "row": number,
            "color": "var(--ink)" if color == palette.BLACK else palette.hex_color(color),
            "dash": _DASHES[turn % len(_DASHES)],
            "shape": _SHAPES[datasets.index(rows[number].dataset) % len(_SHAPES)],
        }
    return styles


def _chart(rows: Sequence[BenchmarkRow], styles: dict[int, dict[str, Any]]) -> dict[str, Any]:
    lines = []
    for number, style in styles.items():
        row = rows[number]
        points = [
            (clicks, miou, f"{row.name}, {row.dataset}: mIoU {miou:.1f} after {clicks:,.0f} clicks")
            for clicks, miou in row.curve
            if clicks > 0  # a round without an answer has no place on the axis
        ]
        lines.append((style, points))
    return curves_chart(lines, "clicks (logarithmic)", "mIoU (%)", "mIoU by clicks, a line for each row with rounds")


def _legend(rows: Sequence[BenchmarkRow], styles: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an entry for each system and each data set of the curves, with the numbers of its rows."""
    systems: dict[str, list[int]] = {}
    datasets: dict[str, list[int]] = {}
    for number in styles:
        systems.setdefault(rows[number].name, []).append(number)
        datasets.setdefault(rows[number].dataset, []).append(number)
    found: list[dict[str, Any]] = []
    for is_line, group in ((True, systems), (False, datasets)):
        found += [
            {"name": name, "rows": members, "is_line": is_line, "style": styles[members[0]]}
            for name, members in group.items()
        ]
    return found
