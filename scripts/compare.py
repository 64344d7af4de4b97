"""Comparison of settings on one data set: source only, random, RIPU and all labels, over seeds, in pairs.

    python scripts/compare.py --out runs/streets dataset=streets
    python scripts/compare.py --out runs/camvid --seeds 0 1 2 --jobs 2 dataset=camvid paths.data_root=FOLDER

Every run is a separate ``python -m ripu.train``. Finished runs are kept, so the command can be repeated. ``--record
FILE`` also writes each of them as a line of FILE, which can be put under version control and continued on another
machine (where the same seed gives slightly different figures). A row is one of ``rows.py``, or a row of the paper's
tables (``table4/ent_pa``, see conf/experiment) on the data set given here. Rows that are the same until their first
round share a beginning (``paths.beginnings``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ripu.io.errors import RipuError, print_error
from ripu.report.benchmark import read_runs
from rows import FROM_TRANSLATED, ROWS, begins_with

DEFAULT = ("source only", "PA random", "PA RIPU", "RA random", "RA RIPU", "all labels")
PAIRS = (
    ("PA RIPU", "source only"),
    ("PA RIPU", "PA random"),
    ("RA RIPU", "source only"),
    ("RA RIPU", "RA random"),
    ("RA RIPU", "RA entropy"),
    ("RA RIPU after random", "RA random"),
    ("RA RIPU after random", "RA RIPU"),
    ("RA RIPU", "PA RIPU"),
    ("RA teacher", "RA RIPU"),
    ("target only", "RA RIPU"),
    ("all labels", "RA RIPU"),
)

Results = dict[tuple[str, int], dict[str, Any]]


def folder_of(out: Path, row: str, seed: int) -> Path:
    return out / f"{row.replace(' ', '-').replace('/', '-').lower()}-seed{seed}"


def made_with(folder: Path) -> Path:
    """Return the file with the row of a run and those of its overrides that change figures.

    It lies beside the folder, whose content may be passed on to runs with the same beginning.
    """
    return folder.with_name(f"{folder.name}.json")


WITHOUT_EFFECT = (
    "paths.",
    "data.num_workers=",
    "data.cache=",
    "evaluation.pictures=",
    "evaluation.gallery=",
    "logger=",
)
"""Overrides that change no figure."""

ALIKE = 0.01
"""Largest difference in mIoU of two networks that were the same until one step before."""

KEPT = ("mIoU", "per_class_iou", "labelled_fraction", "max_steps", "seconds")
"""Keys of ``results.json`` that go into a record."""

FACTS = ("dataset", "setting", "mode", "method", "peak_memory_gib")
"""More of them, which older results do not have."""


class Record:
    """Finished runs, one line of JSON each, by data (the overrides of all rows), row and seed."""

    _lock = threading.RLock()

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, overrides: list[str]) -> Results:
        """Return the runs with these overrides, ignoring those that change no figure.

        Raises:
            ConfigError: A line of the file is damaged.
        """
        wanted = _effective(overrides)
        with self._lock:
            runs = read_runs(self.path) if self.path.exists() and self.path.stat().st_size else []
        return {(one["row"], one["seed"]): one for one in runs if one["overrides"] == wanted}

    def add(self, row: str, seed: int, overrides: list[str], result: dict[str, Any]) -> None:
        """Append a run unless it is recorded already."""
        with self._lock:
            if (row, seed) in self.find(overrides):
                return
            line = {"row": row, "seed": seed, "overrides": _effective(overrides), **_kept(result)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _effective(overrides: list[str]) -> list[str]:
    return sorted(word for word in overrides if not word.startswith(WITHOUT_EFFECT))


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    """Reduce the content of ``results.json`` to what a record keeps."""
    provenance = {name: text for name, text in result["provenance"].items() if name not in ("command", "experiment")}
    rounds = [[one["step"], one["labelled_fraction"], one["mIoU"]] for one in result["rounds"]]
    first = rounds[0][0] if rounds else None
    before = [one["mIoU"] for one in result["evaluations"] if one["step"] == first]
    kept = {name: result[name] for name in KEPT} | {name: result[name] for name in FACTS if name in result}
    for key, name in (("clicks", "clicks"), ("pixels", "labelled_pixels")):  # so far, after each round
        if all(name in one for one in result["rounds"]):
            kept[key] = [one[name] for one in result["rounds"]]
    return {**kept, "before": before[0] if before else None, "rounds": rounds, "provenance": provenance}


class Runs:
    """Runs of some rows over some seeds below one folder."""

    def __init__(
        self, out: Path, rows: list[str], seeds: list[int], overrides: list[str], record: Record | None = None
    ) -> None:
        self.out, self.rows, self.seeds, self.overrides, self.record = out, rows, seeds, overrides, record
        self._locks = {(row, seed): threading.Lock() for row in {*ROWS, *rows} for seed in seeds}
        self._ends: dict[tuple[str, int], str | None] = {}
        self._translation = threading.Lock()
        self._is_stopped = threading.Event()
        self._under_way: set[subprocess.Popen[bytes]] = set()

    def words(self, row: str, seed: int) -> list[str]:
        """Return the overrides of a run."""
        words = [*ROWS.get(row, (f"experiment={row}",)), *self.overrides, f"seed={seed}", "resume=true"]
        words += [f"paths.output_dir={folder_of(self.out, row, seed)}", f"paths.beginnings={self.out / 'beginnings'}"]
        if (found := begins_with(row)) is not None:
            first, key = found
            words.append(f"{key}={folder_of(self.out, first, seed)}/checkpoints/final.ckpt")
        if row in FROM_TRANSLATED:
            words.append(f"method.translated={self.translated}")
        return words

    @property
    def translated(self) -> Path:
        """The folder of images in the style of the other domain, for rows that read them."""
        return self.out / "translated"

    def one(self, row: str, seed: int, threads: int) -> str | None:
        """Carry out one run unless it is finished or recorded, after the run that it starts from.

        Returns:
            The failure, if any.
        """
        if self.record is not None and (row, seed) in self.record.find(self.overrides):
            return None
        return self._once(row, seed, threads)

    def _once(self, row: str, seed: int, threads: int) -> str | None:
        """Carry out a run after the one that it starts from, once for all rows that need it; return the failure."""
        with self._locks[row, seed]:
            if (row, seed) not in self._ends:
                first = begins_with(row)
                failure = None if first is None else self._once(first[0], seed, threads)
                if failure is None:
                    self._ends[row, seed] = self.train(row, seed, threads)
                else:
                    self._ends[row, seed] = f"{row}, seed {seed}: the run that it starts from failed ({failure})"
            return self._ends[row, seed]

    def train(self, row: str, seed: int, threads: int) -> str | None:
        """Carry out one run here unless it is finished here, and record it; return the failure, if any."""
        try:
            return self._train(row, seed, threads)
        except Exception as error:  # the failure of one run does not stop the others
            return f"{row}, seed {seed}: {error!r}"

    def _train(self, row: str, seed: int, threads: int) -> str | None:
        folder = folder_of(self.out, row, seed)
        if self._is_of_others(row, seed):
            return f"{row}, seed {seed}: {folder} contains a run with other overrides; give another --out, or remove it"
        if not (folder / "results.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            made_with(folder).write_text(json.dumps(self._made_with(row)) + "\n")
            if row in FROM_TRANSLATED and (failure := self._translate(threads)) is not None:
                return failure
            status = self._run(folder / "log.txt", self.words(row, seed), threads)
            if self._is_stopped.is_set():
                return None
            if status != 0:
                return f"{row}, seed {seed}: see {folder}/log.txt"
            print(f"done: {row}, seed {seed}", flush=True)
        if self.record is not None:
            self.record.add(row, seed, self.overrides, json.loads((folder / "results.json").read_text()))
        return None

    def _made_with(self, row: str) -> list[str]:
        return [row, *_effective(self.overrides)]

    def _is_of_others(self, row: str, seed: int) -> bool:
        """Return True if the folder of a run contains one with other overrides."""
        folder = folder_of(self.out, row, seed)
        file = made_with(folder)
        return (folder / "config.yaml").exists() and (
            not file.exists() or json.loads(file.read_text()) != self._made_with(row)
        )

    def _translate(self, threads: int) -> str | None:
        """Make the translated images unless they are there; return the failure, if any."""
        with self._translation:
            if self.translated.exists():
                return None
            words = [word for word in self.overrides if word.startswith(("dataset", "paths.data_root="))]
            log = self.out / "translated.log"
            status = self._run(log, [*words, f"output={self.translated}"], threads, "ripu.translate")
            return None if status == 0 else f"translated images: see {log}"

    def _run(self, log: Path, words: list[str], threads: int, module: str = "ripu.train") -> int:
        with log.open("a") as file:
            if self._is_stopped.is_set():
                return 0
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # Ctrl-C reaches it once, through this process
            )
            self._under_way.add(process)
            if self._is_stopped.is_set():  # stopped since the check above
                process.terminate()
            status = process.wait()
            self._under_way.discard(process)
            return status

    def make(self, jobs: int, threads: int) -> list[str]:
        """Carry out all runs, some at a time; when stopped, unfinished ones leave a checkpoint.

        Returns:
            A line for each run that failed.
        """
        first = [row for row in ("source only", "all labels") if row in self.rows]
        order = [(row, seed) for seed in self.seeds for row in first[:1]]
        order += [
            (row, seed) for seed in self.seeds for row in [*first[1:], *(row for row in self.rows if row not in first)]
        ]
        pool = ThreadPoolExecutor(jobs)
        self._ends.clear()  # what failed before is tried again
        try:
            failures = []
            for future in [pool.submit(self.one, row, seed, threads) for row, seed in order]:
                failure = future.result()
                if failure is not None:
                    print(f"FAILED: {failure}", flush=True)
                    failures.append(failure)
            return failures
        except BaseException:
            self._is_stopped.set()
            for process in list(self._under_way):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def results(self) -> Results:
        """Return finished runs in the form of a record, from the record or else from the folder."""
        found: Results = {} if self.record is None else self.record.find(self.overrides)
        for row in self.rows:
            for seed in self.seeds:
                folder = folder_of(self.out, row, seed)
                is_here = (folder / "results.json").exists() and not self._is_of_others(row, seed)
                if (row, seed) not in found and is_here:
                    found[row, seed] = _kept(json.loads((folder / "results.json").read_text()))
        return found


def run_script(main: Callable[[], None]) -> None:
    """Run a script that SIGTERM stops like Ctrl-C, with one line for either, and for an error of the user."""

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; repeat the command to resume", file=sys.stderr)
        sys.exit(130)
    except RipuError as error:
        print_error(error)
        sys.exit(1)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments of this process; ``key=value`` is an override even after an option with several values."""
    words, overrides = [], []
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        is_override = re.match(r"[+~]{0,2}[\w.@/]+=", word) is not None and not before.startswith("--")
        (overrides if is_override else words).append(word)
    arguments = parser.parse_intermixed_args(words)
    arguments.overrides += overrides
    return arguments


