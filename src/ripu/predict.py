"""``python -m ripu.predict checkpoint=RUN input=FOLDER output=FOLDER``: labels and uncertainty of any images.

The network and the classes are those of the checkpoint; no data set is needed. Ids, colours and (for images of the
shape that training used, with the same ``flip``) predictions are those of ``ripu.evaluate``.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.spec import RunSpec, fill, make_reader, plain
from ripu.config.validate import check_values
from ripu.datasets.image_files import ImageReader
from ripu.io.errors import print_error
from ripu.run import restore
from ripu.run.device import make_device

INCOMPLETE = 2  # exit status if some images could not be read


def predict(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder; see :func:`ripu.inference.folder_prediction.predict_folder`.

    Raises:
        ConfigError: A value or the checkpoint cannot be used.
        PhotosError: Folders cannot be used.
    """
    check_values(cfg, "predict")
    path = restore.checkpoint_path(cfg.checkpoint)
    device = make_device(cfg.accelerator)
    from ripu.inference.folder_prediction import Options, predict_folder
    from ripu.models.checkpoints import file_digest

    spec, module = restore.restore(path)
    return predict_folder(
        Path(cfg.input),
        Path(cfg.output),
        module.to(device).eval(),
        spec.taxonomy,
        spec.data.target_size,
        file_digest(path),
        device,
        fill(Options, {**plain(cfg), "flip": bool(cfg.flip)}),
        _reader(spec, plain(cfg)["value_range"]),
    )


def _reader(spec: RunSpec, value_range: Any) -> ImageReader:
    """Return the reader of images of a run, with another range of values if one is given."""
    return spec.data.image_reader if value_range is None else make_reader(spec.data.bands, value_range)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    try:
        results = predict(cfg)
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        print_error(error)
        sys.exit(1)
    from ripu.inference.folder_prediction import summary

    print(summary(results, Path(cfg.output)))
    if results["unreadable"]:
        sys.exit(INCOMPLETE)


if __name__ == "__main__":
    main()
