"""Study of the paper's ablations on freely available data, and of which findings hold there.

    python scripts/study.py --out runs/study                          generated streets, two generator seeds
    python scripts/study.py --out runs/study --data-root FOLDER       also CamVid, which lies below FOLDER
    python scripts/study.py --no-runs                                 rewrite docs/studies/results.md from the record

Runs Tables 3, 4, 6 and 10, the sweep of k, and the reference settings with three training seeds each: a night on two
cores, unattended. Finished runs are kept, so the study can be stopped and restarted at any time, or run in parts
(--data, --tables, --seeds). Everything that has finished is written to ``docs/studies/results.md`` (or --report), and
a line per run to ``docs/studies/results.jsonl`` (or --record). Recorded runs are not repeated, so a clone continues
where its history left off.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare import Runs, pair_table, paired, row_table, run_script
from study_frame import SEEDS, Frame, command, filled, study_parser, verdict

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
"""Names of rows of conf/experiment; other rows keep their own."""

PLAIN = ["optimizer=sgd", "objective.class_balance=0", "ema.decay=null"]
"""The paper's training; the recipes of these data sets go beyond it."""

STREETS = ["dataset=streets", *PLAIN, "dataset.recipe.max_steps=240", "dataset.recipe.source_free.max_steps=144"]
CAMVID = ["dataset=camvid", *PLAIN, "dataset.recipe.max_steps=500", "dataset.recipe.source_free.max_steps=250"]
CAMVID += ["data.source_batch=2", "data.target_batch=2"]

SETS = {
    "streets": ("streets, generator seed 0", STREETS),
    "streets1": ("streets, generator seed 1", [*STREETS, "dataset.generator_seed=1"]),
    "camvid": ("CamVid, day -> dusk", CAMVID),
}
"""Title and overrides of each data set."""

KINDS = (
    "hold",
    "reversed",
    "not decided, mean on the paper's side",
    "not decided, mean on the other side",
    "fewer than two seeds",
)


@dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        title: Its subject.
        rows: Rows in the paper's order.
        paper: The paper's mIoU on GTAV -> Cityscapes by row, where it prints one.
        pairs: Rows that its finding compares; the row that the paper finds better comes first.
        note: A remark for readers.
    """

    title: str
    rows: tuple[str, ...]
    paper: dict[str, float]
    pairs: tuple[tuple[str, str], ...]
    note: str = ""


TABLES = {
    "ends": Table(
        "Reference settings (Tables 1 and 5)",
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
        "Every image gets at least one region per round, and the number of regions is rounded up. Where a window is a "
        "large part of a small image, more than 2.2 % is revealed; see the column.",
    ),
}
"""Row "RA RIPU" is k = 1 of Fig. 6 and (f) of Table 3; "PA RIPU" is k = 8, the default of these data sets."""


def named(row: str) -> str:
    """Return the name of a row."""
    return NAMES.get(row, row)


def kind_of(differences: list[float]) -> str:
    """Return the entry of KINDS that paired differences put an order into."""
    holds, is_reversed, for_it, against_it, few = KINDS
    if len(differences) < 2:
        return few
    said = verdict(differences)
    if said.startswith("not decided"):
        return for_it if statistics.mean(differences) > 0 else against_it
    return holds if said.startswith("holds") else is_reversed


def orders(name: str, table: Table, data: dict[str, Runs]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return the differences for each order of a table: per data set with runs of the table, and in all."""
    shared = {OURS, "PA RIPU", "source only", "all labels"} if name != "ends" else set()
    results = {title: runs.results() for title, runs in data.items()}
    own = {title: any(row in table.rows and row not in shared for row, _ in found) for title, found in results.items()}
    every: dict[tuple[str, str], dict[str, list[float]]] = {}
    for better, worse in table.pairs:
        one = {title: paired(results[title], better, worse, data[title].seeds) for title in data if own[title]}
        together = {"all together": [value for values in one.values() for value in values]}
        every[better, worse] = one | (together if len(one) > 1 else {})
    return every


