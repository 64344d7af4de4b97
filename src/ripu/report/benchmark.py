"""The record of a benchmark as rows: means, standard deviations and paired differences over seeds. No torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ripu.io.errors import ConfigError
from ripu.io.reading import MOST_BYTES, open_regular
from ripu.report.tables import paper_rows

OURS = "RA RIPU"
"""The row that others are compared with."""

REFERENCE, SELF_TRAINING, SOURCE_FREE, ACTIVE, AFTER = (
    "reference",
    "self-training",
    "source-free",
    "active",
    "after RIPU",
)
KINDS = (REFERENCE, SELF_TRAINING, SOURCE_FREE, ACTIVE, AFTER)
_KIND_OF_SETTING = {
    "source_only": REFERENCE,
    "fully_supervised": REFERENCE,
    "unlabelled": SELF_TRAINING,
    "source_free": SOURCE_FREE,
    "source_free_unlabelled": SOURCE_FREE,
}


@dataclass(frozen=True)
class Published:
    """A system of the benchmark: its kind, and its method and budget in ``paper_tables.csv``, if it is there."""

    kind: str
    method: str = ""
    budget: str = ""


SYSTEMS: Mapping[str, Published] = {
    "source only": Published(REFERENCE, "Source Only"),
    "CBST": Published(SELF_TRAINING, "CBST"),
    "MRKLD": Published(SELF_TRAINING, "MRKLD"),
    "Seg-Uncertainty": Published(SELF_TRAINING, "Seg-Uncertainty"),
    "TPLD": Published(SELF_TRAINING, "TPLD"),
    "DPL-Dual": Published(SELF_TRAINING, "DPL-Dual"),
    "ProDA": Published(SELF_TRAINING),
    "ProDA stage 2": Published(SELF_TRAINING),
    "ProDA stage 3": Published(SELF_TRAINING, "ProDA"),
    "URMA": Published(SOURCE_FREE, "URMA", "–"),
    "LD": Published(SOURCE_FREE, "LD", "–"),
    "SFDA": Published(SOURCE_FREE, "SFDA", "–"),
    "source free": Published(SOURCE_FREE, "Ours (RA)", "2.2 %, source free"),
    "target only": Published(ACTIVE),
    "WeakDA points": Published(ACTIVE, "WeakDA (point)"),
    "LabOR points": Published(ACTIVE, "LabOR", "40 pixels"),
    "LabOR mask": Published(ACTIVE, "LabOR", "2.2 %"),
    "HALO": Published(ACTIVE),
    "PA random": Published(ACTIVE),
    "PA RIPU": Published(ACTIVE, "Ours (PA)", "40 pixels"),
    "RA random": Published(ACTIVE),
    "RA density": Published(AFTER),
    "RA teacher": Published(AFTER),
    OURS: Published(ACTIVE, "Ours (RA)", "2.2 %"),
    "AADA": Published(ACTIVE, "AADA", "5 %"),
    "MADA": Published(ACTIVE, "MADA", "5 %"),
    "RA RIPU at 5 %": Published(ACTIVE, "Ours (RA)", "5 %"),
    "all labels": Published(REFERENCE, "Fully Supervised", "100 %"),
}
"""Rows of the benchmark; the kind of a row that is not here is that of its setting."""


@dataclass(frozen=True)
class Spread:
    """Values of several seeds: mean, sample standard deviation (None for a single value) and number."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of some values; None without any.

        >>> Spread.of([1.0, 2.0, 6.0])
        Spread(mean=3.0, deviation=2.6457513110645907, count=3)
        """
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class BenchmarkRow:
    """A system on a data set, over its seeds; what the record does not know, or has not finished, is None.

    Attributes:
        name, kind, dataset, setting, mode: In words; a run without rounds has no mode.
        gtav, synthia: mIoU of the paper on Cityscapes (percent, 19 and 16 classes).
        miou: mIoU in percent.
        difference: mIoU minus that of :data:`OURS` with the same seed, in points; its number is that of the pairs.
        pixels, clicks, share: Target pixels asked about, labels that people had to give, and share of all target
            pixels (0 to 1): means over the seeds.
        seconds: Median time of a run.
        peak_gib: Largest peak memory in GiB: of the GPU where there is one, else of the process.
        curve: After each round, clicks and mIoU (percent), means over the seeds.
    """

    name: str
    kind: str
    dataset: str
    setting: str | None = None
    mode: str | None = None
    gtav: float | None = None
    synthia: float | None = None
    miou: Spread | None = None
    difference: Spread | None = None
    pixels: float | None = None
    clicks: float | None = None
    share: float | None = None
    seconds: float | None = None
    peak_gib: float | None = None
    curve: tuple[tuple[float, float], ...] = ()


Run = Mapping[str, Any]


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a record, as ``scripts/benchmark.py`` writes it.

    Raises:
        ConfigError: The file is missing or empty, or a line is damaged or no finished run.
    """
    if not path.is_file():
        cause = "is a folder" if path.is_dir() else "does not exist"
        remedy = "name a record of scripts/benchmark.py, such as docs/studies/benchmark.jsonl"
        raise ConfigError(f"{path} {cause}; {remedy}")
    with open_regular(path, MOST_BYTES) as file:
        lines = file.read().splitlines()
    runs = [_read_run(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not runs:
        raise ConfigError(f"{path} is empty: no run is finished; let scripts/benchmark.py finish one first")
    return runs


def _read_run(line: bytes, place: str) -> dict[str, Any]:
    remedy = "remove the line, and scripts/benchmark.py repeats its run, or restore the file from a copy"
    try:
        run = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:40].decode("utf-8", "replace")
        raise ConfigError(f"{place}: {shown!r} is not JSON ({error}); {remedy}") from error
    if not isinstance(run, dict):
        raise ConfigError(f"{place}: {str(run)[:40]!r} is not a run, and the file no record; {remedy}")
    for name, (is_needed, is_sound) in _FORM.items():
        if not is_needed and run.get(name) is None:
            continue
        if name not in run:
            raise ConfigError(f"{place} has no {name!r}, which every finished run of a record has; {remedy}")
        if not is_sound(run[name]):
            raise ConfigError(f"{place}: {name}={str(run[name])[:40]} is not what a record has there; {remedy}")
    for name in ("clicks", "pixels"):
        if run.get(name) is not None and len(run[name]) != len(run["rounds"]):
            raise ConfigError(f"{place}: {len(run[name])} values of {name}, but {len(run['rounds'])} rounds; {remedy}")
    return run


_LARGEST = 1e15  # of a figure; NaN and infinity are not below it


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_list_of(is_sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_sound, value))


