"""``python -m ripu``: what commands there are; ``python -m ripu COMMAND ...`` runs one."""

from __future__ import annotations

import difflib
import runpy
import sys

COMMANDS = {
    "train": "pre-train, ask in rounds, adapt, evaluate",
    "evaluate": "mIoU and predictions of a checkpoint",
    "predict": "labels and uncertainty of a folder of images",
    "replay": "ask again under other scores, without training",
    "doctor": "is a data set fit for training?",
    "labels": "verify, count, compare, export, undo labels",
    "report": "pages, figures and tables from runs",
    "repeat": "compute a step whose loss was not finite again",
    "datasets.streets": "generate the street scenes by hand",
}


def main(arguments: list[str] | None = None) -> int:
    """Print the commands of the package, a line each, or run one.

    Args:
        arguments: Command and its arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 where there is no such command.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print("RIPU: active learning for domain-adaptive semantic segmentation\n")
        for name, purpose in COMMANDS.items():
            print(f"  python -m ripu.{name:<18} {purpose}")
        print("\nEach command explains itself with --help.")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: there is no command {words[0]!r}{hint} (python -m ripu lists them)", file=sys.stderr)
        return 2
    sys.argv = [f"ripu.{words[0]}", *words[1:]]
    # As `python -m ripu.COMMAND` would: further processes of a job are started by the name of the main module.
    runpy.run_module(f"ripu.{words[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
