"""``dry_run=true``: what a run will do, ask for, take and leave behind, without the run.

    python -m ripu.train dataset=gtav mode=ra dry_run=true

The budget follows from the configuration and the data. Everything else is measured: a run in little (:mod:`.little`),
with the real network, data, sizes and device, takes a few steps of each kind, one round and one evaluation over a
few images in a temporary folder, and :mod:`.forecast` scales what it took to the whole plan.
"""

from __future__ import annotations

from typing import Any


def dry_run(cfg: Any) -> dict[str, Any]:
    """Forecast a run and print the forecast; nothing of it is kept.

    Args:
        cfg: The composed and checked configuration of ``ripu.train``.

    Returns:
        The forecast as plain numbers, see :meth:`ripu.run.forecast.estimate.Forecast.to_json`.

    Raises:
        ValueError: What the run itself would raise before its first step, e.g. for data that are not there.
    """
    from ripu.run.forecast.estimate import make_forecast
    from ripu.run.forecast.table import table
    from ripu.run.forecast.trial import measure

    measured = measure(cfg)
    forecast = make_forecast(measured)
    print(table(forecast))
    return forecast.to_json()
