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
    from ripu.labelstore.accounts import StoreStats, Tally


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 1 if ``verify`` finds a fault, 2 if it cannot be carried out."""
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
    stats = _open(arguments.run).stats(arguments.rounds)
    print(json.dumps(stats.to_json(), indent=1) if arguments.json else _stats_text(stats, arguments.images))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from ripu.labelstore import diff_stores

    diff = diff_stores(_open(arguments.run_a), _open(arguments.run_b))
    print(json.dumps(diff, indent=1) if arguments.json else _diff_text(diff))
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


def _stats_text(stats: StoreStats, with_images: bool) -> str:
    """Return the tables of a store's account, ``with_images`` a line per image too."""
    names = ("picks", "answered", "void", "left", "clicks", "pixels", "share", "px answered", "px missing", "px void")

    def row(tally: Tally, left: int | None) -> list[str]:
        return [
            *(f"{count:,}" for count in (tally.picks, tally.answered_picks, tally.void_picks)),
            "-" if left is None else f"{left:,}",
            f"{tally.clicks:,}",
            f"{tally.asked_pixels:,}",
            f"{100 * tally.asked_pixels / max(stats.num_pixels, 1):.3f}%",
            *(f"{count:,}" for count in (tally.answered_pixels, tally.missing_pixels, tally.void_pixels)),
        ]

    rounds = [
        [
            str(account.spec.index),
            f"{account.spec.step:,}",
            f"{account.spec.budget:,}",
            *row(account.tally, account.left_picks),
        ]
        for account in stats.rounds
    ]
    if stats.carried.picks:
        rounds.insert(0, ["before", "", "", *row(stats.carried, None)])
    rounds.append(["all", "", "", *row(stats.total, stats.left_picks)])
    labelled = max(sum(stats.total.class_pixels), 1)
    classes = [
        [name, f"{pixels:,}", f"{100 * pixels / labelled:.2f}%", f"{clicks:,}"]
        + [f"{account.tally.class_pixels[number]:,}" for account in stats.rounds]
        for number, (name, pixels, clicks) in enumerate(
            zip(stats.class_names, stats.total.class_pixels, stats.total.class_clicks, strict=True)
        )
    ]
    parts = [
        _table(["round", "step", "budget/image", *names], rounds),
        _table(
            ["class", "pixels", "share", "clicks", *(f"round {account.spec.index}" for account in stats.rounds)],
            classes,
        ),
    ]
    if with_images:
        left = stats.left_picks_per_image or {}
        images = [[ascii(name)[1:-1], *row(tally, left.get(name))] for name, tally in stats.images.items()]
        parts.append(_table(["image", *names], images))
    if stats.planned_picks is not None:
        at_most = "" if stats.left_pixels is None else f" (at most {stats.left_pixels:,} pixels, a click or more each)"
        spent = stats.total.picks - stats.carried.picks
        parts.append(f"planned {stats.planned_picks:,} picks, spent {spent:,}, left {stats.left_picks:,}{at_most}")
    if stats.unasked_answers:
        parts.append(f"{stats.unasked_answers:,} further pixels are answered that none of these rounds asks about")
    return "\n\n".join(parts)


def _diff_text(diff: dict[str, Any]) -> str:
    """Return the tables of a comparison."""

    def row(overlap: dict[str, Any]) -> list[str]:
        iou = "-" if overlap["iou"] is None else f"{100 * overlap['iou']:.1f}%"
        return [*(f"{overlap[name]:,}" for name in ("first", "second", "both")), iou]

    names = ["A", "B", "both", "IoU"]
    only_first, only_second = len(diff["only_first"]), len(diff["only_second"])
    parts = [
        f"{diff['num_images']} images in both, {only_first} only in A, {only_second} only in B",
        _table(
            ["round", *(f"picks {name}" for name in names), *(f"pixels so far {name}" for name in names)],
            [[str(entry["index"]), *row(entry["picks"]), *row(entry["pixels_so_far"])] for entry in diff["rounds"]],
        ),
        _table(["class", *names], [[name, *row(overlap)] for name, overlap in diff["classes"].items()]),
    ]
    if diff["conflicts"]:
        parts.append(f"{diff['conflicts']:,} pixels are revealed with different labels")
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))]
        for first, *rest in (head, *rows)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
