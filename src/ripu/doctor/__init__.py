"""Checks of a data set before training: ``python -m ripu.doctor dataset=...``.

:mod:`~ripu.doctor.reading` reads every file, :mod:`~ripu.doctor.examine` judges the facts, and
:mod:`~ripu.doctor.report` prints the findings.
"""
