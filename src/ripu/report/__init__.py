"""Reports of runs: pages, tables, figures and pictures. ``python -m ripu.report`` is the command."""
