"""The command ``python -m ripu.datasets.streets --root data/streets --seed 0``."""

from __future__ import annotations

import argparse
import inspect
import sys

from ripu.datasets.streets import generate, write_preview
from ripu.io.errors import print_error


def main(arguments: list[str] | None = None) -> int:
    """Make the scenes, a contact sheet, or both.

    Args:
        arguments: Command line without the program's name; that of the process unless given.

    Returns:
        0, or 2 if an argument or the folder does not fit.
    """
    parser = argparse.ArgumentParser("python -m ripu.datasets.streets", description="Generate the street scenes.")
    parser.add_argument("--root", help="folder in which seed{SEED} is written")
    parser.add_argument("--preview", metavar="FILE.png", help="write a contact sheet; without --root nothing else")
    parser.add_argument("--layouts", nargs="+", default=["gtav"], choices=["gtav", "synthia"], help="sources to write")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    defaults = inspect.signature(generate).parameters
    numbers = ("seed", "num_source", "num_target", "num_val", "height", "width", "num_workers")
    for name in numbers:
        default = defaults[name].default
        text = "all cores" if default is None else default
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {text}")
    options = parser.parse_args(arguments)
    if options.root is None and options.preview is None:
        parser.error("give --root, --preview or both")
    try:
        if options.root is not None:
            values = {name: getattr(options, name) for name in numbers}
            print(generate(options.root, progress=not options.quiet, layouts=tuple(options.layouts), **values))
        if options.preview is not None:
            sets = (*options.layouts, "cityscapes_train")
            print(write_preview(options.preview, options.seed, options.height, options.width, sets))
    except (ValueError, OSError) as error:
        print_error(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
