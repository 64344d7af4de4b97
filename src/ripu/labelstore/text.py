"""The accounts and the comparison of stores as text tables."""

from __future__ import annotations

from collections.abc import Sequence

from ripu.labelstore.accounts import StoreStats, Tally
from ripu.labelstore.compare import Overlap, StoreDiff


def stats_text(stats: StoreStats, with_images: bool) -> str:
    """Return the tables of a store's account.

    Args:
        stats: The account.
        with_images: Add a line per image.
    """
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
        [str(one.spec.index), f"{one.spec.step:,}", f"{one.spec.budget:,}", *row(one.tally, one.left_picks)]
        for one in stats.rounds
    ]
    if stats.carried.picks:
        rounds.insert(0, ["before", "", "", *row(stats.carried, None)])
    rounds.append(["all", "", "", *row(stats.total, stats.left_picks)])
    labelled = max(sum(stats.total.class_pixels), 1)
    classes = [
        [name, f"{pixels:,}", f"{100 * pixels / labelled:.2f}%", f"{clicks:,}"]
        + [f"{one.tally.class_pixels[number]:,}" for one in stats.rounds]
        for number, (name, pixels, clicks) in enumerate(
            zip(stats.class_names, stats.total.class_pixels, stats.total.class_clicks, strict=True)
        )
    ]
    parts = [
        _table(["round", "step", "budget/image", *names], rounds),
        _table(["class", "pixels", "share", "clicks", *(f"round {one.spec.index}" for one in stats.rounds)], classes),
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
        parts.append(f"{stats.unasked_answers:,} further pixels are answered that none of these rounds asks for")
    return "\n\n".join(parts)


def diff_text(diff: StoreDiff) -> str:
    """Return the tables of a comparison."""

    def row(overlap: Overlap) -> list[str]:
        iou = "-" if overlap.iou is None else f"{100 * overlap.iou:.1f}%"
        return [f"{overlap.first:,}", f"{overlap.second:,}", f"{overlap.both:,}", iou]

    names = ["A", "B", "both", "IoU"]
    rounds = enumerate(zip(diff.picks, diff.pixels, strict=True))
    parts = [
        f"{diff.num_images} images in both, {len(diff.only_first)} only in A, {len(diff.only_second)} only in B",
        _table(
            ["round", *(f"picks {name}" for name in names), *(f"pixels so far {name}" for name in names)],
            [[str(index), *row(picks), *row(pixels)] for index, (picks, pixels) in rounds],
        ),
        _table(["class", *names], [[name, *row(overlap)] for name, overlap in diff.classes.items()]),
    ]
    if diff.conflicts:
        parts.append(f"{diff.conflicts:,} pixels are revealed with different labels")
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))]
        for first, *rest in (head, *rows)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
