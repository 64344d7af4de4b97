"""Study of when a score beats random regions: by the network at the first round, the budget and the size of regions.

    python scripts/chance.py --out runs/chance                          generated streets, two generator seeds
    python scripts/chance.py --out runs/chance --data-root FOLDER       also CamVid, which lies below FOLDER
    python scripts/chance.py --no-runs                                  rewrite docs/studies/chance.md from the record

Every condition is trained with the recipe of its data set at three fifths of the image size, for 300 steps from the
first round on, with three training seeds; runs of a condition share everything before that round. Finished runs are
kept as lines of ``docs/studies/chance.jsonl`` (or --record) and are not repeated, so the study can be stopped, resumed
and continued on another machine, or run in parts (--data, --parts, --seeds). ``docs/studies/chance.md`` (or --report)
has everything that is finished. --screen carries out only the runs that choose the score beyond the paper, on scenes
that the study does not use.
"""

from __future__ import annotations

import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare import Record, Results, Runs, paired, run_script, spread
from rows import PLUG_INS
from study_frame import SEEDS, SMALL_SETS, SMALL_STREETS, Frame, command, filled, study_parser, verdict

BEST = "RA pixelpick"
"""The score beyond the paper that the study compares: the best one of ``--screen``."""

SCORES = ("RA random", "RA entropy", "RA RIPU", BEST)
STEPS = 300
ROUNDS = (10, 50, 90, 130, 170)
"""Steps of training after pre-training, and the steps of the five rounds among them."""

SCREEN = [*SMALL_STREETS, "dataset.generator_seed=7"]
SCREENED = ("RA random", "RA RIPU", *(f"RA {name}" for name in PLUG_INS))


@dataclass(frozen=True)
class Condition:
    """One training, up to what it queries by.

    Attributes:
        pretrain_steps: Steps on the source before the first round.
        budget: Share of each target image.
        radius: k of the regions and of the score.
    """

    pretrain_steps: int = 400
    budget: float = 0.022
    radius: int = 1

    def words(self) -> list[str]:
        """Return its overrides of ripu.train."""
        steps = ",".join(str(self.pretrain_steps + step) for step in ROUNDS)
        words = [f"pretrain_steps={self.pretrain_steps}", f"selection_steps=[{steps}]"]
        words += [f"trainer.max_steps={self.pretrain_steps + STEPS}", f"budget={self.budget}"]
        return words if self.radius == 1 else [*words, f"mode.radius={self.radius}"]


@dataclass(frozen=True)
class Part:
    """A series of conditions that differ in one thing, named by ``label``."""

    title: str
    label: str
    conditions: tuple[Condition, ...]

    def name_of(self, condition: Condition) -> str:
        return str(getattr(condition, self.label))


PARTS = {
    "network": Part(
        "The network at the first round",
        "pretrain_steps",
        tuple(Condition(pretrain_steps=steps) for steps in (0, 160, 400, 1000)),
    ),
    "budget": Part("The budget", "budget", tuple(Condition(budget=budget) for budget in (0.005, 0.022, 0.05))),
    "radius": Part("The size of regions", "radius", tuple(Condition(radius=radius) for radius in (1, 4))),
}
HEADS = {"pretrain_steps": "steps on the source", "budget": "share of the pixels", "radius": "k"}


class Study:
    """The runs of one data set by condition."""

    def __init__(self, out: Path, base: list[str], seeds: list[int], common: list[str], record: Record) -> None:
        self.out, self.base, self.seeds, self.common, self.record = out, base, seeds, common, record

    def runs(self, condition: Condition, seeds: list[int], rows: tuple[str, ...] = SCORES) -> Runs:
        """Return the runs of a condition."""
        name = f"pretrain{condition.pretrain_steps}-budget{condition.budget}-k{condition.radius}"
        return Runs(self.out / name, list(rows), seeds, [*self.base, *condition.words(), *self.common], self.record)

    def found(self, condition: Condition) -> Results:
        """Return the finished runs of a condition."""
        return self.record.find(self.runs(condition, []).overrides)


