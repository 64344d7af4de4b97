"""The labels of a run on the command line: ``python -m ripu.labels COMMAND RUN``.

Commands: ``verify``, ``stats``, ``diff``, ``export``, ``undo``. Needs no torch. RUN is a run's output folder or its
``labels`` folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ripu.datasets.taxonomy import Taxonomy
    from ripu.labelstore import LabelStore, StoreDiff, StoreStats, Tally


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0; 1 where ``verify`` finds a fault; 2 where a command cannot be carried out.
    """
    arguments = _parser().parse_args(argv)
    from ripu.io.errors import RipuError, print_error

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


def export_name(number: int, image_id: str) -> str:
    """A file name (without extension) for an image id that is not trusted.

    Unique by its number, at most 140 characters of ``A-Za-z0-9._-``, no folder part.

    Args:
        number: Position of the image in the store.
        image_id: Any text.

    Returns:
        The name.

    Example:
        >>> export_name(3, "../../etc/passwd")
        '000003_.._.._etc_passwd'
    """
    return f"{number:06d}_" + re.sub(r"[^A-Za-z0-9._-]", "_", image_id)[-120:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ripu.labels",
        description="What was asked and answered in a run: check, count, compare, export, undo.",
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
    stats.add_argument("--images", action="store_true", help="also a line per image")
    stats.add_argument("--json", action="store_true", help="print JSON (per image included)")
    diff = add("diff", _diff, "Compare what two runs asked and learned.", "RUN_A", "RUN_B")
    diff.add_argument("--json", action="store_true", help="print JSON")
    export = add("export", _export, "Write the revealed label of every image as a PNG; 255 is not revealed.")
    export.add_argument("out", metavar="OUT", type=Path, help="folder for the images; made where it is missing")
    export.add_argument("--rounds", type=int, metavar="N", help="as of the first N rounds")
    export.add_argument(
        "--ids",
        choices=("train", "label"),
        default="train",
        help="train ids (255: void or not revealed) or the label ids of the data set (255: not revealed; void is the smallest "
        "id without a class, 0 for Cityscapes)",
    )
    export.add_argument(
        "--taxonomy", metavar="NAME", help="class table; if left out that of config.yaml, or one with these class names"
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
    before = f"{len(log.carried)} carried over, " if log.carried else ""
    what = f"{len(store.images)} images, {before}{len(log.rounds)} rounds, {len(log.answers)} batches of answers"
    print(f"{store.path}: intact; {what}")
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    stats = _open(arguments.run).stats(arguments.rounds)
    if arguments.json:
        _print_json(stats.to_json())
    else:
        _print_stats(stats, arguments.images)
    return 0


def _print_stats(stats: StoreStats, with_images: bool) -> None:
    names = ("picks", "answered", "void", "left", "clicks", "pixels", "share", "px answered", "px missing", "px void")

    def row(tally: Tally, left: int | None) -> list[str]:
        missing = tally.asked_pixels - tally.answered_pixels
        return [
            *(f"{count:,}" for count in (tally.picks, tally.answered_picks, tally.void_picks)),
            "-" if left is None else f"{left:,}",
            f"{tally.clicks:,}",
            f"{tally.asked_pixels:,}",
            f"{100 * tally.asked_pixels / max(stats.num_pixels, 1):.3f}%",
            *(f"{count:,}" for count in (tally.answered_pixels, missing, tally.void_pixels)),
        ]

    table = [
        [str(one.spec.index), f"{one.spec.step:,}", f"{one.spec.budget:,}", *row(one.tally, one.left_picks)]
        for one in stats.rounds
    ]
    if stats.carried.picks:
        table.insert(0, ["before", "", "", *row(stats.carried, None)])
    _print_table(
        ["round", "step", "budget/image", *names], [*table, ["all", "", "", *row(stats.total, stats.left_picks)]]
    )
    labelled = max(sum(stats.total.class_pixels), 1)
    print()
    classes = zip(stats.class_names, stats.total.class_pixels, stats.total.class_clicks, strict=True)
    _print_table(
        ["class", "pixels", "share", "clicks", *(f"round {one.spec.index}" for one in stats.rounds)],
        [
            [name, f"{pixels:,}", f"{100 * pixels / labelled:.2f}%", f"{clicks:,}"]
            + [f"{one.tally.class_pixels[number]:,}" for one in stats.rounds]
            for number, (name, pixels, clicks) in enumerate(classes)
        ],
    )
    if with_images:
        left = stats.left_picks_per_image or {}
        print()
        _print_table(
            ["image", *names],
            [[ascii(name)[1:-1], *row(tally, left.get(name))] for name, tally in stats.images.items()],
        )
    if stats.planned_picks is not None:
        at_most = "" if stats.left_pixels is None else f" (at most {stats.left_pixels:,} pixels, a click or more each)"
        spent = stats.total.picks - stats.carried.picks
        print(f"\nplanned {stats.planned_picks:,} picks, spent {spent:,}, left {stats.left_picks:,}{at_most}")
    if stats.unasked_answers:
        print(f"\n{stats.unasked_answers:,} further pixels are answered that no round of these asks for")


def _diff(arguments: argparse.Namespace) -> int:
    from ripu.labelstore import diff_stores

    diff = diff_stores(_open(arguments.run_a), _open(arguments.run_b))
    if arguments.json:
        _print_json(diff.to_json())
    else:
        _print_diff(diff)
    return 0


def _print_diff(diff: StoreDiff) -> None:
    def row(overlap: Any) -> list[str]:
        iou = "-" if overlap.iou is None else f"{100 * overlap.iou:.1f}%"
        return [f"{overlap.first:,}", f"{overlap.second:,}", f"{overlap.both:,}", iou]

    print(f"{diff.num_images} images in both, {len(diff.only_first)} only in A, {len(diff.only_second)} only in B\n")
    names = ["A", "B", "both", "IoU"]
    rounds = zip(diff.picks, diff.pixels, strict=True)
    _print_table(
        ["round", *(f"picks {name}" for name in names), *(f"pixels so far {name}" for name in names)],
        [[str(index), *row(picks), *row(pixels)] for index, (picks, pixels) in enumerate(rounds)],
    )
    print()
    _print_table(["class", *names], [[name, *row(overlap)] for name, overlap in diff.classes.items()])
    if diff.conflicts:
        print(f"\n{diff.conflicts:,} pixels are revealed with different labels")


def _export(arguments: argparse.Namespace) -> int:
    import numpy as np
    from PIL import Image

    from ripu.io.writing import write_bytes, write_json
    from ripu.labelstore import NO_ROUND, VOID

    store = _open(arguments.run)
    num_rounds = store.num_rounds if arguments.rounds is None else arguments.rounds
    taxonomy = known = None
    if arguments.colour or arguments.ids == "label" or arguments.taxonomy:
        taxonomy, known = _taxonomy(store, arguments.taxonomy, needs_ids=arguments.ids == "label")
    out: Path = arguments.out
    # Files are renamed into place: a link of that name is replaced, not followed.
    names: dict[str, str] = {}
    for number, image in enumerate(store.images):
        label = store.revealed_label(image.image_id, num_rounds)
        name = export_name(number, image.image_id)
        names[f"{name}.png"] = image.image_id
        if taxonomy is not None and arguments.colour:
            write_bytes(out / f"{name}_colour.png", _png(Image.fromarray(taxonomy.colorize(label))))
        if taxonomy is not None and arguments.ids == "label":
            is_revealed = store.revealed_round(image.image_id, num_rounds) != NO_ROUND
            label = np.where(is_revealed, _disk_ids(label, taxonomy, known), VOID).astype(np.uint8)
        write_bytes(out / f"{name}.png", _png(Image.fromarray(label)))
    write_json(out / "images.json", names)
    print(f"{out}: {len(names)} labels as of {num_rounds} rounds; images.json says which image each one is")
    return 0


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _disk_ids(label: NDArray[np.uint8], taxonomy: Taxonomy, known: Sequence[int] | None) -> NDArray[np.uint8]:
    """Ids as label files hold them; void is the smallest known id without a class, 255 where there is no other."""
    from ripu.labelstore import VOID

    ids = taxonomy.to_disk_ids(label)
    free = set(range(VOID) if known is None else known) - set(taxonomy.disk_to_train)
    ids[label == VOID] = min((one for one in free if 0 <= one < VOID), default=VOID)
    return ids


def _taxonomy(store: LabelStore, name: str | None, *, needs_ids: bool) -> tuple[Taxonomy, Sequence[int] | None]:
    """The class table of a store, and the ids that its label files may hold; None where they may hold any."""
    from ripu.datasets.taxonomy import TAXONOMIES
    from ripu.labelstore import LabelStoreError

    fitting = [table for table in TAXONOMIES.values() if table.class_names == store.class_names]
    chosen = [table for table in fitting if name is None or table.name == name]
    own = _described(store)
    if own is not None and name in (None, own[0].name):
        table, known = own
        if needs_ids and not table.disk_to_train:
            raise LabelStoreError(
                f"{store.path}: the labels of these data are colours (dataset.color_map) and have no ids; export train "
                "ids, or --colour"
            )
        return table, known
    if not chosen:
        names = [table.name for table in fitting] + ([] if own is None else [own[0].name])
        raise LabelStoreError(
            f"{store.path}: no class table {f'{name!r} ' if name else ''}with the classes of this store; "
            f"fitting ones: {', '.join(names) or 'none'} (train ids need no table)"
        )
    if needs_ids and len(chosen) > 1:  # the colours are the same
        raise LabelStoreError(
            f"{store.path}: several class tables have these classes; choose with --taxonomy "
            + " or ".join(table.name for table in chosen)
        )
    return chosen[0], None


def _described(store: LabelStore) -> tuple[Taxonomy, Sequence[int] | None] | None:
    """The class table that the run beside a store has for its target, and the ids in label files; None means any.

    A table of the package, or what the yaml of one's own data says of it. None where neither is there. Nothing that the
    file names is called.
    """
    from ripu.datasets.folder import make_taxonomy
    from ripu.datasets.taxonomy import TAXONOMIES, Taxonomy
    from ripu.io.reading import read_yaml

    try:
        dataset = read_yaml(store.path.parent / "config.yaml")["dataset"]
        target = dataset["target"]
        if isinstance(dataset["taxonomy"], str):
            known_table = TAXONOMIES.get(target.get("taxonomy") or dataset["taxonomy"])
            return None if known_table is None or known_table.class_names != store.class_names else (known_table, None)
        has_colors = target.get("color_map") is not None
        table = make_taxonomy(str(dataset["name"]), target["classes"], None if has_colors else target.get("ids"))
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return None  # not a run of ripu.datasets.folder
    if table.class_names != store.class_names:
        return None
    if has_colors:
        return Taxonomy(table.name, table.class_names, table.class_colors, {}), None
    void = target.get("ignore_ids")
    return table, None if void is None else [*table.disk_to_train, *void]


def _undo(arguments: argparse.Namespace) -> int:
    from ripu.labelstore import RoundOrderError

    with _open(arguments.run, write=True) as store:
        if not store.num_rounds:
            raise RoundOrderError(f"{store.path}: no round is committed, there is nothing to undo")
        spec = store.undo_round(store.num_rounds - 1)
        print(
            f"{store.path}: round {spec.index} (step {spec.step}) is undone; {store.num_rounds} rounds, answers are "
            "kept"
        )
    return 0


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        first, *rest = row
        print(
            "  ".join([first.ljust(widths[0]), *(v.rjust(w) for v, w in zip(rest, widths[1:], strict=True))]).rstrip()
        )


if __name__ == "__main__":
    sys.exit(main())
