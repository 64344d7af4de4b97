"""Growth with the number of images: real commands on small files, or the parts that hold every entry.

    python scripts/size.py --runs 300 1000 3000               # target images, ten times as many source images
    python scripts/size.py --runs 300 --height 1024 --width 2048
    python scripts/size.py --entries 10000 100000 1000000     # label store, scenes and order alone, of 8 x 8 pixels

Runs train a tiny network for four steps with one round and one evaluation, at 32 x 64; then the finished run is
resumed, its label store verified and its report rebuilt, and the doctor reads every file. The files are few drawings
under many names. Times are CPU seconds, which a busy machine hardly changes; memory is the peak of the command's
largest process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import bench_store
from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, TargetImage
from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile
from running import command, environment, tiny
from trees import draw_image, draw_label, write_palette

DRAWINGS, VAL_IMAGES, LINKS = 8, 8, 20_000
COMMIT_AT_MOST = 10_000
"""Rounds of more images are not committed: each costs milliseconds."""
MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", metavar="IMAGES", help="numbers of target images")
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--source", type=int, default=10, metavar="N", help="source images for each target image")
    parser.add_argument("--skip-doctor", action="store_true", help="the doctor decodes every file, which takes longest")
    parser.add_argument("--entries", type=int, nargs="+", metavar="IMAGES", help="numbers of entries of 8 x 8 pixels")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of --entries")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # one measurement, in a process of its own
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.entries[0], arguments.rounds)))
        return 0
    if arguments.runs:
        rows = [measure_run(number, arguments) for number in arguments.runs]
        print_table(arguments.runs, rows)
    if arguments.entries:
        rows = [measure_entries(number, arguments.rounds) for number in arguments.entries]
        print_table(arguments.entries, rows)
    return 0


def print_table(numbers: Sequence[int], rows: Sequence[dict[str, float]]) -> None:
    """Print a line for each quantity, a column for each number of images."""
    print(f"| | {' | '.join(f'{number:,}' for number in numbers)} |")
    print(f"|---|{'---|' * len(numbers)}")
    for name in dict.fromkeys(name for row in rows for name in row):
        print(f"| {name} | {' | '.join(shown(row.get(name)) for row in rows)} |", flush=True)


def shown(value: float | None) -> str:
    """Return a figure in three digits."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ---- real commands


