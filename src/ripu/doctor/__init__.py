"""Checks a data set before training: ``python -m ripu.doctor dataset=...``.

:mod:`~ripu.doctor.reading` reads every file, :mod:`~ripu.doctor.findings` judges what was read, and
:mod:`~ripu.doctor.report` says it.
"""

from ripu.doctor.findings import Finding, examine, quick_check
from ripu.doctor.reading import SceneFacts, read_all

__all__ = ["Finding", "SceneFacts", "examine", "quick_check", "read_all"]
