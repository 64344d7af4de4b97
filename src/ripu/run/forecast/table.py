"""The forecast of a run as a table that fits a screen."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from ripu.run.forecast.estimate import Forecast, Phase
from ripu.run.forecast.measured import Measured
from ripu.run.forecast.trial import STEPS

WIDTH = 104
"""Columns."""


def duration(seconds: float) -> str:
    """Return a time as text.

    >>> duration(0.25), duration(80), duration(4000), duration(80000)
    ('0.25 s', '80 s', '1.1 h', '22.2 h')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes as text.

    >>> size(900), size(2.5e6), size(1.2e11)
    ('0.9 kB', '2.5 MB', '120.0 GB')
    """
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def table(forecast: Forecast) -> str:
    """Return the forecast as some 35 lines of at most :data:`WIDTH` characters."""
    measured = forecast.measured
    blocks = [
        _head(measured),
        _phase_lines(forecast),
        [*_asked_lines(forecast), *_carried_lines(measured)],
        _disk_lines(forecast),
        _memory_lines(measured),
        _time_lines(forecast),
        _notes(forecast),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _head(measured: Measured) -> list[str]:
    spec = measured.spec
    network = str(spec.model["_target_"]).rpartition(".")[2]
    where = f"{measured.world_size} x {measured.device}" if measured.world_size > 1 else measured.device
    images = f"{measured.num_target:,} target and {measured.num_val:,} validation images"
    return [
        f"dry run: dataset={spec.dataset.name} mode={spec.mode} setting={spec.setting.name} "
        f"protocol={spec.protocol.name}, {network}, {spec.trainer.precision}, on {where}",
        f"{measured.num_source:,} source, {images}" if measured.num_source else f"no source, {images}",
    ]


def _phase_lines(forecast: Forecast) -> list[str]:
    lines = [f"{'steps':<17}{'number':>7}  {'images a step':<48}{'a step':>7}{'in all':>10}  then"]
    if forecast.first_round:
        lines.append(f"{'before step 0':<17}{'':>7}  {'':<48}{'':>7}{'':>10}  round 1")
    for phase in forecast.phases:
        last = "test" if phase is forecast.phases[-1] else "evaluation"
        then = f"round {phase.round}" if phase.round else last
        lines.append(
            f"{f'{phase.start:,} to {phase.stop:,}':<17}{phase.stop - phase.start:>7,}  {_data(forecast, phase):<48}"
            f"{duration(phase.step_seconds):>7}{duration(phase.seconds):>10}  {then}"
        )
    return lines


def _data(forecast: Forecast, phase: Phase) -> str:
    spec, world = forecast.measured.spec, forecast.measured.world_size
    times = spec.trainer.accumulate * world
    parts = []
    if forecast.measured.num_source:
        parts.append(f"{times * spec.data.source_batch} source {_pixels(spec.data.source_size)}")
    if phase.kind != "source":
        labels = {"all": ", labels", "revealed": ", revealed" if phase.kind == "after" else ""}
        shown = labels.get(spec.setting.target_labels, "")
        parts.append(f"{times * spec.data.target_batch} target {_pixels(spec.data.target_size)}{shown}")
    return " + ".join(parts)


def _pixels(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"


def _carried_lines(measured: Measured) -> list[str]:
    one = measured.carried
    if one is None:
        return []
    keys = " and ".join(f"start.{key}" for key in ("run", "labels") if getattr(measured.spec.start, key) is not None)
    return [
        f"asked before: {100 * one.share:.4g} % of the target pixels, {one.picks:,} picks ({keys}); not counted above"
    ]


def _asked_lines(forecast: Forecast) -> list[str]:
    budget, measured = forecast.budget, forecast.measured
    if budget is None:
        every = measured.spec.setting.target_labels == "all"
        return ["budget: " + ("every target label is known from the start" if every else "nothing is asked")]
    rounds, image = budget.rounds, budget.image_round
    lines = [f"{f'budget ({rounds} rounds)':<26}{'image and round':>20}{'image':>16}{'round':>16}{'in all':>16}"]
    most = "" if budget.is_exact else " at most"
    lines.append(_row(budget.unit + most, image, budget.all_round, budget.all_round * rounds, rounds))
    if budget.unit == "regions":
        lines.append(_row("pixels at most", budget.image_round_px, budget.all_round_px, budget.all_px, rounds))
    clicks = budget.clicks_per_pick
    if clicks is None:
        lines.append("clicks: none, nobody answers")
    else:
        name = "clicks" if budget.unit == "pixels" else f"clicks, {clicks:.2f} a region"
        lines.append(_row(name, image, budget.all_round, budget.all_round * rounds, rounds, clicks))
    shared = measured.spec.query is not None and measured.spec.query.budget_per != "image"
    kind = "; images share the budget, figures by image are means" if shared else ""
    lines.append(f"{100 * budget.share:.4g} % of the target pixels{kind}")
    return lines


def _row(name: str, image: tuple[int, int], each_round: int, total: int, rounds: int, factor: float = 1) -> str:
    cells = [_range(image, factor), _range(image, rounds * factor), f"{each_round * factor:,.0f}"]
    return f"{name:<26}{cells[0]:>20}{cells[1]:>16}{cells[2]:>16}{total * factor:>16,.0f}"


def _range(ends: tuple[int, int], factor: float) -> str:
    return " to ".join(f"{end * factor:,.0f}" for end in sorted(set(ends)))


def _disk_lines(forecast: Forecast) -> list[str]:
    parts = "; ".join(f"{name} {size(count)}" for name, count in forecast.bytes.items())
    # While a checkpoint is written, the one that it replaces is still there.
    total = sum(forecast.bytes.values())
    most = total + forecast.measured.checkpoint_bytes
    free = _free(forecast.measured.spec.output_dir)
    short = "  NOT ENOUGH" if free < most else ""
    room = f"        at most {size(most)} at a time; {size(free)} are free{short}"
    return [*_wrapped("disk", f"{size(total)} ({parts})"), room]


def _free(folder: Path) -> int:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _memory_lines(measured: Measured) -> list[str]:
    parts = []
    for name, used in measured.memory.items():
        total = measured.memory_total.get(name)
        parts.append(f"{used:.2f} GiB of the {name}" + (f" (there are {total:.1f})" if total else ""))
    return [f"memory  {', '.join(parts)}: the most in what was timed"]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name:<8}{text}", WIDTH, subsequent_indent=" " * 8)


def _time_lines(forecast: Forecast) -> list[str]:
    parts = "; ".join(f"{name} {duration(seconds)}" for name, seconds in forecast.seconds.items())
    return _wrapped("time", f"{duration(sum(forecast.seconds.values()))} ({parts})")


def _notes(forecast: Forecast) -> list[str]:
    measured = forecast.measured
    notes = [
        f"Scaled from {STEPS - 1} steps of each kind, and a round and evaluations over a few images, under the present "
        "load of this machine. Nothing was kept."
    ]
    if any(phase.is_reading for phase in forecast.phases):
        notes.append("Steps wait for their images: more data.num_workers, or data.cache=FOLDER, makes them faster.")
    if measured.world_size > 1:
        notes.append(f"One process was measured; the exchange of {measured.world_size} in each step is left out.")
    if measured.spec.beginnings is not None:
        notes.append("paths.beginnings was not searched: a shared beginning saves the steps before the first round.")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]
