"""Checks of a data set before training: ``python -m ripu.doctor dataset=...``."""
