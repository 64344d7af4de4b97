"""Runs of the real command that are killed at chosen points, resumed, and compared with an undisturbed run."""

from __future__ import annotations

import csv
import json
import os
import random
import runpy
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import strike
from running import command, environment, label_bytes, tiny, weights

MAX_STEPS = 9
ROUND_STEPS = (3, 6)
PRETRAIN = 2
TIMES = ("seconds", "images_per_second", "peak_memory_gib", "provenance")
"""Keys of results.json that depend on the clock, the machine or the command line."""
TIMED_COLUMNS = ("train/images_per_second", "system/", "al/seconds", "al/images_per_second")
"""Prefixes of the columns of metrics.csv that depend on the clock and on memory."""


@dataclass(frozen=True)
class Way:
    """A way to carry out a run; of it, only the number of ranks changes what is computed."""

    workers: int = 0
    ranks: int = 1

    def __str__(self) -> str:
        return f"workers {self.workers}, ranks {self.ranks}"


@dataclass(frozen=True)
class Kill:
    """A point of a run.

    Attributes:
        kind: The activity that is interrupted, in words.
        tick: The training step at which it lies; orders points in time.
        point: See :mod:`strike`.
    """

    kind: str
    tick: int
    point: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(f'{key} {value}' for key, value in self.point.items())})"


def words(data_root: Path, run: Path, way: Way) -> list[str]:
    """Return the overrides of a run of two rounds with a checkpoint after every step."""
    return tiny(
        data_root,
        run,
        f"selection_steps=[{','.join(map(str, ROUND_STEPS))}]",
        f"pretrain_steps={PRETRAIN}",
        "checkpoint.every_steps=1",
        "evaluation.batch=1",
        "evaluation.gallery=0",
        "evaluation.pictures=0",
        "resume=true",
        f"trainer.max_steps={MAX_STEPS}",
        f"data.num_workers={way.workers}",
        f"trainer.devices={way.ranks}",
        *(("trainer.strategy=ddp",) if way.ranks > 1 else ()),
    )


def finish(data_root: Path, run: Path, way: Way) -> None:
    """Run to the end.

    Raises:
        AssertionError: The command failed; the message has the end of its output.
    """
    _, code = _run(data_root, run, way, {})
    assert code == 0, f"{run} ended with {code}:\n{_tail(run)}"


def kill(data_root: Path, run: Path, way: Way, one: Kill) -> int:
    """Run until the process is killed at a point; return its process group, see :func:`check_gone`.

    Raises:
        AssertionError: The process ended differently or at another point.
    """
    marker = run.parent / f"{run.name}.struck"
    marker.unlink(missing_ok=True)
    pid, code = _run(data_root, run, way, {"STRIKE": json.dumps(one.point), "STRIKE_MARKER": str(marker)})
    assert marker.exists(), f"{one} was never reached, the command ended with {code}:\n{_tail(run)}"
    struck = json.loads(marker.read_text())
    assert {key: struck[key] for key in one.point} == one.point
    if one.point.get("rank", 0) == 0:
        assert struck["pid"] == pid
        assert code == -9, f"{one}: the command ended with {code} and not by the signal:\n{_tail(run)}"
    else:  # the others notice that a process of the job is gone
        assert code != 0, f"{one}: the job went on without one of its processes"
    return pid


def _run(data_root: Path, run: Path, way: Way, more: dict[str, str]) -> tuple[int, int]:
    """Run the command, append its output to a file beside the run, and return process id and exit status."""
    run.parent.mkdir(parents=True, exist_ok=True)
    site = run.parent / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text("import strike\n\nstrike.arm()\n")
    env = environment(**more)
    env["PYTHONPATH"] = os.pathsep.join([str(site), env["PYTHONPATH"]])
    given = words(data_root, run, way)
    with (run.parent / f"{run.name}.log").open("a") as log:
        log.write(f"---- {more.get('STRIKE', 'to the end')}\n")
        log.flush()
        if FORK:
            pid = _fork(given, run.parent, env, log.fileno())
            return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        process = forks.start(
            command("ripu.train", *given), cwd=run.parent, env=env, stdout=log, stderr=log, start_new_session=True
        )
        return process.pid, process.wait(timeout=900)


FORK = False
"""Fork the command from this process, which has imported the libraries: much faster than starting it.

Lightning starts the other ranks of a job as usual.
"""


def preload() -> None:
    """Import what the command imports, and fork from now on. This process must have one thread."""
    global FORK
    import torch

    import ripu.evaluate
    import ripu.run

    torch.set_num_threads(1)
    FORK = bool(ripu.run and ripu.evaluate)


