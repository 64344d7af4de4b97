"""Finds runs below folders, reads them, and puts those that differ in the seed alone into one row. No torch."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ripu.io.reading import read_json, read_yaml

NOT_COMPARED = (
    "seed",
    "resume",
    "paths",
    "logger",
    "checkpoint",
    "trainer.accelerator",
    "trainer.devices",  # compared is the number of processes
    "trainer.timeout_minutes",
    "trainer.log_every_n_steps",
    "trainer.deterministic",
    "trainer.channels_last",
    "trainer.compile",
    "evaluation.batch",
    "evaluation.save_predictions",
    "evaluation.pictures",
    "evaluation.gallery",
    "data.num_workers",
    "data.cache",
    "dataset.recipe.region_side",  # what these decide stands in region, and older runs lack them
    "dataset.recipe.region_pixels",
)
"""Keys that say where and how fast a run goes, not what it learns."""

STARTS = ("start.run", "start.labels", "model.checkpoint")
"""Keys that name what a run begins with; it is compared by what it is, and not by where it lies."""

SETTINGS_WITHOUT_ROUNDS = ("source_only", "fully_supervised")
"""Settings that ask for nothing; mode, score and budget say nothing about them."""

_CHOSEN = ("objective", "optimizer", "trainer", "data", "model")
"""Keys of which none is a copy of another, though their values may be alike."""

_WITHOUT_ROUNDS = ("mode", "region", "acquisition", "budget", "selection_steps", "dataset.static_mask")
_TITLE = ("dataset", "mode", "setting", "acquisition", "budget")


@dataclass(frozen=True)
class RunRecord:
    """A run as far as tables need it.

    Attributes:
        run: Its folder.
        results: The content of ``results.json``; None where it is missing or damaged.
        config: The leaves of ``config.yaml`` by dotted key; empty where it is missing.
        problem: Why there are no results, in a few words; empty where there are.
        parent: The run that it begins from (``start.run``, ``model.checkpoint``), without results; None where its
            ``config.yaml`` cannot be read.
        names_start: Whether what it begins with is compared by name where nothing more is known of it.
    """

    run: Path
    results: Mapping[str, Any] | None
    config: Mapping[str, Any]
    problem: str = ""
    parent: RunRecord | None = None
    names_start: bool = False

    @property
    def seed(self) -> int | None:
        """The training seed."""
        value = (self.results or {}).get("seed", self.config.get("seed"))
        return None if value is None else int(value)

    @property
    def title(self) -> dict[str, str]:
        """Data set, mode, setting, acquisition and budget; a dash where a run without rounds has no use for one."""
        results, config = self.results or {}, self.config
        setting = str(results.get("setting", config.get("setting.name", "?")))
        target = str(config.get("acquisition._target_", "?")).rpartition(".")[2]
        has_rounds = setting not in SETTINGS_WITHOUT_ROUNDS and config.get("selection_steps") != []
        given = {
            "dataset": str(results.get("dataset", config.get("dataset.name", "?"))),
            "mode": str(results.get("mode", config.get("mode.name", "?"))),
            "setting": setting,
            "acquisition": str(results.get("acquisition", target)),
            "budget": number(results.get("budget", config.get("budget"))),
        }
        return given if has_rounds else given | dict.fromkeys(("mode", "acquisition", "budget"), "–")

    @property
    def compared(self) -> dict[str, Any]:
        """The leaves that a row's runs have in common, those of the run that it begins from behind the key that names it."""
        unused = _WITHOUT_ROUNDS if self.title["mode"] == "–" else ()
        found = {
            key: value
            for key, value in self.config.items()
            if value is not None and not _is_in(key, (*NOT_COMPARED, *unused)) and not key.endswith(".root")
        }
        if (self.results or {}).get("processes", 1) != 1:  # a step is of as many times more images
            found["processes"] = self.results["processes"]  # type: ignore[index]
        if not self.names_start:
            found |= {key: "given" for key in STARTS if key in found}
        if self.parent is not None:
            key, _ = _parent_of(self.config)
            file = f"{Path(str(self.config[key])).name} of " if key == "model.checkpoint" else ""
            found |= {key: file + _words(self.parent.title)}
            found |= {f"{key}.{name}": value for name, value in self.parent.compared.items()}
        return found


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed.

    Attributes:
        title: Data set, mode, setting, acquisition, budget.
        also: Further keys in which rows of the same title differ, with this row's values.
        runs: One run a seed, by seed.
    """

    title: Mapping[str, str]
    also: Mapping[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def seeds(self) -> list[int | None]:
        """The seeds."""
        return [run.seed for run in self.runs]

    def values(self, name: str, class_name: str | None = None) -> list[float]:
        """A figure of every run that has it, e.g. ``mIoU``, or the IoU of a class."""
        found = []
        for run in self.runs:
            results = run.results or {}
            value = results.get(name) if class_name is None else (results.get("per_class_iou") or {}).get(class_name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.append(float(value))
        return found

    @property
    def class_names(self) -> list[str]:
        """Every class of its runs, in their order."""
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys((run.results or {}).get("per_class_iou") or {})
        return list(names)


def number(value: Any) -> str:
    """A number, or anything else, for a table."""
    if value is None:
        return "?"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def mean_std(values: Sequence[float], digits: int = 1) -> str:
    """Mean and sample standard deviation; the mean alone of one value, a dash of none.

    >>> mean_std([1.0, 2.0])
    '1.5 ± 0.7'
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def find_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Every run in or below folders, in the order of their names.

    Raises:
        ValueError: A folder does not exist, or there is no run in any.
    """
    found: dict[Path, None] = {}
    given = list(folders)
    for folder in given:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; name output folders of ripu.train, or a parent of such")
        paths = [path.parent for name in ("results.json", "config.yaml") for path in folder.rglob(name)]
        found |= dict.fromkeys(sorted(path for path in paths if ".hydra" not in path.parts))
    if not found:
        listed = ", ".join(map(str, given))
        raise ValueError(
            f"no run in {listed}: neither results.json nor config.yaml is there; name output folders of ripu.train"
        )
    return [read_record(run) for run in sorted(found)]


def read_record(run: Path) -> RunRecord:
    """Read a run; what is wrong with it is said in the record."""
    config, problem = _read_config(run)
    path = run / "results.json"
    if not path.exists():
        return RunRecord(run, None, config, _why_unfinished(run))
    try:
        results = read_json(path)
    except (ValueError, OSError):
        return RunRecord(run, None, config, "results.json cannot be read")
    if not _is_sound(results):
        return RunRecord(run, None, config, "results.json is not one of ripu.train")
    return RunRecord(run, results, config, "" if config else problem, _read_parent(config, [run]))


def _read_config(run: Path) -> tuple[dict[str, Any], str]:
    """The leaves of a run's ``config.yaml``, and why there are none, in a few words."""
    try:
        if not (run / "config.yaml").is_file():
            return {}, "no config.yaml"
        return leaves(read_yaml(run / "config.yaml")), ""
    except (RecursionError, AttributeError, ValueError, OSError):
        return {}, "config.yaml cannot be read"


