"""Kill runs at random points, resume them, and count the differences at the end: ``make soak ARGS="--seed 1"``.

Every kind of point is hit with 0 and 2 loader workers and with one and two processes. A run is killed several times
before it may finish.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import kills
import trees
from kills import Kill, Way

WAYS = tuple(Way(workers, ranks) for ranks in (1, 2) for workers in (0, 2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of points and order")
    parser.add_argument(
        "--kills", type=int, help="number of kills (default: every kind of point in every way of running)"
    )
    parser.add_argument("--chain", type=int, default=4, help="maximum number of kills per run")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further run after this time")
    parser.add_argument("--out", type=Path, help="folder for runs and soak.json (default: a temporary one)")
    parser.add_argument(
        "--fork", action="store_true", help="fork the command from a process that has imported torch: faster"
    )
    arguments = parser.parse_args()
    if arguments.fork:
        kills.preload()
    with tempfile.TemporaryDirectory() as temporary:
        out: Path = arguments.out or Path(temporary)
        return soak(out.absolute(), arguments.seed, arguments.kills, arguments.chain, arguments.minutes)


def soak(out: Path, seed: int, count: int | None, chain: int, minutes: float) -> int:
    """Kill, resume and compare; return the exit status."""
    chance = random.Random(seed)
    drawn = [(way, one) for way in WAYS for one in kills.kinds(chance, way)]
    chance.shuffle(drawn)
    drawn = drawn[:count]
    trees.write_all(out / "data")
    began = time.monotonic()
    references = {}
    for ranks in sorted({way.ranks for way, _ in drawn}):
        references[ranks] = out / f"whole-{ranks}"
        kills.finish(out / "data", references[ranks], Way(0, ranks))
        say(began, f"undisturbed run, {ranks} ranks: done")
    jobs = [
        (way, run)
        for way in WAYS
        for run in kills.chains([one for its_way, one in drawn if its_way == way], chain, chance)
    ]
    chance.shuffle(jobs)
    entries: list[dict[str, Any]] = []
    for number, (way, run) in enumerate(jobs):
        if time.monotonic() - began > 60 * minutes:
            say(began, f"time is up; {len(jobs) - number} of {len(jobs)} runs are left out")
            break
        entries.append(one_run(out, number, way, run, references[way.ranks]))
        say(began, f"run {number + 1} of {len(jobs)}, {way}: {len(run)} kills, {entries[-1]['result']}")
        (out / "soak.json").write_text(json.dumps({"seed": seed, "runs": entries}, indent=1) + "\n")
    return summary(entries, began)


def one_run(out: Path, number: int, way: Way, run: list[Kill], reference: Path) -> dict[str, Any]:
    """Kill a run at its points, let it finish, and compare; errors become part of the result."""
    folder = out / f"run-{number:03d}"
    struck: list[str] = []
    result: Any
    try:
        groups = []
        for one in run:
            groups.append(kills.kill(out / "data", folder, way, one))
            struck.append(one.kind)
        kills.finish(out / "data", folder, way)
        for group in groups:
            kills.check_gone(group)
        result = kills.differences(reference, folder)
    except AssertionError as error:
        result = str(error)
    return {"way": str(way), "kills": [str(one) for one in run], "struck": struck, "result": result}


def summary(entries: list[dict[str, Any]], began: float) -> int:
    """Print the table; return 1 if anything differs or failed."""
    compared = [entry["result"] for entry in entries if isinstance(entry["result"], dict)]
    failed = [entry for entry in entries if not isinstance(entry["result"], dict) or any(entry["result"].values())]
    by_kind: dict[str, int] = {}
    for entry in entries:
        for kind in entry["struck"]:
            by_kind[kind] = by_kind.get(kind, 0) + 1
    print(f"\n{'kind':40s} kills")
    for kind, times in sorted(by_kind.items()):
        print(f"{kind:40s} {times:5d}")
    for way in sorted({entry["way"] for entry in entries}):
        mine = [entry for entry in entries if entry["way"] == way]
        print(f"{way:40s} {sum(len(entry['struck']) for entry in mine):5d} in {len(mine)} runs")
    print(
        f"\n{sum(by_kind.values())} kills in {len(entries)} runs, {len(compared)} compared with undisturbed runs: "
        + ", ".join(
            f"{sum(one[what] for one in compared)} {what} differing" for what in (compared[0] if compared else ())
        )
        + f" ({time.monotonic() - began:.0f} s)"
    )
    for entry in failed:
        print(f"\nFAILED ({entry['way']}): {'; '.join(entry['kills'])}\n{entry['result']}")
    return 1 if failed else 0


def say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
