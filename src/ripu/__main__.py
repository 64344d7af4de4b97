"""``python -m ripu`` lists the commands; ``python -m ripu COMMAND ...`` runs one."""

from __future__ import annotations

import runpy
import sys

from ripu.config.key_messages import near
from ripu.io.errors import ConfigError, print_error

COMMANDS = {
    "train": "pre-train, query labels in rounds, adapt, evaluate",
    "evaluate": "measure a checkpoint and write its predictions",
    "predict": "label a folder of images, with uncertainty maps",
    "export": "write the network of a run for other programs",
    "replay": "repeat the rounds of a run under other scores",
    "translate": "write images in the colours of the other domain",
    "doctor": "check that a data set is fit for training",
    "annotate": "answer the questions of a run on a page",
    "labels": "verify, count, compare, export or undo labels",
    "report": "make pages, figures and tables of runs",
    "repeat": "repeat a step whose loss was not finite",
    "datasets.streets": "generate the street scenes by hand",
}


def main(arguments: list[str] | None = None) -> int:
    """List the commands of the package, or run one; return the exit status: 0, or 2 for an unknown command."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print("RIPU: active learning for domain-adaptive semantic segmentation\n")
        for name, purpose in COMMANDS.items():
            print(f"  python -m ripu.{name:<18} {purpose}")
        print("\nEach command explains itself with --help.")
        return 0
    if words[0] not in COMMANDS:
        hint = near(words[0], COMMANDS)
        print_error(ConfigError(f"there is no command {words[0]!r}{hint} (python -m ripu lists them)"))
        return 2
    sys.argv = [f"ripu.{words[0]}", *words[1:]]
    # As `python -m ripu.COMMAND` would: further processes of a job are started by the name of the main module.
    runpy.run_module(f"ripu.{words[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