def make(
    studies: list[Study], conditions: list[Condition], rows: tuple[str, ...], jobs: int, threads: int
) -> list[str]:
    """Carry out runs, one of a condition and seed at a time: the first makes the beginning that the others share."""
    seeds = sorted({seed for study in studies for seed in study.seeds})
    order = [(study, condition, seed) for seed in seeds for condition in conditions for study in studies]
    with ThreadPoolExecutor(jobs) as pool:
        parts = [pool.submit(study.runs(one, [seed], rows).make, 1, threads) for study, one, seed in order]
        return [failure for part in parts for failure in part.result()]


def before(found: Results, seeds: list[int]) -> str:
    """Return the mIoU of the network that the first round queried by."""
    values = [found["RA random", seed]["before"] for seed in seeds if ("RA random", seed) in found]
    values = [value for value in values if value is not None]
    return spread(values) if values else "-"


def table(part: Part, study: Study) -> list[str]:
    """Return the lines of a part on one data set; none without runs."""
    head = [HEADS[part.label], "mIoU before the first round", *(row.removeprefix("RA ") for row in SCORES)]
    head += [f"{row.removeprefix('RA ')} - random" for row in SCORES[1:]]
    head.append("clicks, thousands")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for condition in part.conditions:
        found, seeds = study.found(condition), study.seeds
        if not found:
            continue
        means = [spread(values) if (values := mious(found, row, seeds)) else "-" for row in SCORES]
        differences = [paired(found, row, "RA random", seeds) for row in SCORES[1:]]
        clicks = ", ".join(thousands(found, row, seeds) for row in SCORES)
        cells = [part.name_of(condition), before(found, seeds), *means, *map(verdict, differences), clicks]
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def thousands(found: Results, row: str, seeds: list[int]) -> str:
    """Return the mean clicks of all rounds in thousands; ``-`` without runs that have counted them."""
    counts = [found[row, seed]["clicks"][-1] for seed in seeds if (row, seed) in found and "clicks" in found[row, seed]]
    return f"{statistics.mean(counts) / 1000:.1f}" if counts else "-"


def mious(found: Results, row: str, seeds: list[int]) -> list[float]:
    return [found[row, seed]["mIoU"] for seed in seeds if (row, seed) in found]


