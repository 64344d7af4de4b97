"""Benchmark of every system of the paper's tables that is here, on freely available data.

    python scripts/benchmark.py                                  generated streets, two generator seeds
    python scripts/benchmark.py --data-root FOLDER               also CamVid, which lies below FOLDER
    python scripts/benchmark.py --systems "RA RIPU" AADA MADA    only these systems
    python scripts/benchmark.py --no-runs                        rewrite docs/studies/benchmark.md from the record

One data module, one network, one schedule, one evaluation, the last iterate, and the same seeds for all. About two
nights on two cores, unattended. Finished runs are kept as lines of ``docs/studies/benchmark.jsonl`` (or --record) and
are not repeated, so the benchmark can be stopped, restarted, continued on another machine, or run in parts (--data,
--systems, --seeds). Runs that are the same until their first round share that beginning.
``docs/studies/benchmark.md`` (or --report) has everything that is finished, with a picture of mIoU by clicks and by
labelled share beside it.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare import Results, Runs, paired, run_script
from ripu.report.benchmark import Spread, make_rows
from rows import ROWS, begins_with
from study_frame import SMALL_SETS, Frame, command, filled, study_parser, verdict

OURS = "RA RIPU"


@dataclass(frozen=True)
class System:
    """A row of the benchmark.

    Attributes:
        row: Its name in ``rows.py``.
        labels: The target labels that it is given, in words.
        gtav, synthia: mIoU in the paper's Tables 1, 2 and 5, on Cityscapes (19 and 16 classes); None: not there.
        note: A remark.
    """

    row: str
    labels: str
    gtav: float | None = None
    synthia: float | None = None
    note: str = ""


VARIANT = "variant"
SYSTEMS = (
    System("source only", "none", 36.6, 34.9),
    System("CBST", "none", 45.9, 42.6, VARIANT),
    System("MRKLD", "none", 47.1, 43.8, VARIANT),
    System("Seg-Uncertainty", "none", 50.3, 47.9, VARIANT),
    System("TPLD", "none", 51.2, 47.3, VARIANT),
    System("DPL-Dual", "none", 53.3, 47.0, VARIANT),
    System("ProDA", "none", note="variant of its first stage"),
    System("ProDA stage 2", "none", note=VARIANT),
    System("ProDA stage 3", "none", 57.5, 55.5, VARIANT),
    System("URMA", "none, no source images", 45.1, 39.6, VARIANT),
    System("LD", "none, no source images", 45.5, 42.6, VARIANT),
    System("SFDA", "none, no source images", 53.4, 52.0, "variant without its source training"),
    System("source free", "2.2 %, no source images", 67.1, 68.7),
    System("target only", "2.2 %, no source at all"),
    System("WeakDA points", "40 pixels an image", 56.4, 57.2, VARIANT),
    System("LabOR points", "40 pixels an image", 63.5, note=VARIANT),
    System("LabOR mask", "2.2 %", 66.6, note=VARIANT),
    System("HALO", "2.2 %", note=VARIANT),
    System("PA random", "40 pixels an image"),
    System("PA RIPU", "40 pixels an image", 65.5, 66.1),
    System("RA random", "2.2 %"),
    System("RA density", "2.2 %", note="after D2ADA"),
    System("RA teacher", "2.2 %", note="RIPU with a teacher"),
    System(OURS, "2.2 %", 69.6, 70.1),
    System("AADA", "5 % of the images", 59.3, 61.9, VARIANT),
    System("MADA", "5 % of the images", 64.9, 68.1, VARIANT),
    System("RA RIPU at 5 %", "5 %", 71.2, 71.4),
    System("all labels", "all", 70.2, 70.6),
)

GROUPS = {
    "without target labels": ("source only", "CBST", "MRKLD", "Seg-Uncertainty", "TPLD", "DPL-Dual", "ProDA stage 3"),
    "without source images": ("URMA", "LD", "SFDA", "source free"),
    "40 pixels and 2.2 %": ("WeakDA points", "LabOR points", "PA RIPU", "LabOR mask", OURS),
    "5 %": ("AADA", "MADA", "RA RIPU at 5 %"),
}
"""Rows that the paper compares with one another, in its order on GTAV -> Cityscapes."""

AGAINST_CHANCE = (("PA random", "PA RIPU"), ("RA random", OURS))
"""Rows without a score, and with the paper's."""