def _fork(given: list[str], folder: Path, env: dict[str, str], log: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["ripu.train", *given]
        strike.arm()
        runpy.run_module("ripu.train", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def check_gone(group: int, seconds: float = 60.0) -> None:
    """Check that every process of a killed job ends.

    Raises:
        AssertionError: Some are still running.
    """
    deadline = time.monotonic() + seconds
    while left := _members(group):
        assert time.monotonic() < deadline, f"processes of a killed job are still running: {left}"
        time.sleep(0.2)


def _members(group: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(name)
    return found


def differences(reference: Path, run: Path) -> dict[str, int]:
    """Count the bytes of weights and label store, and the entries of results.json and metrics.csv, that differ."""
    one, other = weights(reference), weights(run)
    first_bytes, second_bytes = (
        {name: tensor.numpy().tobytes() for name, tensor in state.items()} for state in (one, other)
    )
    differing = _differing(first_bytes, second_bytes)
    files, others = label_bytes(reference), label_bytes(run)
    labels = _differing(files, others)
    first, second = (_flat(json.loads((path / "results.json").read_text())) for path in (reference, run))
    results = sum(1 for key in first.keys() | second.keys() if first.get(key) != second.get(key))
    rows, others_rows = _rows(reference), _rows(run)
    metrics = sum(1 for key in rows.keys() | others_rows.keys() if rows.get(key) != others_rows.get(key))
    return {"weights": differing, "labels": labels, "results": results, "metrics": metrics}


def _differing(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    """Count differing bytes; a file that only one has counts in full, and as 1 if it is empty."""
    total = 0
    for name in one.keys() | other.keys():
        first, second = one.get(name), other.get(name)
        if first is None or second is None:
            total += max(1, len(first or second or b""))
        else:
            total += sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))
    return total


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(name, part) for name, part in value.items() if name not in TIMES]
    elif isinstance(value, list):
        items = [(str(number), part) for number, part in enumerate(value)]
    else:
        return {key: value}
    found: dict[str, Any] = {key: type(value).__name__}
    for name, part in items:
        found |= _flat(part, f"{key}/{name}")
    return found


def _rows(run: Path) -> dict[tuple[str, str], str]:
    with (run / "metrics.csv").open(newline="") as file:
        return {
            (row["step"], name): value
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and not name.startswith(TIMED_COLUMNS)
        }


def _tail(run: Path) -> str:
    return (run.parent / f"{run.name}.log").read_text()[-3000:]


# ---- points


def kinds(chance: random.Random, way: Way) -> list[Kill]:
    """Draw one point of every kind at random."""
    last = way.ranks - 1
    steps = [step for step in range(2, MAX_STEPS) if step + 1 not in (PRETRAIN, *ROUND_STEPS)]

    def side() -> str:
        return chance.choice(("before", "after"))

    def rank() -> int:
        return chance.choice((0, last))

    def in_round(kind: str, point: dict[str, Any]) -> Kill:
        index = chance.randrange(len(ROUND_STEPS))
        name = {"name": point["name"].format(index)} if "name" in point else {}
        return Kill(kind, ROUND_STEPS[index] - 1, {**point, **name, "round": index})

    def any_of(*options: str) -> str:
        return chance.choice(options)

    def saved(name: str, suffix: str, behind: int = 0, **point: Any) -> Kill:
        step = chance.choice(steps)
        return Kill(name, step, {**point, "name": f"step-{step + 1 - behind:08d}{suffix}"})

    step, early = chance.randrange(PRETRAIN, MAX_STEPS), chance.randrange(PRETRAIN)
    shard = f"shard-{{:03d}}-0000{last}-{any_of('picks', 'answers')}.dat"
    first = any_of("store.json", "manifest.json")
    half = {"kind": "half", "label": any_of("picks", "answers"), "count": chance.randrange(2)}
    sync = {"kind": "fsync", "name": any_of(".tmp-*", "labels"), "count": chance.randrange(4)}
    final = {"kind": "checkpoint", "name": "final*", "when": any_of("before", "half", "after")}
    return [
        Kill("the label store is made", -1, {"kind": "replace", "when": side(), "name": first}),
        Kill("pre-training", early, {"kind": "step", "when": side(), "step": early}),
        Kill("between rounds", step, {"kind": "step", "when": side(), "step": step, "rank": rank()}),
        in_round("scoring", {"kind": "score", "images": 1, "rank": rank()}),
        in_round("half a write of the label store", half),
        in_round("half a manifest", {"kind": "half", "label": "manifest.json"}),
        in_round("a sync of the label store", {**sync, "when": side()}),
        in_round("a shard is renamed", {"kind": "replace", "name": shard, "when": side(), "rank": last}),
        in_round("answers are renamed", {"kind": "replace", "name": "answers-*.dat", "when": side()}),
        in_round("a round is renamed", {"kind": "replace", "name": "round-{:03d}-*.dat", "when": side()}),
        in_round("the manifest is renamed", {"kind": "replace", "name": "manifest.json", "when": side()}),
        in_round("right after a round's commit", {"kind": "committed"}),
        in_round("a shard is removed", {"kind": "unlink", "name": "shard-*", "when": side()}),
        saved("half a checkpoint", ".*", kind="checkpoint", when="half"),
        saved("between a checkpoint and its record", ".sha256", kind="replace", when="after"),
        saved("a checkpoint is renamed", ".ckpt", kind="replace", when=side()),
        saved("pruning", any_of(".sha256", ".ckpt"), 2, kind="unlink", when=side()),
        Kill("the final weights", MAX_STEPS, final),
        Kill("the last evaluation", MAX_STEPS, {"kind": "test", "rank": rank()}),
        Kill("results", MAX_STEPS, {"kind": "replace", "name": "results.json", "when": side()}),
    ]


def chains(kills: list[Kill], most: int, chance: random.Random) -> list[list[Kill]]:
    """Distribute kills over runs so that the kills of a run follow one another."""
    runs: list[list[Kill]] = []
    order = kills[:]
    chance.shuffle(order)
    for one in sorted(order, key=lambda each: each.tick):
        room = [run for run in runs if len(run) < most and run[-1].tick < one.tick]
        if room:
            min(room, key=len).append(one)
        else:
            runs.append([one])
    return runs