def together(part: Part, studies: dict[str, Study]) -> list[str]:
    """Return the lines of a part over all data sets with runs; a cell that lacks some of them names its own.

    Every seed counts once, so a data set with fewer finished seeds counts for less; ``n`` is their number.
    """
    head = [HEADS[part.label], "data sets", *(f"{row} - random" for row in names())]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for condition in part.conditions:
        by_row = [
            {title: values for title, study in studies.items()
             if (values := paired(study.found(condition), row, "RA random", study.seeds))}
            for row in SCORES[1:]
        ]  # fmt: skip
        every = [title for title in studies if any(title in found for found in by_row)]
        if not every:
            continue
        cells = []
        for found in by_row:
            said = verdict([value for values in found.values() for value in values])
            cells.append(said if list(found) == every or not found else f"{'; '.join(found)}: {said}")
        lines.append(f"| {part.name_of(condition)} | {'; '.join(every)} | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def names() -> list[str]:
    return [row.removeprefix("RA ") for row in SCORES[1:]]


def duration(seconds: list[float]) -> str:
    if not seconds:
        return ""
    return f", {statistics.median(seconds):.0f} s each (median, without what runs share; several ran at a time)"


def report(studies: dict[str, Study], screened: Study, words: str) -> str:
    """Write ``docs/studies/chance.md`` from everything that is finished."""
    every = {id(one): one for study in studies.values() for part in PARTS.values() for c in part.conditions
             for one in study.found(c).values()}  # fmt: skip
    wanted = len({c for part in PARTS.values() for c in part.conditions}) * len(SCORES)
    wanted *= sum(len(study.seeds) for study in studies.values())
    seconds = [sum(one["seconds"].values()) for one in every.values()]
    done = len({(str(one["overrides"]), one["row"], one["seed"]) for one in every.values()})
    lines = [
        "# When a score beats chance",
        "",
        filled(
            f"Final mIoU of RA with {len(SCORES)} scores, by the network at the first round, the budget and the size "
            f"of regions. Written by `{words}`: {done} of {wanted} runs{duration(seconds)}. "
            "mIoU in percent of the last iterate, mean ± standard deviation over training seeds. Differences are taken "
            "seed by seed; they hold, or are reversed, if a paired t test (two-sided, 5 %) says so. Clicks are those "
            f"of all rounds of a run, for {', '.join(row.removeprefix('RA ') for row in SCORES)}: one gives all pixels "
            "of one class in a region their label."
        ),
        "",
        *(f"- {title}: `{' '.join(overrides)}`" for title, overrides in SMALL_SETS.values()),
        "",
        filled(
            f"Each run trains {STEPS} steps after pre-training, with rounds after {ROUNDS[0]}, {ROUNDS[1]}, ... "
            f"{ROUNDS[-1]} of them. `{BEST.removeprefix('RA ')}` is the score beyond the paper that did best on "
            "scenes that no other table reports (`--screen`)."
        ),
        "",
    ]
    if rows := screen_table(screened):
        lines += ["## The choice of the score beyond the paper", "", f"`{' '.join(SCREEN)}`", "", *rows, ""]
    for part in PARTS.values():
        pooled = together(part, studies)
        shown = ["All data sets with runs together:", "", *pooled] if pooled else ["No run yet."]
        lines += [f"## {part.title}", "", *shown, ""]
        for title, study in studies.items():
            if rows := table(part, study):
                lines += [f"### {part.title}: {title}", "", *rows, ""]
    return "\n".join(lines)


def screen(study: Study, jobs: int, threads: int) -> list[str]:
    """Carry out the runs that choose the score beyond the paper; return the failures."""
    with ThreadPoolExecutor(jobs) as pool:
        parts = [pool.submit(study.runs(Condition(), [seed], SCREENED).make, 1, threads) for seed in study.seeds]
        return [failure for part in parts for failure in part.result()]


def screen_table(study: Study) -> list[str]:
    """Return the lines about that choice; none without runs."""
    found = study.found(Condition())
    if not found:
        return []
    lines = ["| score | mIoU | score - random |", "|---|---|---|"]
    for row in SCREENED:
        if values := mious(found, row, study.seeds):
            difference = "" if row == "RA random" else verdict(paired(found, row, "RA random", study.seeds))
            lines.append(f"| {row.removeprefix('RA ')} | {spread(values)} | {difference} |")
    return lines


def main() -> None:
    parser = study_parser(__doc__, "chance", "chance")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="run only these parts")
    parser.add_argument("--screen", action="store_true", help="run only what chooses the score beyond the paper")
    frame = Frame.parse(parser, "chance")
    arguments, record = frame.arguments, frame.record

    def study_of(name: str, seeds: list[int]) -> Study:
        return Study(frame.out / name, SMALL_SETS[name][1], seeds, frame.common(name), record)

    def screen_of(seeds: list[int]) -> Study:
        return Study(frame.out / "screen", SCREEN, seeds, frame.common(), record)

    conditions = list(dict.fromkeys(one for name in arguments.parts for one in PARTS[name].conditions))
    failures = []
    if arguments.screen:
        failures = screen(screen_of(arguments.seeds), arguments.jobs, arguments.threads)
    elif not arguments.no_runs:
        made = [study_of(name, arguments.seeds) for name in frame.chosen]
        failures = make(made, conditions, SCORES, arguments.jobs, arguments.threads)
    whole = {SMALL_SETS[name][0]: study_of(name, list(SEEDS)) for name in SMALL_SETS}
    frame.write(report(whole, screen_of(list(SEEDS)), command(arguments.data_root)))
    frame.finish(failures)


if __name__ == "__main__":
    run_script(main)
