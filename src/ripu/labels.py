"""``python -m ripu.labels COMMAND RUN``: check, count, compare, export and undo what a run asked and learned.

Needs no torch. RUN is a run's output folder or its ``labels`` folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.io.errors import RipuError, print_error

if TYPE_CHECKING:  # numpy takes long to import: only when a store is read
    from ripu.labelstore import LabelStore


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0; 1 if ``verify`` finds a fault; 2 if a command cannot be carried out.
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RipuError, OSError) as error:
        print_error(error)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ripu.labels",
        description="The questions and answers of a run: check, count, compare, export, undo.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Any, purpose: str, *runs: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=purpose, description=purpose)
        for run in runs or ("RUN",):
            sub.add_argument(run.lower(), metavar=run, type=Path, help="a run's output folder, or its labels folder")
        sub.set_defaults(command=command)
        return sub

    add("verify", _verify, "Check every checksum and every invariant; exit status 1 and a line per fault.")
    stats = add("stats", _stats, "Count picks, clicks and pixels per round, class and image.")
    stats.add_argument("--rounds", type=int, metavar="N", help="as of the first N rounds")
    stats.add_argument("--images", action="store_true", help="also print a line per image")
    stats.add_argument("--json", action="store_true", help="print JSON (images included)")
    diff = add("diff", _diff, "Compare what two runs asked and learned.", "RUN_A", "RUN_B")
    diff.add_argument("--json", action="store_true", help="print JSON")
    export = add("export", _export, "Write the revealed label of every image as a PNG; 255 is not revealed.")
    export.add_argument("out", metavar="OUT", type=Path, help="folder for the images; made if it is missing")
    export.add_argument("--rounds", type=int, metavar="N", help="as of the first N rounds")
    export.add_argument(
        "--ids",
        choices=("train", "label"),
        default="train",
        help="train ids (255: void or not revealed) or the label ids of the data set (255: not revealed; void: the "
        "smallest id without a class, 0 for Cityscapes)",
    )
    export.add_argument(
        "--taxonomy", metavar="NAME", help="class table; by default that of config.yaml, or one with these class names"
    )
    export.add_argument("--colour", action="store_true", help="also NAME_colour.png in the class colours")
    add("undo", _undo, "Take the last round back. Its answers are kept and its file stays.")
    return parser


def _open(run: Path, *, write: bool = False) -> LabelStore:
    from ripu.labelstore import LabelStore

    return LabelStore.open(run / "labels" if (run / "labels").is_dir() else run, write=write)


def _verify(arguments: argparse.Namespace) -> int:
    from ripu.io.console import Progress

    store = _open(arguments.run)
    with Progress("verifying", len(store.images)) as progress:
        problems = store.verify(progress)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{store.path}: {len(problems)} faults")
        return 1
    log = store.log
    carried = f"{len(log.carried)} carried over, " if log.carried else ""
    content = f"{len(store.images)} images, {carried}{len(log.rounds)} rounds, {len(log.answers)} batches of answers"
    print(f"{store.path}: intact; {content}")
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    from ripu.labelstore.text import stats_text

    stats = _open(arguments.run).stats(arguments.rounds)
    print(json.dumps(stats.to_json(), indent=1) if arguments.json else stats_text(stats, arguments.images))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from ripu.labelstore import diff_stores
    from ripu.labelstore.text import diff_text

    diff = diff_stores(_open(arguments.run_a), _open(arguments.run_b))
    print(json.dumps(diff.to_json(), indent=1) if arguments.json else diff_text(diff))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ripu.run.label_export import export_labels

    store = _open(arguments.run)
    num_rounds = store.num_rounds if arguments.rounds is None else arguments.rounds
    count = export_labels(
        store, arguments.out, num_rounds, ids=arguments.ids, taxonomy=arguments.taxonomy, colour=arguments.colour
    )
    print(f"{arguments.out}: {count} labels as of {num_rounds} rounds; images.json maps file names to image ids")
    return 0


def _undo(arguments: argparse.Namespace) -> int:
    from ripu.labelstore import RoundOrderError

    with _open(arguments.run, write=True) as store:
        if not store.num_rounds:
            raise RoundOrderError(f"{store.path}: no round is committed, so there is nothing to undo")
        spec = store.undo_round(store.num_rounds - 1)
        left = f"{store.num_rounds} rounds are left, answers are kept"
        print(f"{store.path}: round {spec.index} (step {spec.step}) is undone; {left}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
