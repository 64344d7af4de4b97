"""Rows of tables: finished runs that differ only in the seed. No torch."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ripu.report.collect import RunRecord, is_below, number, title_words

_CHOSEN = ("objective", "optimizer", "trainer", "data", "model")
"""Keys that are not copies of each other, though their values may be equal."""

TITLE = ("dataset", "mode", "setting", "acquisition", "budget")


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed."""

    title: Mapping[str, str]  # data set, mode, setting, acquisition, budget
    also: Mapping[str, Any]  # further keys in which rows of the same title differ, with this row's values
    runs: tuple[RunRecord, ...]  # one run per seed, by seed

    @property
    def seeds(self) -> list[int | None]:
        """The seeds."""
        return [run.seed for run in self.runs]

    def values(self, name: str, class_name: str | None = None) -> list[float]:
        """Return a figure of every run that has it, e.g. ``mIoU``, or the IoU of a class."""
        found = []
        for run in self.runs:
            scores = run.results if class_name is None else run.results.get(name) or {}
            value = scores.get(class_name or name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.append(float(value))
        return found

    @property
    def class_names(self) -> list[str]:
        """Every class of its runs, in their order."""
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys(run.results.get("per_class_iou") or {})
        return list(names)


def mean_std(values: Sequence[float], digits: int = 1) -> str:
    """Format mean and sample standard deviation; only the mean for one value, a dash for none.

    >>> mean_std([1.0, 2.0])
    '1.5 ± 0.7'
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def make_rows(records: Sequence[RunRecord]) -> tuple[list[Row], list[str]]:
    """Put finished runs into rows.

    Runs share a row if all compared keys are equal. A run that they start from (:data:`STARTS`) counts by its own
    configuration. If that cannot be read, and for masks, only its existence counts; its name counts if runs of one seed
    start from different ones. Rows of the same title that differ in another key get that key beside the title.

    Returns:
        The rows, sorted by title, and a note for every run that is in none and every seed that a row lacks.
    """
    notes = [f"{one.run}: {one.problem}" for one in records if one.problem]
    by_title: dict[str, list[list[RunRecord]]] = {}
    for group in _alike([one for one in records if one.results]):
        by_title.setdefault(json.dumps(group[0].title), []).append(group)
    rows = []
    for similar in by_title.values():
        keys = differing([group[0].compared for group in similar if group[0].config])
        for group in similar:
            also = {key: group[0].compared.get(key, "not set") for key in keys}
            if not group[0].config:
                also = {"config.yaml": "unknown"} if len(similar) > 1 else {}
            runs: dict[int | None, RunRecord] = {}
            for one in group:
                if one.seed in runs:
                    notes.append(f"{one.run}: seed {one.seed} again, as in {runs[one.seed].run}; the first counts")
                else:
                    runs[one.seed] = one
            by_seed = sorted(runs.values(), key=lambda run: (run.seed is None, run.seed))
            rows.append(Row(group[0].title, also, tuple(by_seed)))
    settings = ("source_only", "active", "source_free", "target_only", "fully_supervised")

    def order(row: Row) -> tuple[Any, ...]:
        title = row.title
        place = settings.index(title["setting"]) if title["setting"] in settings else len(settings)
        keys = [title[key] for key in TITLE]
        return title["dataset"], place, *keys, not row.runs[0].config, _by_number(str(dict(row.also)))

    rows.sort(key=order)
    for dataset in dict.fromkeys(row.title["dataset"] for row in rows):
        own = [row for row in rows if row.title["dataset"] == dataset]
        every = {seed for row in own for seed in row.seeds if seed is not None}
        for row in own:
            if missing := sorted(every - set(row.seeds)):
                notes.append(f"{row_name(row)}: no finished run of seed {', '.join(map(str, missing))}")
    return rows, notes


def _alike(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    found = []
    for group in _by_compared(records):
        named = _by_compared([replace(one, names_start=True) for one in group])
        seeds = [seed for part in named for seed in {one.seed for one in part}]
        found += named if len(set(seeds)) < len(seeds) else [group]
    return found


def _by_compared(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for one in records:
        groups.setdefault(json.dumps([one.title, one.compared], sort_keys=True, default=str), []).append(one)
    return list(groups.values())


def _by_number(text: str) -> list[str | float]:
    """Return a key that sorts the numbers in texts by their value.

    >>> sorted(["k=16", "k=2", "rate=1e-3", "rate=5e-4"], key=_by_number)
    ['k=2', 'k=16', 'rate=5e-4', 'rate=1e-3']
    """
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that tell flat configurations apart.

    These are the keys with more than one value. Of keys whose values always agree (interpolated copies) only the
    shortest is kept. Arguments of different classes (``region.width`` beside ``region._target_``) and settings of
    different runs to start from (``start.run.seed`` beside ``start.run``) are kept only if they differ within one class
    or one such run.

    >>> differing([{"region._target_": "Square", "region.k": 1}, {"region._target_": "Superpixels", "region.n": 9}])
    ['region._target_']
    >>> differing([{"objective.a": 0, "objective.b": 0}, {"objective.a": 1, "objective.b": 1}])
    ['objective.a', 'objective.b']
    """
    keys = sorted({key for config in configs for key in config}, key=lambda key: (len(key), key))
    columns = {key: [json.dumps(config.get(key), default=str) for config in configs] for key in keys}
    found: list[str] = []
    for key, values in columns.items():
        classes = columns.get(_owner(key, columns), [""] * len(configs))
        by_class: dict[str, set[str]] = {}
        for kind, value in zip(classes, values, strict=True):
            by_class.setdefault(kind, set()).add(value)
        if all(len(own) == 1 for own in by_class.values()):
            continue
        is_argument = len(by_class) > 1
        owners = {kind for kind, config in zip(classes, configs, strict=True) if key in config or not is_argument}
        places = [place for place, kind in enumerate(classes) if kind in owners or not is_argument]
        alike = [other for other in found if all(columns[other][place] == values[place] for place in places)]
        if not any(not (is_below(key, _CHOSEN) and is_below(other, _CHOSEN)) for other in alike):
            found.append(key)
    return sorted(found)


def _owner(key: str, keys: Collection[str]) -> str:
    """Return the key that a key belongs to, such as the class of an argument or the run of a setting; else ''."""
    node = key.rpartition(".")[0]
    if f"{node}._target_" in keys and key != f"{node}._target_":
        return f"{node}._target_"
    while node and node not in keys:
        node = node.rpartition(".")[0]
    return node


def row_name(row: Row, beside: Sequence[Row] | None = None) -> str:
    """Name a row by what tells it from the rows ``beside`` it; without these, from all rows of its title."""
    return " ".join([title_words(row.title), *differences(row, beside)])


def differences(row: Row, beside: Sequence[Row] | None = None) -> list[str]:
    """Return KEY=VALUE for what tells a row from those beside it; empty if it is the only one."""
    also = row.also
    if beside is not None and row.runs[0].config:
        keys = differing([one.runs[0].compared for one in beside if one.runs[0].config])
        also = {key: row.runs[0].compared.get(key, "not set") for key in keys}
    elif beside is not None and len(beside) == 1:
        also = {}
    return [f"{key}={number(value)}" for key, value in also.items()]