def spread(values: list[float]) -> str:
    """Format mean and standard deviation over seeds, or the mean alone for one seed."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def paired(found: Results, better: str, worse: str, seeds: list[int]) -> list[float]:
    """Return the differences in mIoU of two rows, for the seeds that both have."""
    both = [seed for seed in seeds if (better, seed) in found and (worse, seed) in found]
    return [found[better, seed]["mIoU"] - found[worse, seed]["mIoU"] for seed in both]


def same_beginning(found: Results, one: str, other: str, seeds: list[int]) -> int:
    """Count the pairs of two rows that began with the same training, judged by the mIoU before their first round.

    Each run makes the last step before that round itself, and a GPU does not repeat it bit for bit; differences below
    ALIKE therefore count as equal.
    """
    both = [(found[one, seed], found[other, seed]) for seed in seeds if (one, seed) in found and (other, seed) in found]
    return sum(None not in (a["before"], b["before"]) and abs(a["before"] - b["before"]) < ALIKE for a, b in both)


def row_table(
    found: Results,
    rows: list[str],
    seeds: list[int],
    named: Callable[[str], str] = str,
    more: Mapping[str, Callable[[str], str]] = MappingProxyType({}),
) -> list[str]:
    """Return a Markdown table with a line per row and a figure per seed.

    Args:
        found: Results.
        rows: Rows to show, in this order; rows without runs are left out.
        seeds: Seeds to show, in this order.
        named: Gives the name of a row.
        more: Further columns by head; each gives the cell of a row.
    """
    head = ["row", "labelled", "mIoU, mean ± std", *(f"seed {seed}" for seed in seeds), *more]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        results = [found[row, seed] for seed in seeds if (row, seed) in found]
        if results:
            each = [f"{found[row, seed]['mIoU']:.1f}" if (row, seed) in found else "-" for seed in seeds]
            share = 100 * statistics.mean(result["labelled_fraction"] for result in results)
            mean = spread([result["mIoU"] for result in results])
            cells = [named(row), f"{share:.2f} %", mean, *each, *(say(row) for say in more.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def pair_table(
    found: Results, pairs: tuple[tuple[str, str], ...], seeds: list[int], named: Callable[[str], str] = str
) -> list[str]:
    """Return a Markdown table of the differences of two rows, and of how many pairs have the same beginning.

    ``named`` gives the name of a row.
    """
    lines = ["| difference, seed by seed | mean ± std | n | higher in | same beginning |", "|---|---|---|---|---|"]
    for better, worse in pairs:
        differences = paired(found, better, worse, seeds)
        if differences:
            wins = sum(difference > 0 for difference in differences)
            n = len(differences)
            alike = same_beginning(found, better, worse, seeds)
            what = f"{named(better)} - {named(worse)}"
            lines.append(f"| {what} | {spread(differences)} | {n} | {wins} of {n} | {alike} of {n} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and table.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    listed = ", ".join(ROWS).replace("%", "%%")
    parser.add_argument("--rows", nargs="+", default=list(DEFAULT), help=f"{listed}, or rows of conf/experiment")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a run")
    parser.add_argument("--record", type=Path, default=None, help="also keep finished runs as lines of this file")
    parser.add_argument("overrides", nargs="*", help="overrides of ripu.train for every run, e.g. dataset=camvid")
    arguments = parse(parser)
    unknown = [row for row in arguments.rows if row not in ROWS and "/" not in row]
    if unknown:
        parser.error(f"unknown rows {unknown}; there are {list(ROWS)} and the rows of conf/experiment")

    record = None if arguments.record is None else Record(arguments.record)
    runs = Runs(arguments.out.resolve(), arguments.rows, arguments.seeds, arguments.overrides, record)
    failures = runs.make(arguments.jobs, arguments.threads)
    found = runs.results()
    lines = [*row_table(found, runs.rows, runs.seeds), "", *pair_table(found, PAIRS, runs.seeds)]
    (runs.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if failures:
        sys.exit(f"{len(failures)} runs failed")


if __name__ == "__main__":
    run_script(main)