def _read_parent(config: Mapping[str, Any], children: Sequence[Path]) -> RunRecord | None:
    """The run that a configuration begins from; None where there is none to be read, or one that begins from itself."""
    _, folder = _parent_of(config)
    if folder is None or folder.absolute() in [child.absolute() for child in children]:
        return None
    own, _ = _read_config(folder)
    return RunRecord(folder, None, own, parent=_read_parent(own, [*children, folder])) if own else None


def _parent_of(config: Mapping[str, Any]) -> tuple[str, Path | None]:
    """The key that names the run that a configuration begins from, and that run's folder, if there can be one."""
    if config.get("start.run"):
        return "start.run", Path(str(config["start.run"]))
    file = Path(str(config.get("model.checkpoint") or ""))
    return "model.checkpoint", file.parent.parent if file.parent.name == "checkpoints" else None


def _is_sound(results: Any) -> bool:
    """Whether a file's content has the form of ``results.json``, as far as reports read it; parts may be missing."""
    if not isinstance(results, dict):
        return False
    miou = results.get("mIoU")
    if isinstance(miou, bool) or not isinstance(miou, (int, float)) or not math.isfinite(miou):
        return False
    entries = [results.get(name) or [] for name in ("rounds", "evaluations")]
    return isinstance(results.get("per_class_iou") or {}, dict) and all(
        isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in entries
    )


