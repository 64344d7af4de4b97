"""``python -m ripu.predict checkpoint=RUN input=FOLDER output=FOLDER``: labels and uncertainty of any images.

The network and the classes are those of the checkpoint; no data set is needed. Ids, colours and (for images of the
shape that training used, with the same ``flip``) predictions are those of ``ripu.evaluate``.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.nodes import fill, plain
from ripu.config.parts import make_reader
from ripu.config.validate import check_values
from ripu.datasets.image_files import ImageReader
from ripu.io.errors import ConfigError, exit_on_error
from ripu.run import restore
from ripu.run.device import make_device
from ripu.run.trained import open_trained

INCOMPLETE = 2  # exit status if some images could not be read


def predict(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder; see :func:`ripu.inference.folder_prediction.predict_folder`.

    Raises:
        ConfigError: A value or the checkpoint cannot be used.
        PhotosError: Folders cannot be used.
    """
    check_values(cfg, "predict")
    restore.checkpoint_path(cfg.checkpoint)  # before the imports that take long
    device = make_device(cfg.accelerator)
    from ripu.inference.folder_prediction import Options, predict_folder

    trained = open_trained(cfg.checkpoint, device)
    described = trained.description
    options = fill(Options, {**plain(cfg), "flip": bool(cfg.flip)})
    return predict_folder(
        Path(cfg.input),
        Path(cfg.output),
        trained.module,
        described.taxonomy,
        described.target_size,
        trained.sha256,
        device,
        replace(options, tile=_tile(options.tile, described.fixed_size)),
        replace(_reader(described.image_reader, plain(cfg)["value_range"]), most_pixels=cfg.max_pixels),
        described.fit,
    )


def _reader(trained: ImageReader, value_range: Any) -> ImageReader:
    """Return the reader of images of a run, with another range of values if one is given."""
    return trained if value_range is None else make_reader(trained.bands, value_range)


def _tile(given: list[int] | None, fixed: tuple[int, int] | None) -> list[int] | None:
    """Return the tile for a network that takes images up to a ``fixed`` size, if it is one."""
    if fixed is None:
        return given
    if given is not None and (given[0] > fixed[0] or given[1] > fixed[1]):
        raise ConfigError(
            f"tile={given}: the network takes at most {fixed[0]} x {fixed[1]} pixels; give a smaller tile"
        )
    return given or list(fixed)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    try:
        with exit_on_error():
            results = predict(cfg)
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None
    from ripu.inference.folder_prediction import summary

    print(summary(results, Path(cfg.output)))
    if results["unreadable"]:
        sys.exit(INCOMPLETE)


if __name__ == "__main__":
    main()
