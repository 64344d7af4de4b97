"""``dry_run=true``: the forecast of a run, without the run.

The budget follows from the configuration and the data. Everything else is measured: a trial run (:mod:`.trial`) with
the real network, data, sizes and device takes a few steps of each kind, one round and one evaluation over a few images
in a temporary folder, and :mod:`.estimate` scales its times and sizes to the whole plan.
"""

from __future__ import annotations

from typing import Any

from ripu.config.spec import RunSpec
from ripu.run.forecast.estimate import make_forecast
from ripu.run.forecast.table import table
from ripu.run.forecast.trial import measure


def forecast(spec: RunSpec) -> dict[str, Any]:
    """Forecast a run, print the forecast and return it as plain numbers; nothing of it is kept.

    Raises:
        ValueError: The run itself would be refused before its first step, e.g. for missing data.
    """
    made = make_forecast(measure(spec))
    print(table(made))
    return made.to_json()