def _is_table_of(is_sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_sound, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_is_round = _is_list_of(_is_number)
_FORM: Mapping[str, tuple[bool, Callable[[Any], bool]]] = {
    "row": (True, _is_text),
    "seed": (True, lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "overrides": (True, _is_list_of(_is_text)),
    "mIoU": (True, _is_number),
    "labelled_fraction": (True, _is_number),
    "seconds": (True, _is_table_of(_is_number)),
    "rounds": (True, _is_list_of(lambda value: _is_round(value) and len(value) == 3)),
    "setting": (False, _is_text),  # older records have none of what follows
    "mode": (False, _is_text),
    "clicks": (False, _is_list_of(_is_number)),
    "pixels": (False, _is_list_of(_is_number)),
    "peak_memory_gib": (False, _is_table_of(lambda value: value is None or _is_number(value))),
}
"""The entries of a run: if each must be there, and the check of its form."""


def make_rows(runs: Sequence[Run]) -> list[BenchmarkRow]:
    """Return every system of a record on every data set of it, by data set and in the order of :data:`SYSTEMS`.

    Of runs with the same row, data set and seed, the last counts. Others than those of :data:`SYSTEMS` come last.
    """
    found: dict[str, dict[str, dict[int, Run]]] = {}
    names = dict.fromkeys(run["row"] for run in runs)
    settings = {run["row"]: run["setting"] for run in runs if run.get("setting")}
    titles = dataset_names(runs)
    for run in runs:
        found.setdefault(titles[tuple(run["overrides"])], {}).setdefault(run["row"], {})[run["seed"]] = run
    ordered = [*(name for name in SYSTEMS if name in names), *(name for name in names if name not in SYSTEMS)]
    return [
        _row(name, dataset, settings.get(name), rows.get(name, {}), rows.get(OURS, {}))
        for dataset, rows in found.items()
        for name in ordered
    ]


def dataset_names(runs: Sequence[Run]) -> dict[tuple[str, ...], str]:
    """Return a name for each set of overrides: its data set, and what not all sets of the record have.

    >>> names = dataset_names([{"overrides": ["dataset=x"]}, {"overrides": ["dataset.b=2", "dataset=x"]}])
    >>> list(names.values())
    ['x', 'x, b=2']
    """
    every = list(dict.fromkeys(tuple(run["overrides"]) for run in runs))
    common = common_overrides(runs)
    found = {}
    for words in every:
        name = next((word.partition("=")[2] for word in words if word.startswith("dataset=")), "?")
        own = (word for word in words if word not in common and not word.startswith("dataset="))
        found[words] = ", ".join([name, *(word.removeprefix("dataset.") for word in own)])
    return found


def common_overrides(runs: Sequence[Run]) -> list[str]:
    """Return the overrides that all runs of a record share, except the data set."""
    sets = [set(run["overrides"]) for run in runs]
    return sorted(word for word in set.intersection(*sets) if not word.startswith("dataset="))


def _row(
    name: str, dataset: str, setting: str | None, mine: Mapping[int, Run], ours: Mapping[int, Run]
) -> BenchmarkRow:
    """Return a row from the runs of a system and of :data:`OURS` on one data set, by seed."""
    here = [mine[seed] for seed in sorted(mine)]
    known = SYSTEMS.get(name, Published("?" if setting is None else _KIND_OF_SETTING.get(setting, ACTIVE)))
    gtav, synthia = paper_figures(name)
    both = [] if name == OURS else sorted(mine.keys() & ours.keys())
    peaks = [peak for run in here if (peak := peak_of(run)) is not None]
    return BenchmarkRow(
        name=name,
        kind=known.kind,
        dataset=dataset,
        setting=setting,
        mode=next((run["mode"] for run in here if run["rounds"] and run.get("mode")), None),
        gtav=gtav,
        synthia=synthia,
        miou=Spread.of([run["mIoU"] for run in here]),
        difference=Spread.of([mine[seed]["mIoU"] - ours[seed]["mIoU"] for seed in both]),
        pixels=_mean([_last(run, "pixels") for run in here]),
        clicks=_mean([_last(run, "clicks") for run in here]),
        share=_mean([run["labelled_fraction"] for run in here]),
        seconds=statistics.median(sum(run["seconds"].values()) for run in here) if here else None,
        peak_gib=max(peaks, default=None),
        curve=_curve(here),
    )


def peak_of(run: Run) -> float | None:
    """Return the peak memory of a run in GiB: of its GPU if it had one, else of its process; None if it is unknown."""
    peaks = run.get("peak_memory_gib") or {}
    return peaks.get("process") if peaks.get("device") is None else peaks["device"]


def _last(run: Run, name: str) -> float | None:
    """Return what a run had spent after its last round; 0 for a run that was given no label."""
    if run["labelled_fraction"] == 0:
        return 0.0
    return run[name][-1] if run.get(name) else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if a value is missing, or all are."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _curve(runs: Sequence[Run]) -> tuple[tuple[float, float], ...]:
    """Return clicks and mIoU after each round that all runs have had, as means; empty if clicks are not recorded."""
    if not runs or not all(run.get("clicks") for run in runs):
        return ()
    each = [[(clicks, one[2]) for clicks, one in zip(run["clicks"], run["rounds"], strict=True)] for run in runs]
    return tuple(
        (statistics.fmean(clicks), statistics.fmean(mious))
        for clicks, mious in (zip(*points, strict=True) for points in zip(*each, strict=False))
    )


def paper_figures(name: str) -> tuple[float | None, float | None]:
    """Return mIoU of a system in the paper's Tables 1, 2 and 5, from GTAV and from SYNTHIA; None: not there."""
    known = SYSTEMS.get(name)
    if known is None or not known.method:
        return None, None
    gtav, synthia = (_published().get((known.method, known.budget, task)) for task in ("GTAV", "SYNTHIA"))
    return gtav, synthia


@cache
def _published() -> dict[tuple[str, str, str], float]:
    """Return mIoU by method, budget and task; of several networks, that which the paper names first."""
    found: dict[tuple[str, str, str], float] = {}
    for row in paper_rows():
        if row["table"] in ("1", "2", "5"):
            is_own_free = row["table"] == "5" and row["method"].startswith("Ours")
            budget = f"{row['budget']}, source free" if is_own_free else row["budget"]
            found.setdefault((row["method"], budget, row["task"]), float(row["mIoU"]))
    return found
