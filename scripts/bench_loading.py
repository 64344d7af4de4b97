"""Images a second that the loaders deliver, beside what a training step consumes.

    python -m ripu.datasets.streets --root scenes --height 1024 --width 2048 --num-source 16 --num-target 8 --num-val 2
    python scripts/bench_loading.py dataset=gtav paths.data_root=scenes/seed0 --workers 4 8 16
    python scripts/bench_loading.py dataset=gtav paths.data_root=scenes/seed0 --workers 8 --cache cache --step-ms 400

Source and target are read as in training: decoded, resized, augmented, collated; the pool as in a round. With --cache,
images come from ``data.cache``, which is filled first. The first batches, which the workers fetch while they start, are
not timed. --step-ms is the time of a step (``python scripts/bench_training.py`` measures it): the table then says
whether the loaders keep up with it. Files are in the memory of the system after the first reading, so a slow disk is
not seen.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader, Dataset

from bench import cpu_name
from ripu.config.nodes import plain
from ripu.config.spec import RunSpec, make_spec
from ripu.config.validate import config_dir
from ripu.datamodule import SOURCE, TARGET
from ripu.io.errors import RipuError
from ripu.io.signals import leave_signals_to_parent
from ripu.loading.image_cache import ImageCache
from ripu.loading.samples import PoolScenes, TrainScenes, collate_eval, collate_train
from ripu.run.assembly.data import make_scenes, make_transforms


def parts_of(spec: RunSpec, cache: ImageCache | None) -> Iterator[tuple[str, Dataset[Any], list[Any], int]]:
    """Yield name, data set, the keys of one pass, and the images of a batch."""
    scenes, transforms, data = make_scenes(spec), make_transforms(spec), spec.data
    if (source := scenes.source) is not None:
        keys = [(index, index) for index in range(len(source))]
        label = source.require_label
        yield (
            "source",
            TrainScenes(source, data.source_size, label, transforms, spec.seed, SOURCE, cache=cache),
            keys,
            data.source_batch,
        )
    every = range(len(scenes.target))
    target = TrainScenes(scenes.target, data.target_size, None, transforms, spec.seed, TARGET, cache=cache)
    yield "target", target, [(index, index) for index in every], data.target_batch
    pool = PoolScenes(scenes.target, data.target_size, every, cache)
    yield "pool", pool, list(every), spec.evaluation.batch


def images_per_second(scenes: Dataset[Any], keys: list[Any], batch: int, workers: int, least: int) -> float:
    """Return how many images a second a loader delivers, over ``least`` images or four batches of each worker."""
    ahead = 2 * workers + 1  # what workers fetch while they start
    timed = max(-(-least // batch), 4 * max(1, workers))
    passes = -(-(ahead + timed) * batch // len(keys))
    loader: DataLoader[Any] = DataLoader(
        scenes,
        batch_size=batch,
        sampler=keys * passes,
        num_workers=workers,
        collate_fn=collate_eval if isinstance(scenes, PoolScenes) else collate_train,
        worker_init_fn=leave_signals_to_parent,
    )
    batches = iter(loader)
    for _ in range(ahead):
        next(batches)
    begun = time.perf_counter()
    for _ in range(timed):
        next(batches)
    return timed * batch / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="keys of ripu.train, e.g. dataset=gtav paths.data_root=FOLDER")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 16], help="loader processes; 0: none")
    parser.add_argument("--images", type=int, default=64, help="images that are timed, at least")
    parser.add_argument("--cache", default=None, help="also with data.cache in this folder")
    parser.add_argument("--step-ms", type=float, default=None, help="the time of a training step")
    arguments = parser.parse_args()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        spec = make_spec(plain(compose("train", [*arguments.words, "paths.output_dir=unused"])))
    print(f"{cpu_name()}, {os.cpu_count()} CPUs, {' '.join(arguments.words)}, images/s")
    caches: dict[str, ImageCache | None] = {"files": None}
    if arguments.cache is not None:
        caches["cache"] = ImageCache(arguments.cache)
    print(f"{'from':<6} {'':<7} {'batch':>5}" + "".join(f"{count:>9} workers" for count in arguments.workers))
    for name, cache in caches.items():
        for part, scenes, keys, batch in parts_of(spec, cache):
            if cache is not None:
                for key in keys:
                    scenes[key]
            rates = [images_per_second(scenes, keys, batch, count, arguments.images) for count in arguments.workers]
            line = f"{name:<6} {part:<7} {batch:>5}" + "".join(f"{rate:>17.1f}" for rate in rates)
            if arguments.step_ms is not None and part != "pool":
                wanted = batch * spec.trainer.accumulate / (arguments.step_ms / 1e3)
                enough = [count for count, rate in zip(arguments.workers, rates, strict=True) if rate >= wanted]
                verdict = f"enough from {enough[0]} workers" if enough else "the loaders are the limit"
                line += f"   a step of {arguments.step_ms:.0f} ms reads {wanted:.1f}: {verdict}"
            print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except RipuError as error:
        sys.exit(str(error))
