"""``python -m ripu.report DIR...``: tables over runs, their pages (``--html``) and figures (``--figures``).

``--benchmark RECORD``: the page of a benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.io.errors import RipuError, line_of, print_error

if TYPE_CHECKING:
    from ripu.report.collect import RunRecord


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 if the report of a run cannot be made; those of other runs are."""
    parser = argparse.ArgumentParser(
        prog="python -m ripu.report",
        description="Tables over runs: Markdown on the screen; --out also writes CSV and curves. With --html, the page "
        "of each run. With --figures, Figs. 3 to 5, 7 and 8 of the paper for each run as PNG and PDF; --out adds "
        "Figs. 3 and 4 over all runs side by side, and Fig. 6 if they differ in mode.radius. With --benchmark, the "
        "page of a record of scripts/benchmark.py, and nothing else.",
    )
    parser.add_argument(
        "dirs", metavar="DIR", type=Path, nargs="*", help="output folder of a run, or a folder above some"
    )
    parser.add_argument("--html", action="store_true", help="write the round report of each run: RUN/report.html")
    parser.add_argument("--figures", action="store_true", help="draw the paper's figures: RUN/figures/")
    parser.add_argument(
        "--paper", action="store_true", help="tables in the paper's order, with its figures beside ours"
    )
    parser.add_argument(
        "--benchmark", metavar="RECORD", type=Path, help="a page of all rows of a benchmark: RECORD with .html"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="write there instead of into the runs")
    arguments = parser.parse_args(argv)
    if arguments.benchmark is None and not arguments.dirs:
        parser.error("name the output folder of a run (DIR), or --benchmark RECORD")
    others = [*arguments.dirs, *(f"--{one}" for one in ("html", "figures", "paper") if getattr(arguments, one))]
    if arguments.benchmark is not None and others:
        parser.error(f"--benchmark reads its record alone, and {others[0]} has no effect; give it to another command")
    try:
        return _report(arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print_error(error)
        return 2


def _report(arguments: argparse.Namespace) -> int:
    if arguments.benchmark is not None:
        from ripu.report.benchmark_page import write_benchmark

        print(write_benchmark(arguments.benchmark, arguments.out))
        return 0
    from ripu.config.migrate import read_values
    from ripu.report.collect import find_runs
    from ripu.report.page import write_page

    out, records = arguments.out, find_runs(arguments.dirs, read_values)
    is_complete = True
    if arguments.html:
        done = _each(records, lambda run, name: [write_page(run, None if out is None else out / f"{name}.html")])
        is_complete &= len(done) == len(records)
    if arguments.figures:
        is_complete &= _figures(records, out)
    if not arguments.html and not arguments.figures:
        _tables(records, out, arguments.paper)
    return 0 if is_complete else 2


def _figures(records: Sequence[RunRecord], out: Path | None) -> bool:
    from ripu.report.curves import window_sweep
    from ripu.report.figures import side_by_side, write_figures
    from ripu.report.rows import make_rows

    def draw(run: Path, name: str) -> list[str]:
        return write_figures(run, run / "figures" if out is None else out / name, open_network)

    done = _each(records, draw)
    if out is not None and len(done) > 1:
        for path in [*side_by_side(done, out), *window_sweep(make_rows(records)[0], out)]:
            print(path)
    return len(done) == len(records)


def open_network(checkpoint: Path) -> tuple[Any, Callable[[tuple[int, int]], tuple[int, int]]]:
    """Return the module of a checkpoint, and a function from the (height, width) of an image to that it is fed at."""
    from ripu.run import restore

    spec, module = restore.restore(checkpoint)
    return module, spec.data.fed_size


def _each(records: Sequence[RunRecord], write: Callable[[Path, str], Sequence[object]]) -> dict[Path, str]:
    """Report on every run and print what was written; name the runs that fail, and continue with the others."""
    done = {}
    for run, name in _names([record.run for record in records]).items():
        try:
            for line in write(run, name):
                print(line)
            done[run] = name
        except (ValueError, RuntimeError, OSError) as error:
            is_fault = line_of(error) is None  # one in a single run must not cost the others their reports
            print_error(RipuError(f"{run}: no report ({type(error).__name__}: {error})") if is_fault else error)
    return done


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """Return a file name for each run: as many of the last parts of its path as tell the runs apart."""
    for count in range(1, 1 + max(len(run.resolve().parts) for run in runs)):
        names = ["-".join(run.resolve().parts[-count:]).replace("/", "") for run in runs]
        if len(set(names)) == len(names):
            return dict(zip(runs, names, strict=True))
    return {run: f"run{number}" for number, run in enumerate(runs)}


def _tables(records: Sequence[RunRecord], out: Path | None, paper: bool) -> None:
    from ripu.io.writing import write_bytes
    from ripu.report import curves, tables
    from ripu.report.rows import make_rows

    rows, notes = make_rows(records)
    parts = [tables.means_table(rows), tables.classes_table(rows)] if rows else ["No finished run.\n"]
    if paper:
        parts.insert(0, tables.paper_tables(rows))
    if notes:
        parts.append("Not in the tables, or missing:\n\n" + "".join(f"- {note}\n" for note in notes))
    text = "\n".join(parts)
    print(text, end="")
    if out is None:
        return
    write_bytes(out / "tables.md", text.encode())
    write_bytes(out / "runs.csv", tables.to_csv(rows).encode())
    written = [*curves.learning_curves(rows, out), *curves.labelled_share(rows, out), *curves.window_sweep(rows, out)]
    print(f"\nin {out}: tables.md, runs.csv, {', '.join(path.name for path in written)}")


if __name__ == "__main__":
    raise SystemExit(main())
