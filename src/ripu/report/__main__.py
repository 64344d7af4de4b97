"""``python -m ripu.report``: pages, figures and tables from finished and unfinished runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0; 2 where a report cannot be made.
    """
    arguments = _parser().parse_args(argv)
    try:
        for run in arguments.runs:
            if arguments.html:
                from ripu.report.page import write_page

                print(write_page(run))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ripu.report", description="Pages, figures and tables from runs.")
    parser.add_argument("runs", metavar="DIR", type=Path, nargs="+", help="output folder of a run, or a parent of such")
    parser.add_argument("--html", action="store_true", help="write report.html into the run's folder")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
