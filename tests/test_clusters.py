"""Many machines: a real SLURM on this machine, and torchrun with two nodes of which one is killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from running import (
    ROUNDS,
    SUPPORT,
    call,
    call_printed,
    command,
    environment,
    label_bytes,
    same_weights,
    tiny,
    train_here,
    weights,
)

pytestmark = pytest.mark.slow

LONG = ("selection_steps=[8,16]", "pretrain_steps=4", "evaluation.pictures=0", "evaluation.gallery=0")
STEPS = 120
TOOLS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol", "scancel", "squeue", "sinfo")


def words(data_root: Path, run: Path | None, *more: str, steps: int = STEPS) -> list[str]:
    """Return the overrides of a run that is long enough to be met by a signal; None: the run names its folder."""
    given = tiny(data_root, run or Path("none"), *LONG, f"trainer.max_steps={steps}", *more)
    return [word for word in given if run is not None or not word.startswith("paths.output_dir")]


def until(is_so: Callable[[], object], what: Callable[[], str], seconds: float = 1200.0) -> None:
    """Wait for something; ``what`` is said where it does not happen."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def has_step(run: Path | None, step: int) -> bool:
    """Return whether metrics.csv tells of a step."""
    file = (run or Path("none")) / "metrics.csv"
    return file.exists() and re.search(rf"^{step},", file.read_text(), re.MULTILINE) is not None


def newest_step(run: Path) -> int:
    return max(int(path.stem.partition("-")[2]) for path in run.glob("checkpoints/step-*.ckpt"))


