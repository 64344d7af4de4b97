"""``metrics.csv``: one row per step, one column per metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from ripu.io.reading import UntrustedError
from ripu.io.writing import write_bytes


class MetricsFile(Logger):
    """Writes ``metrics.csv`` in the run's folder.

    New columns may appear at any time. A resumed run replaces the rows after its step.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / "metrics.csv"
        self._rows: dict[int, dict[str, float]] = {}
        self._columns: list[str] = []
        self._is_fresh = True
        if self.path.exists():
            with self.path.open(newline="") as file:
                try:
                    for row in csv.DictReader(file):
                        values = {name: float(value) for name, value in row.items() if name != "step" and value}
                        self._add(int(row["step"]), values)
                except (ValueError, KeyError, TypeError, csv.Error) as error:
                    raise UntrustedError(
                        f"{self.path} is damaged ({error!r}); remove it, or restore it from a copy of the run"
                    ) from error

    name = "metrics"
    version = "0"

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        step = step or 0
        if self._is_fresh:  # this process logs the rows after its first step again
            # The row of the step itself stays: it has the evaluation and the round before its checkpoint.
            self._rows = {done: row for done, row in self._rows.items() if done <= step}
            self._is_fresh = False
        self._add(step, {name: float(value) for name, value in metrics.items() if name != "epoch"})

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.setdefault(step, {}).update(values)
        self._columns += [name for name in values if name not in self._columns]

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["step", *self._columns])
        writer.writeheader()
        for step in sorted(self._rows):
            writer.writerow({"step": step, **self._rows[step]})
        write_bytes(self.path, table.getvalue().encode())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file one last time."""
        self.save()
