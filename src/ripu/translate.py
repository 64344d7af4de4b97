"""``python -m ripu.translate dataset=NAME output=FOLDER``: images in the colours of the other domain.

The folder is one for ``method=dpl method.translated=FOLDER``. Another program may make a better one: see
:mod:`ripu.datasets.translated`.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

import shutil
from pathlib import Path

import cv2
from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.nodes import plain
from ripu.config.parts import make_dataset
from ripu.config.validate import check_values
from ripu.datasets.scenes import SceneDataset
from ripu.datasets.translated import PARTS, ColorStatistics, transferred
from ripu.io.console import Progress, track
from ripu.io.errors import ConfigError, exit_on_error
from ripu.io.writing import TMP_PREFIX, publish, write_bytes, writing
from ripu.run.assembly.data import load_parts

MOST_MEASURED = 500
"""The images of a domain whose colours are measured, evenly spread."""


def translate(cfg: DictConfig) -> int:
    """Write the source and target images of a composed ``conf/translate.yaml`` in the colours of one another.

    Returns:
        The number of images.

    Raises:
        ConfigError: The folder exists, or the data set has no source.
        SceneError: Data are missing, or an image cannot be read; nothing is left behind.
        WriteError: The folder cannot be written.
    """
    check_values(cfg, "translate")
    out = Path(cfg.output)
    if out.exists():
        raise ConfigError(f"output={out} exists already; remove it, or name another folder")
    dataset = make_dataset(plain(cfg)["dataset"])
    if not dataset.has_source:
        raise ConfigError(
            f"dataset={dataset.name} has no source images, so there are no other colours; give dataset.source.images"
        )
    parts = load_parts(dataset, parts=PARTS)
    colors = {name: _measured(scenes, name) for name, scenes in parts.items()}
    unfinished = out.with_name(f"{TMP_PREFIX}{out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a command that was killed
    try:
        with Progress("translating", sum(len(scenes) for scenes in parts.values())) as progress:
            for (name, scenes), other in zip(parts.items(), reversed(PARTS), strict=True):
                for index, scene in enumerate(scenes.scenes):
                    image = transferred(scenes.require_image(index), colors[name], colors[other])
                    _, data = cv2.imencode(".png", image[:, :, ::-1])
                    write_bytes(unfinished / name / f"{scene.image_id}.png", data.tobytes())
                    progress.add()
        with writing(out):
            publish(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sum(len(scenes) for scenes in parts.values())


def _measured(scenes: SceneDataset, name: str) -> ColorStatistics:
    from ripu.loading.order import evenly_spread  # with torch, which --help does without

    chosen = evenly_spread(len(scenes), MOST_MEASURED)
    return ColorStatistics.of(
        scenes.require_image(index) for index in track(chosen, f"measuring the {name}", len(chosen))
    )


@command("translate")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    with exit_on_error():
        count = translate(cfg)
    print(f"{cfg.output}: {count} images in the colours of the other domain")


if __name__ == "__main__":
    main()
