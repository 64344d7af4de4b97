"""Size and speed of the label store at the published size, on synthetic picks and blocky labels.

    python scripts/bench_store.py                  # 2,975 images of 1024 x 2048, five rounds, RA and PA
    python scripts/bench_store.py --images 100     # quicker
    python scripts/bench_store.py --batches 600    # instead: batches of late answers, one after the other

Sizes depend on the arguments alone. Times are medians of CPU time, without the wait for the disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, TargetImage, square_regions

HEIGHT, WIDTH, CLASSES, ROUNDS, BLOCK = 1024, 2048, 19, 5, 32
MODES = {"RA 2.2 %": (1026, 1), "PA": (21, 0)}
"""Picks per image and round, and the radius that a pick reveals."""


def records(image: int, index: int, num_picks: int, radius: int) -> Iterator[ImagePicks | ImageAnswers]:
    """Yield the picks and answers of one image in one round; no square meets another, in any round."""
    side = 2 * radius + 1
    rng = np.random.default_rng(image)
    places = rng.choice((HEIGHT // side) * (WIDTH // side), (ROUNDS, num_picks), replace=False)[index]
    picks = np.stack([places // (WIDTH // side), places % (WIDTH // side)], axis=1) * side + radius
    scores = np.sort(rng.random(num_picks).astype(np.float32))[::-1]
    truth = rng.integers(0, CLASSES, (HEIGHT // BLOCK, WIDTH // BLOCK), dtype=np.uint8)
    indices = square_regions(picks, radius, HEIGHT, WIDTH).indices
    yield ImagePicks(str(image), picks, scores)
    yield ImageAnswers(str(image), indices, truth[indices // WIDTH // BLOCK, indices % WIDTH // BLOCK])


def milliseconds(call: Callable[[], object]) -> float:
    """Return the CPU time that a call takes, which a busy machine hardly changes."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def new_store(folder: Path, num_images: int) -> LabelStore:
    """Create an empty store."""
    images = [TargetImage(str(image), HEIGHT, WIDTH) for image in range(num_images)]
    return LabelStore.create(folder, images, [str(one) for one in range(CLASSES)])


def measure_rounds(folder: Path, num_images: int, mode: str) -> None:
    """Print size and reading time of a store with five rounds."""
    num_picks, radius = MODES[mode]
    with new_store(folder, num_images) as store:
        for index in range(ROUNDS):
            spec = store.begin_round(index, index, num_picks, reveal_radius=radius, suppress_radius=2 * radius)
            parts = (part for image in range(num_images) for part in records(image, index, num_picks, radius))
            store.write_shard(spec, rank=0, records=parts)
            store.commit_round(spec, world_size=1)
    size = {kind: sum(file.stat().st_size for file in folder.glob(f"{kind}-*")) / 1e6 for kind in ("round", "answers")}
    reader = LabelStore.open(folder)
    reader.revealed_label("0")  # reads the indices
    times = [milliseconds(lambda image=image: reader.revealed_label(str(image))) for image in range(num_images)]
    print(
        f"{mode}: {num_images * num_picks * ROUNDS / 1e6:.1f} M picks, {sum(size.values()):.0f} MB "
        f"({size['round']:.0f} MB picks with scores, {size['answers']:.0f} MB answers), "
        f"{statistics.median(times):.1f} ms per revealed_label"
    )


def measure_batches(folder: Path, num_batches: int) -> None:
    """Print the time of a batch of late answers, 200 at a time."""
    num_picks, radius = MODES["PA"]
    with new_store(folder, num_batches) as store:
        spec = store.begin_round(0, 0, num_picks, reveal_radius=radius, suppress_radius=2 * radius)
        parts = [list(records(image, 0, num_picks, radius)) for image in range(num_batches)]
        store.write_shard(spec, rank=0, records=[picks for picks, _ in parts])
        store.commit_round(spec, world_size=1)
        times = [milliseconds(lambda answers=answers: store.append_answers([answers])) for _, answers in parts]
    for first in range(0, num_batches, 200):
        print(
            f"batches {first} to {min(first + 200, num_batches)}: {statistics.median(times[first : first + 200]):.1f} "
            "ms"
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2975)
    parser.add_argument("--batches", type=int, default=None)
    options = parser.parse_args()
    for mode in MODES if options.batches is None else ("PA",):
        with tempfile.TemporaryDirectory() as folder:
            if options.batches is None:
                measure_rounds(Path(folder) / "store", options.images, mode)
            else:
                measure_batches(Path(folder) / "store", options.batches)


if __name__ == "__main__":
    main()