def section(name: str, table: Table, data: dict[str, Runs]) -> list[str]:
    """Write one table of the report."""
    lines = [f"## {table.title}", ""]
    every = orders(name, table, data)
    heads = list(next(iter(every.values())))
    if not heads:
        return [*lines, "No runs yet.", ""]
    lines += [filled(table.note), ""] if table.note else []
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
    """Count the orders of the paper that hold, and list the others."""
    rows = {row for name in tables for row in TABLES[name].rows}
    made = sum(row in rows and seed in runs.seeds for runs in data.values() for row, seed in runs.results())
    wanted = sum(len(rows) * len(runs.seeds) for runs in data.values())
    lines = [f"{made} of {wanted} runs are finished." if made < wanted else f"All {wanted} runs are finished.", ""]
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    every = {pair: one for name in tables for pair, one in orders(name, TABLES[name], data).items()}
    for (better, worse), one in every.items():
        kinds[kind_of(list(one.values())[-1] if one else [])].append(f"{named(better)} above {named(worse)}")
    lines += ["The paper's orders, over all data sets together:", ""]
    lines += [f"- {kind} ({len(pairs)} of {len(every)}): {'; '.join(pairs)}." for kind, pairs in kinds.items() if pairs]
    return [*lines, ""]


def report(data: dict[str, Runs], command: str) -> str:
    """Write ``docs/studies/results.md`` from everything that is finished."""
    rows = {row for table in TABLES.values() for row in table.rows}
    every = [result for runs in data.values() for (row, _), result in runs.results().items() if row in rows]
    seconds = [sum(result["seconds"].values()) for result in every if result["seconds"]]
    commits = sorted({str(result["provenance"]["commit"]) for result in every})
    devices = Counter(
        "a CPU" if one == "cpu" else str(one) for one in (result["provenance"].get("device") for result in every)
    )
    total = f"{statistics.median(seconds or [0]):.0f} s (median; {sum(seconds) / 3600:.1f} h in all"
    lines = [
        "# Results of the study",
        "",
        filled(
            f"Which of the paper's findings hold on freely available data. Written by `{command}`. {len(seconds)} runs "
            f"of {total}, without parts taken over from other runs; several ran at a time), "
            f"{' and '.join(f'{count} on {one}' for one, count in sorted(devices.items()))}; commits "
            f"{', '.join(commits)}. mIoU in percent, of the last iterate. "
            "[Experiments](../experiments.md#main-results) discusses the results."
        ),
        "",
        filled(
            "Differences are taken seed by seed. An order of the paper holds, or is reversed, if a paired t test "
            "(two-sided, "
            '5 %) says so; of twenty pairs without a difference, one does by chance. "All together" pools the '
            "differences "
            "of all data sets, and applies to these data sets, not to others. Runs with the same seed have the same "
            "initial weights and the same order of images. If they differ only in what they query, and the same code "
            "and device ran "
            'them, they are also the same training until one step before their first round ("same beginning"). '
            "Otherwise "
            "the spread of their differences is that of two separate trainings, and more seeds are needed to decide."
        ),
        "",
        filled(
            "Networks, images and schedules are far smaller than the paper's. Its figures stand beside ours to compare "
            "the order, not the level. To repeat a row, use `python -m ripu.train experiment=...` with the overrides "
            "of its data. (`source only`, `RA RIPU` and so on are settings of `scripts/compare.py`.)"
        ),
        "",
        *(f"- {title}: `{' '.join(overrides)}`" for title, overrides in SETS.values()),
        "",
        *summary(list(TABLES), data),
    ]
    for name in TABLES:
        lines += section(name, TABLES[name], data)
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, "study", "results")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="run only these tables")
    frame = Frame.parse(parser, "results")
    arguments, record = frame.arguments, frame.record
    rows = list(dict.fromkeys(row for name in arguments.tables for row in TABLES[name].rows))
    if "source free" in rows and "source only" not in rows:
        rows.append("source only")

    def runs_of(name: str, rows: list[str], seeds: list[int]) -> Runs:
        return Runs(frame.out / name, rows, seeds, [*SETS[name][1], *frame.common(name)], record)

    every = list(dict.fromkeys(row for table in TABLES.values() for row in table.rows))
    known = {seed for name in SETS for row, seed in record.find(runs_of(name, every, []).overrides) if row in every}
    seeds = sorted({*SEEDS, *arguments.seeds, *known})
    data = {SETS[name][0]: runs_of(name, every, seeds) for name in SETS}
    words = command(arguments.data_root)

    def write() -> None:
        frame.write(report(data, words))

    failures = frame.make(lambda name, seed: runs_of(name, rows, [seed]), write)
    write()
    frame.finish(failures)


if __name__ == "__main__":
    run_script(main)