def measure_run(number: int, arguments: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        root, run = Path(temporary), Path(temporary) / "run"
        write_data(root / "data", number, number * arguments.source, arguments.height, arguments.width)
        size = ("data.source_size=[32,64]", "data.target_size=[32,64]", "dataset.recipe.pixel_radius=2")
        plan = ("trainer.max_steps=4", "selection_steps=[2]", "pretrain_steps=0")
        words = tiny(root / "data", run, *size, *plan, "evaluation.pictures=0", "evaluation.batch=16", dataset="gtav")
        found: dict[str, float] = {}
        found |= measured("train", root, "ripu.train", *words)
        seconds = json.loads((run / "results.json").read_text())["seconds"]
        found["of it setup, wall s"] = seconds["setup"]
        labels = [path.stat().st_size for path in (run / "labels").iterdir()]
        found["label store, MB"] = sum(labels) / MB
        found["store.json, MB"] = (run / "labels" / "store.json").stat().st_size / MB
        found["report.html, MB"] = (run / "report.html").stat().st_size / MB
        found["results.json, MB"] = (run / "results.json").stat().st_size / MB
        found["whole run, MB"] = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / MB
        found |= measured("resume", root, "ripu.train", *words, "resume=true")
        found |= measured("labels verify", root, "ripu.labels", "verify", str(run))
        found |= measured("report", root, "ripu.report", str(run), "--html")
        if not arguments.skip_doctor:
            doctor = ("dataset=gtav", f"paths.data_root={root / 'data'}", "num_workers=0")
            found |= measured("doctor", root, "ripu.doctor", *doctor, allowed=(0, 1))
        return found


def measured(name: str, folder: Path, module: str, *words: str, allowed: tuple[int, ...] = (0,)) -> dict[str, float]:
    """Run a command; return its CPU seconds and peak memory."""
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command(module, *words), cwd=folder, env=environment(), stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        log.seek(0)
        assert os.waitstatus_to_exitcode(status) in allowed, log.read()[-4000:]
    return {f"{name}, CPU s": used.ru_utime + used.ru_stime, f"{name}, MB": used.ru_maxrss * 1024 / MB}


def write_data(root: Path, targets: int, sources: int, height: int, width: int) -> None:
    """Write GTAV and Cityscapes: a few drawings, each under many names."""
    originals = root / "originals"
    originals.mkdir(parents=True)
    for number in range(DRAWINGS):
        label = draw_label(number, CITYSCAPES19, 64, 128)
        image = draw_image(label, CITYSCAPES19, number, 0.8)
        ids = CITYSCAPES19.to_disk_ids(stretched(label, height, width))
        Image.fromarray(ids).save(originals / f"{number}-ids.png")
        write_palette(originals / f"{number}-palette.png", ids)
        Image.fromarray(stretched(image, height, width)).save(originals / f"{number}-image.png")
    link = Linker(originals)
    for folder in ("images", "labels"):
        (root / "gtav" / folder).mkdir(parents=True)
    for number in range(1, sources + 1):
        link(number, "image", root / "gtav" / "images" / f"{number:05d}.png")
        link(number, "palette", root / "gtav" / "labels" / f"{number:05d}.png")
    for split, count in (("train", targets), ("val", VAL_IMAGES)):
        for number in range(count):
            city = f"city{number // 1000:04d}"
            image = root / "cityscapes" / "leftImg8bit" / split / city
            label_folder = root / "cityscapes" / "gtFine" / split / city
            image.mkdir(parents=True, exist_ok=True)
            label_folder.mkdir(parents=True, exist_ok=True)
            stem = f"{city}_{number:06d}_000019"
            link(number, "image", image / f"{stem}_leftImg8bit.png")
            link(number, "ids", label_folder / f"{stem}_gtFine_labelIds.png")


def stretched(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a drawing (h, w, ...) at any size, by the nearest pixels."""
    rows, columns = np.arange(height) * pixels.shape[0] // height, np.arange(width) * pixels.shape[1] // width
    return np.ascontiguousarray(pixels[rows][:, columns])


class Linker:
    """Hard links to drawings; a file system allows some 65,000 to a file, so copies are made now and then."""

    def __init__(self, originals: Path) -> None:
        self.originals, self.numbers = originals, itertools.count()

    def __call__(self, number: int, kind: str, path: Path) -> None:
        turn = next(self.numbers) // LINKS
        first = self.originals / f"{number % DRAWINGS}-{kind}.png"
        copy = first.with_name(f"{turn}-{first.name}")
        if not copy.exists():
            shutil.copy(first, copy)
        os.link(copy, path)


# ---- the parts that hold every entry


def measure_entries(number: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, float] = {}
        for part in PARTS:
            words = [sys.executable, __file__, "--entries", str(number), "--rounds", str(rounds), "--part", part]
            done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            found |= json.loads(done.stdout)
        return found


def resident() -> float:
    """Return the memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MB


def clocked(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return CPU seconds, memory that stays, in MB, and the result of a call."""
    before, began = resident(), time.process_time()
    result = call()
    return time.process_time() - began, resident() - before, result


def image_id(number: int) -> str:
    return f"city{number // 1000:04d}/city{number // 1000:04d}_{number:06d}_000019"


def commit_rounds(number: int, rounds: int) -> dict[str, float]:
    """Commit rounds of one pick an image; every image is encoded, checked and compressed by itself."""
    if number > COMMIT_AT_MOST:
        return {}
    images = [TargetImage(image_id(one), 8, 8) for one in range(number)]
    store = LabelStore.create(Path("commit"), images, ["road", "car"])

    def records(index: int) -> Any:
        for one in range(number):
            yield ImagePicks(image_id(one), np.array([[index, one % 8]]))
            yield ImageAnswers(image_id(one), np.array([index * 8 + one % 8]), np.array([one % 2]))

    shard = commit = 0.0
    for index in range(rounds):
        spec = store.begin_round(index, index + 1, 1)
        seconds, _, _ = clocked(lambda spec=spec, index=index: store.write_shard(spec, 0, records(index)))
        shard += seconds / rounds
        seconds, _, _ = clocked(lambda spec=spec: store.commit_round(spec, 1))
        commit += seconds / rounds
    store.close()
    return {
        "a rank writes its shard, ms an image": 1000 * shard / number,
        "rank 0 merges and commits, ms an image": 1000 * commit / number,
        "manifest.json, kB": Path("commit/manifest.json").stat().st_size / 1e3,
    }


def commit_published(number: int, rounds: int) -> dict[str, float]:
    """Commit one round of regions at the published size; the number of images is fixed."""
    count, (num_picks, radius) = 50, bench_store.MODES["RA 2.2 %"]
    with bench_store.new_store(Path("published"), count) as store:
        spec = store.begin_round(0, 1, num_picks, reveal_radius=radius, suppress_radius=2 * radius)
        records = [part for image in range(count) for part in bench_store.records(image, 0, num_picks, radius)]
        shard, _, _ = clocked(lambda: store.write_shard(spec, 0, records))
        commit, _, _ = clocked(lambda: store.commit_round(spec, 1))
    size = sum(path.stat().st_size for path in Path("published").glob("*.dat"))
    return {
        "1,026 regions of 1024 x 2048: a rank writes its shard, ms an image": 1000 * shard / count,
        "1,026 regions: rank 0 merges and commits, ms an image": 1000 * commit / count,
        "1,026 regions: kB an image and round": size / count / 1e3,
    }


def write_store(number: int, rounds: int) -> dict[str, float]:
    """Create a store, and write files with a record for each image, which is what its size grows with."""
    images = [TargetImage(image_id(one), 8, 8) for one in range(number)]
    seconds, memory, store = clocked(lambda: LabelStore.create(Path("labels"), images, ["road", "car"]))
    store.close()
    for index in range(2 * rounds):
        with StoreFile(Path("index")) as file:
            out = RecordWriter(file, {"kind": "answers"})
            for one in range(number):
                out.add(one, b"")
            out.finish("answers")
            file.publish(f"index-{index}.dat")
    return {
        "store.json, MB": Path("labels/store.json").stat().st_size / MB,
        "store.json is written, s": seconds,
        "and kept, MB": memory,
        "index of a file, MB": number * 56 / MB,
    }


def read_store(number: int, rounds: int) -> dict[str, float]:
    """Open the store, and the indices of all rounds, as a data worker does."""
    header, header_mb, _ = clocked(lambda: LabelStore.open(Path("labels")).header)
    names = [Path(f"index-{index}.dat") for index in range(2 * rounds)]
    index, index_mb, files = clocked(lambda: [RecordFile(name) for name in names])
    places = np.random.default_rng(0).integers(0, number, 1000).tolist()
    read, _, _ = clocked(lambda: [files[0].read(place) for place in places])
    return {
        "a process reads store.json, s": header,
        "and keeps, MB": header_mb,
        f"a process reads {2 * rounds} indices, s": index,
        f"and keeps of {2 * rounds} indices, MB": index_mb,
        "reads a record, us": 1000 * read,
    }


def list_scenes(number: int, rounds: int) -> dict[str, float]:
    """Hold the scenes of a split, and draw from their order."""
    from ripu.datasets.scenes import Scene, SceneDataset
    from ripu.loading.order import ShuffledStream

    root = Path("data/cityscapes")

    def scenes() -> SceneDataset:
        names = map(image_id, range(number))
        found = (Scene(name, root / f"image/{name}.png", root / f"label/{name}.png") for name in names)
        return SceneDataset("many", tuple(found), CITYSCAPES19)

    seconds, memory, kept = clocked(scenes)
    stream = ShuffledStream(number, 0, 1)
    first, order_mb, _ = clocked(lambda: stream[0])
    later, _, _ = clocked(lambda: [stream[position] for position in range(1, 1001)])
    assert len(kept) == number
    return {
        "scenes, s": seconds,
        "scenes, MB": memory,
        "an epoch's permutation, s": first,
        "an epoch's permutation, MB": order_mb,
        "a draw, us": 1000 * later,
    }


PARTS: dict[str, Callable[[int, int], dict[str, float]]] = {
    "commit": commit_rounds,
    "published": commit_published,
    "write": write_store,
    "read": read_store,
    "scenes": list_scenes,
}


if __name__ == "__main__":
    sys.exit(main())
