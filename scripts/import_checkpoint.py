"""Make a checkpoint of this package from a released one, for evaluation, prediction and replay.

    python scripts/import_checkpoint.py gtav_ra.pth gtav_ra.ckpt dataset=gtav mode=ra
    python -m ripu.evaluate checkpoint=gtav_ra.ckpt paths.data_root=FOLDER

The words after the two files are those of the ``ripu.train`` command that would have trained the network: data set,
model, protocol. Importing needs no data; evaluating needs the validation images and labels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from ripu.config.checks import checked_spec
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError, RipuError, print_error
from ripu.models.checkpoints import check_new, read_checkpoint, save_new
from ripu.run.assembly.network import make_module


def convert(released: Path, out: Path, words: Sequence[str]) -> None:
    """Write ``released`` to ``out`` as ``ripu.train`` would have.

    Args:
        released: A file with a whole network, in any layout that ``model.checkpoint`` accepts.
        out: The file to write; it must not exist yet. It appears only once it is complete.
        words: Overrides of ``ripu.train``.

    Raises:
        ConfigError: The overrides are wrong, or the file does not fit their network.
        CheckpointError: The file cannot be read, or ``out`` exists.
    """
    check_new(out)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        try:
            cfg = compose("train", [*words, "paths.output_dir=."])
        except HydraException as error:
            raise ConfigError(str(error).partition("\n")[0]) from error
    spec = checked_spec(cfg)
    content = read_checkpoint(released)
    module = make_module(replace(spec, model={**spec.model, "checkpoint": str(released)}))
    stored = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {"config": spec.config},
        "global_step": int(content.get("iteration", content.get("global_step", 0))),
    }
    save_new(stored, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("released", type=Path, help="released checkpoint")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("overrides", nargs="+", help="overrides of ripu.train, e.g. dataset=gtav mode=ra")
    options = parser.parse_args(arguments)
    try:
        convert(options.released, options.out, options.overrides)
    except (RipuError, OSError) as error:
        print_error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
