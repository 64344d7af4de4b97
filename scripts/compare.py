"""Compare the settings of one data set: source only, random, RIPU and all labels, over seeds, in pairs.

    python scripts/compare.py --out runs/streets dataset=streets
    python scripts/compare.py --out runs/camvid --seeds 0 1 2 --jobs 2 dataset=camvid paths.data_root=FOLDER

Every run is a ``python -m ripu.train`` of its own; finished ones are kept, so the command can be repeated. Until
pre-training ends all active rows of a seed and its source-only row do the same steps, so they are trained once: the
source-only run leaves a checkpoint there and the active ones go on from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROWS = {
    "source only": ["setting=source_only"],
    "PA random": ["mode=pa", "acquisition=random"],
    "PA RIPU": ["mode=pa", "acquisition=ripu"],
    "RA random": ["mode=ra", "acquisition=random"],
    "RA entropy": ["mode=ra", "acquisition=entropy"],
    "RA RIPU": ["mode=ra", "acquisition=ripu"],
    "all labels": ["setting=fully_supervised"],
}
PAIRS = (
    ("PA RIPU", "source only"),
    ("PA RIPU", "PA random"),
    ("RA RIPU", "source only"),
    ("RA RIPU", "RA random"),
    ("RA RIPU", "RA entropy"),
    ("RA RIPU", "PA RIPU"),
    ("all labels", "RA RIPU"),
)


def folder_of(out: Path, row: str, seed: int) -> Path:
    return out / f"{row.replace(' ', '-').lower()}-seed{seed}"


def run(out: Path, row: str, seed: int, overrides: list[str], threads: int, start: Path | None, save_at: int) -> None:
    folder = folder_of(out, row, seed)
    if (folder / "results.json").exists():
        return
    if start is not None and not (folder / "checkpoints").exists():
        (folder / "checkpoints").mkdir(parents=True)
        for path in start.glob(f"step-{save_at:08d}.*"):
            shutil.copy(path, folder / "checkpoints")
    command = [sys.executable, "-m", "ripu.train", *overrides, *ROWS[row], f"seed={seed}"]
    command += [f"paths.output_dir={folder}", "resume=true"]
    if row == "source only":
        command += [f"checkpoint.every_steps={save_at}", "checkpoint.keep=1000"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    print(f"{'done' if done.returncode == 0 else 'FAILED'}: {row}, seed {seed}", flush=True)


def table(out: Path, rows: list[str], seeds: list[int]) -> str:
    found: dict[tuple[str, int], dict] = {}
    for row in rows:
        for seed in seeds:
            path = folder_of(out, row, seed) / "results.json"
            if path.exists():
                found[row, seed] = json.loads(path.read_text())

    def spread(values: list[float]) -> str:
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        return f"{statistics.mean(values):.1f} ± {deviation:.1f}"

    lines = ["| row | labelled | mIoU, mean ± std | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"]
    lines.append("|---|---|---|" + "---|" * len(seeds))
    for row in rows:
        results = [found[row, seed] for seed in seeds if (row, seed) in found]
        if results:
            each = [f"{found[row, seed]['mIoU']:.1f}" if (row, seed) in found else "-" for seed in seeds]
            share = 100 * statistics.mean(result["labelled_fraction"] for result in results)
            lines.append(
                f"| {row} | {share:.2f} % | {spread([result['mIoU'] for result in results])} | " + " | ".join(each) + " |"
            )
    lines += ["", "| difference, seed by seed | mean ± std | n | higher in |", "|---|---|---|---|"]
    for better, worse in PAIRS:
        differences = [
            found[better, seed]["mIoU"] - found[worse, seed]["mIoU"]
            for seed in seeds
            if (better, seed) in found and (worse, seed) in found
        ]
        if differences:
            wins = sum(difference > 0 for difference in differences)
            lines.append(
                f"| {better} - {worse} | {spread(differences)} | {len(differences)} | {wins} of {len(differences)} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and table.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=[row for row in ROWS if row != "RA entropy"], choices=list(ROWS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a run")
    parser.add_argument("overrides", nargs="*", help="overrides of ripu.train for every run, e.g. dataset=camvid")
    arguments = parser.parse_intermixed_args()

    from hydra import compose, initialize_config_dir

    from ripu.build import config_dir, make_plan

    with initialize_config_dir(config_dir(), version_base="1.3"):
        plan = make_plan(compose("train", overrides=arguments.overrides))
    save_at = plan.pretrain_steps
    shared = save_at > 0 and save_at not in plan.selection_steps
    out = arguments.out
    starts = {seed: folder_of(out, "source only", seed) / "checkpoints" for seed in arguments.seeds}

    def job(row: str, seed: int) -> None:
        start = starts[seed] if shared and row not in ("source only", "all labels") else None
        if start is not None:
            first[seed].result()  # first in the queue, so this never waits for something that waits
        run(out, row, seed, arguments.overrides, arguments.threads, start, max(save_at, 1))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        first = {seed: pool.submit(job, "source only", seed) for seed in arguments.seeds}
        rest = [row for row in ("all labels", *arguments.rows) if row in arguments.rows and row != "source only"]
        for seed in arguments.seeds:
            for row in dict.fromkeys(rest):
                pool.submit(job, row, seed)
    text = table(out, arguments.rows, arguments.seeds)
    (out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
