"""Runs below folders, read as far as tables need them. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.io.errors import ConfigError
from ripu.io.reading import read_json

ReadConfig = Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]
"""Reads a ``config.yaml``: all values by dotted key, and those in which the runs of a row agree.

Commands pass :func:`ripu.config.migrate.read_values`, which stands above reports.
"""

STARTS = ("start.run", "start.labels", "model.checkpoint")
"""Keys that name the start of a run; it is compared by its content and not by its place."""

SETTINGS_WITHOUT_ROUNDS = ("source_only", "fully_supervised", "unlabelled", "source_free_unlabelled")
"""Settings that query nothing; mode, score and budget mean nothing for them."""

_WITHOUT_ROUNDS = ("mode", "region", "acquisition", "first_round", "budget", "selection_steps", "dataset.static_mask")


@dataclass(frozen=True)
class RunRecord:
    """A run, as far as tables need it."""

    run: Path
    results: Mapping[str, Any]  # the content of results.json; empty if it is missing or damaged
    config: Mapping[str, Any]  # the values of config.yaml by dotted key; empty if it is missing
    settings: Mapping[str, Any]  # those of them in which the runs of a row agree
    problem: str = ""  # a short reason why there are no results
    # The run that it starts from (start.run, model.checkpoint), without results; None if its config.yaml is unreadable.
    parent: RunRecord | None = None
    names_start: bool = False  # a start of which nothing more is known is compared by its name

    @property
    def seed(self) -> int | None:
        """The training seed."""
        value = self.results.get("seed", self.config.get("seed"))
        return None if value is None else int(value)

    @property
    def title(self) -> dict[str, str]:
        """Data set, mode, setting, acquisition and budget; a run without rounds has a dash where one means nothing."""
        results, config = self.results, self.config
        setting = str(results.get("setting", config.get("setting.name", "?")))
        method = str(results.get("method", config.get("method.name", "ripu")))
        scores = {
            name: str(config[f"{name}._target_"]).rpartition(".")[2]
            for name in ("acquisition", "first_round")
            if f"{name}._target_" in config
        }
        has_rounds = setting not in SETTINGS_WITHOUT_ROUNDS and config.get("selection_steps") != []
        given = {
            "dataset": str(results.get("dataset", config.get("dataset.name", "?"))),
            "mode": str(results.get("mode", config.get("mode.name", "?"))),
            "setting": setting if method == "ripu" else f"{setting}, {method}",
            "acquisition": score_words({"acquisition": "?", **scores, **results}),
            "budget": number(results.get("budget", config.get("budget"))),
        }
        return given if has_rounds else given | dict.fromkeys(("mode", "acquisition", "budget"), "–")

    @property
    def compared(self) -> dict[str, Any]:
        """Return the leaves on which the runs of a row agree; those of its start run follow the key that names it."""
        unused = _WITHOUT_ROUNDS if self.title["mode"] == "–" else ()
        found = {key: value for key, value in self.settings.items() if value is not None and not is_below(key, unused)}
        if (processes := self.results.get("processes", 1)) != 1:  # a step is that many times as many images
            found["processes"] = processes
        if not self.names_start:
            found |= {key: "given" for key in STARTS if key in found}
        if self.parent is not None:
            key, _ = _parent_of(self.config)
            file = f"{Path(str(self.config[key])).name} of " if key == "model.checkpoint" else ""
            found[key] = file + title_words(self.parent.title)
            found |= {f"{key}.{name}": value for name, value in self.parent.compared.items()}
        return found


def score_words(results: Mapping[str, Any]) -> str:
    """Return the name of the score of a run, after that of its first round if it is another one.

    >>> score_words({"acquisition": "RipuScore", "first_round": "RandomScore"})
    'RandomScore, then RipuScore'
    """
    first = results.get("first_round")
    return f"{first}, then {results['acquisition']}" if first else str(results["acquisition"])


def number(value: Any) -> str:
    """Format a number, or anything else, for a table."""
    if value is None:
        return "?"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def find_runs(folders: Iterable[Path], read_config: ReadConfig) -> list[RunRecord]:
    """Read every run in or below folders, in the order of their names.

    Raises:
        ConfigError: A folder does not exist, or there is no run in any.
    """
    found: dict[Path, None] = {}
    given = list(folders)
    for folder in given:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; name output folders of ripu.train, or a folder above them")
        paths = [path.parent for name in ("results.json", "config.yaml") for path in folder.rglob(name)]
        found |= dict.fromkeys(sorted(path for path in paths if ".hydra" not in path.parts))
    if not found:
        raise ConfigError(
            f"no run in {', '.join(map(str, given))}: there is neither results.json nor config.yaml; name output "
            "folders of ripu.train"
        )
    return [read_record(run, read_config) for run in sorted(found)]


def read_record(run: Path, read_config: ReadConfig) -> RunRecord:
    """Read a run; the record says what is wrong with it."""
    config, settings, problem = _config(run, read_config)
    results: dict[str, Any] = {}
    if not (run / "results.json").exists():
        problem = _why_unfinished(run)
    else:
        try:
            results = read_json(run / "results.json")
        except (ValueError, OSError):
            problem = "results.json cannot be read"
        else:
            if not _is_sound(results):
                results, problem = {}, "results.json was not written by ripu.train"
    parent = _read_parent(config, [run], read_config) if results else None
    return RunRecord(run, results, config, settings, problem, parent)


def _config(run: Path, read_config: ReadConfig) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the values of a ``config.yaml``, those that are compared, and a short reason if there are none."""
    try:
        return (*read_config(run / "config.yaml"), "")
    except FileNotFoundError:
        return {}, {}, "no config.yaml"
    except (RecursionError, ValueError, OSError):
        return {}, {}, "config.yaml cannot be read"


def _read_parent(config: Mapping[str, Any], children: Sequence[Path], read_config: ReadConfig) -> RunRecord | None:
    """Return the run that a configuration starts from; None if it cannot be read, or starts from itself."""
    _, folder = _parent_of(config)
    if folder is None or folder.absolute() in [child.absolute() for child in children]:
        return None
    own, settings, _ = _config(folder, read_config)
    if not own:
        return None
    return RunRecord(folder, {}, own, settings, parent=_read_parent(own, [*children, folder], read_config))


def _parent_of(config: Mapping[str, Any]) -> tuple[str, Path | None]:
    """Return the key that names the run that a configuration starts from, and that run's folder, if it can have one."""
    if config.get("start.run"):
        return "start.run", Path(str(config["start.run"]))
    file = Path(str(config.get("model.checkpoint") or ""))
    return "model.checkpoint", file.parent.parent if file.parent.name == "checkpoints" else None


def _is_sound(results: Any) -> bool:
    """Check the form of ``results.json``, as far as reports read it; parts may be missing."""
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
    """Return the error in the last line of the run's log, if there is one."""
    for name in ("log.txt", "train.log"):
        path = run / name
        lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if re.match(r"(error:|\w*Error)", last):
            return f"failed: {last[:160]}"
    return "unfinished"


def is_below(key: str, names: Sequence[str]) -> bool:
    """Return True if a dotted key is one of some names, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def title_words(title: Mapping[str, str]) -> str:
    """Name a run or a row by its title."""
    return " ".join(value for value in title.values() if value != "–")
