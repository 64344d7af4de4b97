"""The forecast of a run as a table that fits a screen."""

from __future__ import annotations

import shutil
import textwrap

from ripu.run.forecast.estimate import Forecast, Measured, Phase, number_of
from ripu.run.forecast.trial import STEPS

SECONDS_PER_QUESTION = 2
"""Time that a person takes for a pick, if one class fills it."""

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
    measured, spec = forecast.measured, forecast.measured.spec
    network = str(spec.model["_target_"]).rpartition(".")[2]
    device = f"{measured.world_size} x {measured.device}" if measured.world_size > 1 else measured.device
    source = f"{measured.num_source:,} source" if measured.num_source else "no source"
    memory = []
    for name, used in measured.memory.items():
        total = measured.memory_total.get(name)
        memory.append(f"{used:.2f} GiB of the {name}" + (f" (there are {total:.1f})" if total else ""))
    times = "; ".join(f"{name} {duration(seconds)}" for name, seconds in forecast.seconds.items())
    blocks = [
        [
            f"dry run: dataset={spec.dataset.name} mode={spec.mode} setting={spec.setting.name} "
            f"protocol={spec.protocol.name}, {network}, {spec.trainer.precision}, on {device}",
            f"{source}, {measured.num_target:,} target and {measured.num_val:,} validation images",
        ],
        _phase_lines(forecast),
        _asked_lines(forecast),
        _disk_lines(forecast),
        [f"memory  {', '.join(memory)}: the most in what was timed"],
        _wrapped("time", f"{duration(sum(forecast.seconds.values()))} ({times})"),
        _notes(forecast),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _phase_lines(forecast: Forecast) -> list[str]:
    lines = [f"{'steps':<17}{'number':>7}  {'images per step':<48}{'a step':>7}{'in all':>10}  then"]
    plan = forecast.measured.spec.plan
    if then := _ends(number_of(0, plan.selection_steps), number_of(0, plan.renewal_steps)):
        lines.append(f"{'before step 0':<17}{'':>7}  {'':<48}{'':>7}{'':>10}  {then}")
    for phase in forecast.phases:
        last = "test" if phase is forecast.phases[-1] else "evaluation"
        then = _ends(phase.round, phase.renewal) or last
        lines.append(
            f"{f'{phase.start:,} to {phase.stop:,}':<17}{phase.stop - phase.start:>7,}  {_data(forecast, phase):<48}"
            f"{duration(phase.step_seconds):>7}{duration(phase.seconds):>10}  {then}"
        )
    return lines


def _ends(round_number: int | None, renewal_number: int | None) -> str:
    """Return the names of a round and a renewal at the same step; empty without either."""
    named = {"round": round_number, "renewal": renewal_number}
    return ", ".join(f"{name} {number}" for name, number in named.items() if number is not None)


def _data(forecast: Forecast, phase: Phase) -> str:
    spec, data = forecast.measured.spec, forecast.measured.spec.data
    times = spec.trainer.accumulate * forecast.measured.world_size
    parts = []
    if forecast.measured.num_source:
        parts.append(f"{times * data.source_batch} source {data.source_size[0]}x{data.source_size[1]}")
    if phase.kind != "source":
        labels = {"all": ", labels", "revealed": ", revealed" if phase.kind in ("after", "renewed") else ""}
        shown = labels.get(spec.setting.target_labels, "")
        parts.append(f"{times * data.target_batch} target {data.target_size[0]}x{data.target_size[1]}{shown}")
    return " + ".join(parts)


def _asked_lines(forecast: Forecast) -> list[str]:
    budget, carried, spec = forecast.budget, forecast.measured.carried, forecast.measured.spec
    before = []
    if carried is not None:
        keys = " and ".join(f"start.{key}" for key in ("run", "labels") if getattr(spec.start, key) is not None)
        share = f"{100 * carried.share:.4g} % of the target pixels"
        before = [f"asked before: {share}, {carried.picks:,} picks ({keys}); not counted above"]
    if budget is None:
        every = spec.setting.target_labels == "all"
        return ["budget: " + ("every target label is known from the start" if every else "nothing is asked"), *before]
    rounds, picks = budget.rounds, (budget.image_round, budget.all_round, budget.all_round * budget.rounds)

    def row(name: str, image: tuple[int, int], each_round: int, total: int, factor: float = 1) -> str:
        ends = sorted(set(image))
        by_round, whole = (" to ".join(f"{end * times:,.0f}" for end in ends) for times in (factor, rounds * factor))
        return f"{name:<26}{by_round:>20}{whole:>16}{each_round * factor:>16,.0f}{total * factor:>16,.0f}"

    lines = [f"{f'budget ({rounds} rounds)':<26}{'image and round':>20}{'image':>16}{'round':>16}{'in all':>16}"]
    lines.append(row(budget.unit + ("" if budget.is_exact else " at most"), *picks))
    if budget.unit != "pixels":
        lines.append(row("pixels at most", budget.image_round_px, budget.all_round_px, budget.all_px))
    clicks = budget.clicks_per_pick
    if spec.person is not None:
        hours = budget.all_round * rounds * SECONDS_PER_QUESTION / 3600
        lines.append(
            f"people: {budget.all_round * rounds:,} questions, {hours:,.1f} h at {SECONDS_PER_QUESTION} s a question"
        )
    elif clicks is None:
        lines.append("clicks: none, nobody answers")
    else:
        lines.append(row("clicks" if budget.unit == "pixels" else f"clicks, {clicks:.2f} a region", *picks, clicks))
    shared = spec.query is not None and spec.query.budget_per != "image"
    kind = "; images share the budget, figures by image are means" if shared else ""
    return [*lines, f"{100 * budget.share:.4g} % of the target pixels{kind}", *before]


def _disk_lines(forecast: Forecast) -> list[str]:
    parts = "; ".join(f"{name} {size(count)}" for name, count in forecast.bytes.items())
    total = sum(forecast.bytes.values())
    # While a checkpoint is written, the one that it replaces still exists.
    most = total + forecast.measured.checkpoint_bytes
    folder = forecast.measured.spec.output_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    room = f"        at most {size(most)} at a time; {size(free)} are free{'  NOT ENOUGH' if free < most else ''}"
    return [*_wrapped("disk", f"{size(total)} ({parts})"), room]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name:<8}{text}", WIDTH, subsequent_indent=" " * 8)


def _looks(measured: Measured) -> str:
    plan = measured.spec.plan
    named = {"a round": plan.selection_steps, "a renewal": plan.renewal_steps}
    return "".join(f"{name} and " for name, steps in named.items() if steps)


def _notes(forecast: Forecast) -> list[str]:
    measured = forecast.measured
    notes = [
        f"Scaled from {STEPS - 1} steps of each kind, and {_looks(measured)}evaluations over a few images, under the "
        "present load of this machine. Nothing was kept."
    ]
    if any(phase.is_reading for phase in forecast.phases):
        notes.append("Steps wait for their images: more data.num_workers, or data.cache=FOLDER, makes them faster.")
    if measured.world_size > 1:
        notes.append(f"One process was measured; the exchange of {measured.world_size} in each step is left out.")
    if measured.spec.beginnings is not None:
        notes.append("paths.beginnings was not searched: a shared beginning saves the steps before the first round.")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]