def _why_unfinished(run: Path) -> str:
    """What the last line of the run's log says, where there is a log."""
    for name in ("log.txt", "train.log"):
        path = run / name
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if re.match(r"(error:|\w*Error)", last):
            return f"failed: {last[:160]}"
    return "unfinished"


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        flat |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _is_in(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def make_rows(records: Sequence[RunRecord]) -> tuple[list[Row], list[str]]:
    """Put finished runs into rows.

    Runs share a row if all that they could differ in is equal, but for :data:`NOT_COMPARED`. A run that they begin from
    (:data:`STARTS`) counts by its own configuration; where that cannot be read, and of masks, it counts that there is one,
    and its name only where runs of one seed begin with different ones. Rows of the same title that differ in another key
    get that key beside the title.

    Returns:
        The rows, sorted by title, and a note for every run that is in none and every seed that a row lacks.
    """
    notes = [f"{one.run}: {one.problem}" for one in records if one.problem]
    by_title: dict[str, list[list[RunRecord]]] = {}
    for group in _alike([one for one in records if one.results is not None]):
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
            rows.append(
                Row(group[0].title, also, tuple(sorted(runs.values(), key=lambda run: (run.seed is None, run.seed))))
            )
    rows.sort(key=lambda row: (*_order(row.title), not row.runs[0].config, _by_number(str(dict(row.also)))))
    for dataset in dict.fromkeys(row.title["dataset"] for row in rows):
        own = [row for row in rows if row.title["dataset"] == dataset]
        every = {seed for row in own for seed in row.seeds if seed is not None}
        for row in own:
            missing = sorted(every - set(row.seeds))
            if missing:
                notes.append(f"{row_name(row)}: no finished run of seed {', '.join(map(str, missing))}")
    return rows, notes


def _alike(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs by what they have in common; see :func:`make_rows`."""
    found = []
    for group in _by_compared(records):
        named = _by_compared([replace(one, names_start=True) for one in group])
        seeds = [seed for part in named for seed in {one.seed for one in part}]
        found += named if len(set(seeds)) < len(seeds) else [group]
    return found


def _by_compared(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for one in records:
        key = json.dumps([one.title, one.compared], sort_keys=True, default=str)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _by_number(text: str) -> list[str | float]:
    """A key that sorts the numbers in texts by what they are worth.

    >>> sorted(["k=16", "k=2", "rate=1e-3", "rate=5e-4"], key=_by_number)
    ['k=2', 'k=16', 'rate=5e-4', 'rate=1e-3']
    """
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]


def _order(title: Mapping[str, str]) -> tuple[Any, ...]:
    settings = ("source_only", "active", "source_free", "fully_supervised")
    place = settings.index(title["setting"]) if title["setting"] in settings else len(settings)
    return title["dataset"], place, *(title[key] for key in _TITLE)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that tell apart what configurations ask for.

    Args:
        configs: Flat configurations.

    Returns:
        Keys with more than one value; of those that always have the same one (interpolated copies) the shortest, and of
        the arguments of different classes (``region.width`` beside ``region._target_``) and the settings of different
        runs to begin from (``start.run.seed`` beside ``start.run``) those alone that differ within a class or such runs.

    >>> differing([{"region._target_": "Square", "region.radius": 1}, {"region._target_": "Superpixels", "region.n": 9}])
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
        if not any(not (_is_in(key, _CHOSEN) and _is_in(other, _CHOSEN)) for other in alike):
            found.append(key)
    return sorted(found)


def _owner(key: str, keys: Collection[str]) -> str:
    """The key that says what another one belongs to: the class of an argument, or the run of a setting; or nothing."""
    node = key.rpartition(".")[0]
    if f"{node}._target_" in keys and key != f"{node}._target_":
        return f"{node}._target_"
    while node and node not in keys:
        node = node.rpartition(".")[0]
    return node


def row_name(row: Row, beside: Sequence[Row] | None = None) -> str:
    """A row in words.

    Args:
        row: A row.
        beside: The rows that it is to be told from; without, all that it was made with.
    """
    return " ".join([_words(row.title), *_pairs(row.also if beside is None else _also_beside(row, beside))])


def _words(title: Mapping[str, str]) -> str:
    return " ".join(value for value in title.values() if value != "–")


def differences(row: Row, beside: Sequence[Row]) -> str:
    """What tells a row from those beside it; empty for one alone."""
    return ", ".join(_pairs(_also_beside(row, beside)))


def _also_beside(row: Row, beside: Sequence[Row]) -> Mapping[str, Any]:
    configs = [one.runs[0].compared for one in beside if one.runs[0].config]
    if not row.runs[0].config:
        return row.also if len(beside) > 1 else {}
    return {key: row.runs[0].compared.get(key, "not set") for key in differing(configs)}


def _pairs(also: Mapping[str, Any]) -> list[str]:
    return [f"{key}={number(value)}" for key, value in also.items()]