@pytest.fixture(scope="module")
def two(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two processes that Lightning has started itself, never stopped."""
    folder = tmp_path_factory.mktemp("two")
    given = words(data_root, folder / "run", "trainer.devices=2")
    done = subprocess.run(command("ripu.train", *given), cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """Start SLURM; return the environment of its commands."""
    sbin = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    absent = [tool for tool in TOOLS if shutil.which(tool, path=sbin) is None]
    missing = f"needs Debian's packages slurm-wlm and munge, without {', '.join(absent)}" if absent else ""
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        missing = "needs root: SLURM starts the processes of its jobs as their users"
    if missing:
        pytest.fail(missing) if "RIPU_REQUIRE_SLURM" in os.environ else pytest.skip(missing)
    cluster = ["bash", str(SUPPORT / "slurm" / "cluster.sh"), "bash", "-c", 'echo "$SLURM_CONF"; cat']
    with subprocess.Popen(cluster, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        conf = process.stdout.readline().strip()
        assert conf, "SLURM did not start"
        yield environment(SLURM_CONF=conf)
        # The end of its input ends the cluster.
    assert not Path(conf).exists()


def ask(slurm: dict[str, str], *given: str, folder: Path | None = None) -> str:
    """Run a command of SLURM; return what it prints."""
    done = subprocess.run([*given], cwd=folder, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def submit(folder: Path, slurm: dict[str, str], *given: str) -> str:
    """Submit the job of docs/running.md; return its number."""
    lines = [
        "#!/bin/bash",
        "#SBATCH --nodes=1 --ntasks-per-node=2 --requeue --open-mode=append",
        "#SBATCH --signal=SIGUSR1@90 --time=60 --output=log --job-name=ripu",
        f"srun {shlex.join(command('ripu.train', *given))}",
    ]
    (folder / "job.sh").write_text("\n".join(lines) + "\n")
    return ask(slurm, "sbatch", "--parsable", "job.sh", folder=folder)


def state_of(job: str, slurm: dict[str, str]) -> str:
    return ask(slurm, "squeue", "--noheader", "--format=%T", "--states=all", f"--jobs={job}")


def test_srun_with_two_tasks_asks_as_one_process_does(slurm: dict[str, str], data_root: Path, tmp_path: Path) -> None:
    given = tiny(data_root, tmp_path / "run", *ROUNDS, "trainer.devices=2")
    srun = ["srun", "--nodes=1", "--ntasks-per-node=2"]
    alike = ("acquisition=random",)  # other scores depend on what a step trains on
    done = subprocess.run(
        [*srun, *command("ripu.train", *given, *alike)],
        cwd=tmp_path, env=slurm, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["processes"] == 2
    train_here(data_root, tmp_path / "alone", *alike)
    assert label_bytes(tmp_path / "run") == label_bytes(tmp_path / "alone")
    assert not same_weights(tmp_path / "run", tmp_path / "alone")  # two batches in a step


def test_a_job_is_requeued_cancelled_and_resumed(
    slurm: dict[str, str], two: Path, data_root: Path, tmp_path: Path
) -> None:
    job = submit(tmp_path, slurm, *words(data_root, None, "trainer.devices=2", "data.num_workers=1"))

    def log() -> str:
        return f"{state_of(job, slurm)}\n{(tmp_path / 'log').read_text() if (tmp_path / 'log').exists() else ''}"

    def run() -> Path | None:
        return next(tmp_path.glob(f"outputs/*/slurm-{job}-*"), None)

    until(lambda: has_step(run(), 20), log)
    ask(slurm, "scancel", "--signal=USR1", job)  # as #SBATCH --signal does when time runs out
    until(lambda: state_of(job, slurm) == "PENDING", log)
    folder = run()
    assert folder is not None
    saved = newest_step(folder)
    assert 20 < saved < STEPS, log()
    assert "Restarts=1" in ask(slurm, "scontrol", "show", "job", job)
    until(lambda: has_step(folder, min(saved + 20, STEPS - 5)), log)
    ask(slurm, "scancel", job)
    until(lambda: state_of(job, slurm) == "CANCELLED", log)
    assert saved < newest_step(folder) < STEPS, log()
    assert "Traceback" not in log()
    assert not list(folder.glob("hpc_ckpt_*"))
    line = log().rpartition("stopped; resume with: ")[2].splitlines()[0]
    assert line.startswith("python -m ripu.train dataset=camvid ")
    done = call_printed(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(two, folder)
    assert label_bytes(two) == label_bytes(folder)


def test_a_sweep_of_jobs_of_which_one_is_preempted(slurm: dict[str, str], data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra: pip install 'ripu[sweep]'")
    sweep = [*words(data_root, tmp_path / "sweep"), "seed=0,1", "hydra/launcher=submitit_slurm"]
    given = command("ripu.train", "-m", *sweep, "hydra.launcher.timeout_min=60")
    with (tmp_path / "log").open("w") as file:
        process = subprocess.Popen(given, cwd=tmp_path, env=slurm, stdout=file, stderr=file)

    def log() -> str:
        logs = sorted((tmp_path / "sweep" / ".submitit").rglob("*.err"))
        return "\n".join(path.read_text() for path in [tmp_path / "log", *logs])

    try:
        first = tmp_path / "sweep" / "seed=0"
        until(lambda: has_step(first, 20) or process.poll() is not None, log)
        assert process.poll() is None, log()
        jobs = sorted(ask(slurm, "squeue", "--noheader", "--array", "--format=%i").split())
        ask(slurm, "scancel", "--signal=USR2", jobs[0])
        until(lambda: "Restarts=1" in ask(slurm, "scontrol", "show", "job", jobs[0]), log)
        assert 20 < newest_step(first) < STEPS, log()
        until(lambda: process.poll() is not None, log)
        assert process.returncode == 0, log()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log()
    for seed in (0, 1):
        run = tmp_path / "sweep" / f"seed={seed}"
        train_here(data_root, tmp_path / str(seed), *LONG, f"trainer.max_steps={STEPS}", f"seed={seed}")
        assert same_weights(tmp_path / str(seed), run)
        assert label_bytes(tmp_path / str(seed)) == label_bytes(run)


def test_a_node_of_torchrun_is_killed_and_the_job_resumed(two: Path, data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = words(data_root, run, "trainer.num_nodes=2", "trainer.devices=1")

    def launch(*more: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=ripu"]
        nodes = []
        for node in range(2):
            with (tmp_path / f"node-{node}").open("a") as file:
                start: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "stdout": file, "stderr": file}
                nodes.append(subprocess.Popen([*torchrun, "-m", "ripu.train", *given, *more], text=True, **start))
        return nodes

    def log() -> str:
        return "\n".join((tmp_path / f"node-{node}").read_text() for node in range(2))

    nodes = launch()
    try:
        until(lambda: has_step(run, 20), log)
        nodes[1].kill()  # its process of the run dies with it
        assert nodes[0].wait(600) != 0, log()
    finally:
        for node in nodes:
            node.kill()
    assert "resume on every node as before, with: python -m ripu.train" in log()
    assert newest_step(run) < STEPS
    assert not (run / "results.json").exists()
    assert [node.wait(1200) for node in launch("resume=true")] == [0, 0], log()
    assert same_weights(two, run)
    assert label_bytes(two) == label_bytes(run)


def test_a_vision_transformer_in_two_processes(data_root: Path, tmp_path: Path) -> None:
    """A tiny transformer, trained like the large ones of docs/running.md; Lightning starts the second process."""
    vit = ["model=vit", "model.encoder=vit_tiny_patch16_224", "model.weights=null", "model.width=32"]
    more = ["trainer.devices=2", "trainer.precision=bf16-mixed", "optimizer=adamw", "evaluation.pictures=0"]
    given = [word for word in tiny(data_root, tmp_path / "run", *ROUNDS, *vit, *more) if "._target_" not in word]
    done = call("ripu.train", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["processes"] == 2
    assert len(results["rounds"]) == 2
    assert any("blocks" in name for name in weights(tmp_path / "run"))