CURVES = (
    *("WeakDA points", "LabOR points", "LabOR mask", "HALO", "PA random", "PA RIPU"),
    *("RA random", "RA density", "RA teacher", OURS),
    *("AADA", "MADA", "RA RIPU at 5 %"),
)


def table(found: Results, seeds: list[int]) -> list[str]:
    """Return the lines of the systems that have a run on one data set."""
    head = ["system", "target labels", "labelled, %", "clicks", "mIoU, mean ± std", "seeds", f"minus {OURS}"]
    head += ["s a run", "peak GiB", "paper: GTAV, SYNTHIA"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    runs = [run for (_, seed), run in found.items() if seed in seeds]
    rows = {row.name: row for row in make_rows(runs)} if runs else {}
    for system in SYSTEMS:
        row = rows.get(system.row)
        if row is None or row.miou is None:
            continue
        published = ", ".join("-" if value is None else f"{value}" for value in (system.gtav, system.synthia))
        cells = [
            system.row + (f" ({system.note})" if system.note else ""),
            system.labels,
            f"{100.0 * (row.share or 0.0):.2f}",
            "-" if row.clicks is None else f"{row.clicks:,.0f}",
            _said(row.miou),
            str(row.miou.count),
            "-" if row.difference is None else _said(row.difference),
            f"{row.seconds:.0f}",
            "-" if row.peak_gib is None else f"{row.peak_gib:.2f}",
            published,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _said(spread: Spread) -> str:
    return f"{spread.mean:.1f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.1f}")


def orders(data: dict[str, Results], seeds: list[int]) -> list[str]:
    """Return a line for each pair of neighbours in the paper's order, over all data sets."""
    lines = []
    for group in GROUPS.values():
        for worse, better in pairwise(group):
            differences = [value for found in data.values() for value in paired(found, better, worse, seeds)]
            if differences:
                lines.append(f"| {better} above {worse} | {verdict(differences)} |")
    return ["| the paper finds | here |", "|---|---|", *lines] if lines else ["No pair has run yet."]


def chances(data: dict[str, Results], seeds: list[int]) -> list[str]:
    """Return a line for each comparison of the paper's score with random picks, by data set and round."""
    lines = []
    for title, found in data.items():
        for worse, better in AGAINST_CHANCE:
            if not (differences := paired(found, better, worse, seeds)):
                continue
            both = [seed for seed in seeds if (better, seed) in found and (worse, seed) in found]
            curves = [[[miou for *_, miou in found[row, seed]["rounds"]] for seed in both] for row in (better, worse)]
            rounds = [
                "/".join(f"{one - other:.1f}" for one, other in zip(*pair, strict=True))
                for pair in zip(*(zip(*curve, strict=True) for curve in curves), strict=True)
            ]
            lines.append(f"| {title} | {better} - {worse} | {', '.join(rounds)} | {verdict(differences)} |")
    head = ["| data | difference | after each round, by seed | at the end |", "|---|---|---|---|"]
    return [*head, *lines] if lines else ["No pair has run yet."]


def curves(data: dict[str, Results], seeds: list[int], path: Path) -> bool:
    """Draw mIoU by clicks and by labelled share, one column of panels a data set; return False without runs."""
    shown = {
        title: found for title, found in data.items() if any((row, seed) in found for row in CURVES for seed in seeds)
    }
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, len(shown), figsize=(6.5 * len(shown), 9.0), squeeze=False)
    styles = list(product(("o-", "s--", "^:"), (f"C{colour}" for colour in (0, 1, 2, 3, 4, 6))))
    for column, (title, found) in enumerate(shown.items()):
        for row, (style, colour) in zip(CURVES, styles, strict=False):
            runs = [found[row, seed] for seed in seeds if (row, seed) in found]
            shares = [[100 * share for _, share, _ in run["rounds"]] for run in runs]
            mious = [[miou for *_, miou in run["rounds"]] for run in runs]
            for panel, values in zip(panels[:, column], ([run.get("clicks") for run in runs], shares), strict=True):
                if runs and all(values):
                    points = [[statistics.mean(part) for part in zip(*one, strict=True)] for one in (values, mious)]
                    panel.plot(*points, style, color=colour, label=row)
        for panel, name in zip(panels[:, column], ("clicks", "labelled pixels, % of all"), strict=True):
            panel.set(xscale="log", xlabel=name, ylabel="mIoU, %", title=title)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def report(data: dict[str, Results], seeds: list[int], words: str, picture: str | None) -> str:
    """Return ``docs/studies/benchmark.md`` from everything that is finished; ``picture``: the path of the curves."""
    done = sum((system.row, seed) in found for found in data.values() for system in SYSTEMS for seed in seeds)
    commits = sorted({str(one["provenance"].get("commit")) for found in data.values() for one in found.values()})
    lines = [
        "# Benchmark of methods",
        "",
        filled(
            f"{len(SYSTEMS)} systems with one data module, one network, one schedule and one evaluation; the last "
            f"iterate. Written by `{words}`: {done} of {len(SYSTEMS) * len(SMALL_SETS) * len(seeds)} runs. mIoU in "
            "percent; differences are taken seed by seed. Commits: " + (", ".join(commits) or "-") + "."
        ),
        "",
        filled(
            "The figures of the paper are from other data, networks and programs: compare orders, not numbers. A "
            "variant is not the published system; [Other methods](../methods.md) says where it differs. A click gives "
            "all pixels of one class in a pick their label; a pick is a region, a pixel or a whole image, "
            "in which every class has to be outlined: clicks of AADA and MADA do not compare with the others. "
            "Peak memory is the largest of all seeds: that of the GPU, or of the process on a CPU. Seconds are those "
            "of a whole run, without the one that it begins with; several ran at a time. "
            "`python -m ripu.report --benchmark` makes a page of the record to sort and filter."
        ),
        "",
        *(f"- {title}: `{' '.join(overrides)}`" for title, overrides in SMALL_SETS.values()),
        "",
        "## The order of the paper",
        "",
        filled("A pair holds, or is reversed, if a paired t test over seeds and data sets (two-sided, 5 %) says so."),
        "",
        *orders(data, seeds),
        "",
        "## Against random picks",
        "",
        *chances(data, seeds),
        "",
    ]
    if picture is not None:
        lines += ["## mIoU by what is spent", "", f"![mIoU by clicks and by labelled share]({picture})", ""]
    for title, found in data.items():
        rows = table(found, seeds)
        if len(rows) > 2:
            lines += [f"## {title}", "", *rows, ""]
    lines += ["## The commands", "", "| system | overrides |", "|---|---|"]
    lines += [f"| {system.row} | `{' '.join(ROWS[system.row])}` |" for system in SYSTEMS]
    begins = {system.row: found[0] for system in SYSTEMS if (found := begins_with(system.row)) is not None}
    shared = {first: ", ".join(row for row in begins if begins[row] == first) for first in begins.values()}
    said = "; ".join(f"{rows} with that of `{first}`" for first, rows in shared.items())
    lines += ["", filled(f"Rows that begin with the network of another row, of the same seed: {said}.")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = study_parser(__doc__, "benchmark", "benchmark")
    names = [system.row for system in SYSTEMS]
    listed = ", ".join(names).replace("%", "%%")
    parser.add_argument(
        "--systems", nargs="+", choices=names, default=names, metavar="SYSTEM", help=f"run only these: {listed}"
    )
    frame = Frame.parse(parser, "benchmark")
    arguments = frame.arguments

    def runs_of(name: str, rows: list[str], seeds: list[int]) -> Runs:
        return Runs(frame.out / name, rows, seeds, [*SMALL_SETS[name][1], *frame.common(name)], frame.record)

    def write() -> None:
        data = {title: frame.record.find(runs_of(name, [], []).overrides) for name, (title, _) in SMALL_SETS.items()}
        seeds = sorted({*arguments.seeds, *(seed for found in data.values() for _, seed in found)})
        picture = frame.page.parent / "images" / "benchmark.png"
        shown = "images/benchmark.png" if curves(data, seeds, picture) else None
        frame.write(report(data, seeds, command(arguments.data_root), shown))

    failures = frame.make(lambda name, seed: runs_of(name, arguments.systems, [seed]), write)
    write()
    frame.finish(failures)


if __name__ == "__main__":
    run_script(main)
