"""SIGTERM and SIGINT end a run at a whole step; SLURM's signal saves the run and puts its job back into the queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment

from ripu.io.console import override
from ripu.training.stop_signals import cluster_environment, replace_sigterm_notifier
from running import ROUNDS, call, command, environment, label_bytes, same_weights, tiny, train_here

LONG = ("selection_steps=[8,16]", "pretrain_steps=4", "trainer.max_steps=120", "evaluation.pictures=0")


def words(data_root: Path, run: Path, *more: str) -> list[str]:
    return [word for word in tiny(data_root, run, *LONG, *more) if word != "trainer.max_steps=7"]


def start(folder: Path, given: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("ripu.train", *given), cwd=folder, env=environment(**more),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until metrics.csv tells of a step."""
    deadline = time.monotonic() + 200
    while not ((run / "metrics.csv").exists() and f"\n{step}," in (run / "metrics.csv").read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "workers"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)])
def test_a_signal_to_the_whole_job_stops_it_at_a_whole_step(
    data_root: Path, tmp_path: Path, number: int, status: int, workers: int
) -> None:
    run = tmp_path / "mode=ra, [1] é"  # Hydra and the shell read all of this as something else
    given = [word for word in words(data_root, run, f"data.num_workers={workers}") if "output_dir" not in word]
    process = start(tmp_path, [*given, override("paths.output_dir", run)])
    wait_for_step(run, 20, process)
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == status, printed
    line = printed.rstrip().rpartition("stopped; resume with: ")[2]
    assert line.startswith(f"python -m ripu.train dataset=camvid paths.data_root={data_root}")
    saved = max(run.glob("checkpoints/step-*.ckpt"))
    assert 20 < int(saved.stem.partition("-")[2]) < 120  # the step that it was at, not the end of a phase
    pasted = line.replace("python", sys.executable, 1)
    done = subprocess.run(["/bin/sh", "-c", pasted], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    train_here(data_root, tmp_path / "whole", "trainer.max_steps=120", *LONG)
    assert same_weights(tmp_path / "whole", run)
    assert label_bytes(tmp_path / "whole") == label_bytes(run)


@pytest.mark.slow
def test_slurm_requeues_the_job_and_it_goes_on(data_root: Path, tmp_path: Path) -> None:
    run, tools = tmp_path / "run", tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {
        "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1", "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "ripu", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }  # fmt: skip
    process = start(tmp_path, words(data_root, run), **slurm)
    wait_for_step(run, 20, process)
    process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 100
    while not (tmp_path / "requeued").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # what SLURM does next
    printed, _ = process.communicate(timeout=100)
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert process.returncode == 143, printed
    assert any(int(path.stem.partition("-")[2]) > 20 for path in run.glob("checkpoints/step-*.ckpt"))
    # What Lightning leaves when it is killed before it is removed: nothing may read it.
    (run / "hpc_ckpt_1.ckpt").write_bytes(b"of another step")
    # The same command again, without resume=true: SLURM says that it was requeued.
    done = call("ripu.train", *words(data_root, run), cwd=tmp_path, SLURM_RESTART_COUNT="1", **slurm)
    assert done.returncode == 0, done.stderr
    assert not list(run.glob("hpc_ckpt_*"))
    whole = train_here(data_root, tmp_path / "whole", "trainer.max_steps=120", *LONG)
    assert same_weights(tmp_path / "whole", run)
    assert json.loads((run / "results.json").read_text())["mIoU"] == whole["mIoU"]


@pytest.mark.slow
def test_a_stop_before_training_says_how_to_begin(data_root: Path, tmp_path: Path) -> None:
    process = start(tmp_path, [*tiny(data_root, tmp_path / "run", *ROUNDS)])
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "config.yaml").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 143, printed
    assert "stopped; resume with: python -m ripu.train" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_signal_to_one_process_of_two_in_the_last_evaluation_ends_the_job(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = [word for word in tiny(data_root, run, *ROUNDS) if word != "trainer.devices=1"]
    process = start(tmp_path, [*given, "trainer.devices=2", "trainer.strategy=ddp", "resume=true"])
    deadline = time.monotonic() + 200
    while not (run / "checkpoints" / "step-00000007.ckpt").exists():  # training is over
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    try:
        printed, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:  # they wait for each other
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, printed
    assert "stopped; resume with: python -m ripu.train" in printed
    assert "Traceback" not in printed


def test_what_is_said_where_another_process_has_ended() -> None:
    from ripu.io.errors import line_of

    error = RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"
    )
    line = line_of(error)
    assert line is not None
    assert line.startswith("another process of this job has ended or cannot be reached ([/pytorch")
    assert line_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_the_sigterm_notifier_is_the_one_that_lightning_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert callable(trainer._signal_connector._sigterm_notifier_fn)
    calls: list[int] = []

    def note(number: int, frame: Any) -> None:
        calls.append(number)

    replace_sigterm_notifier(trainer, note)
    registered: dict[int, Any] = {}
    monkeypatch.setattr(
        type(trainer._signal_connector),
        "_register_signal",
        lambda self, number, handler: registered.update({number: handler}),
    )
    trainer._signal_connector.register_signal_handlers()
    registered[signal.SIGTERM](signal.SIGTERM, None)
    assert calls == [signal.SIGTERM]


def test_the_cluster_environment_is_the_given_one() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, plugins=[SLURMEnvironment()])
    assert isinstance(cluster_environment(trainer), SLURMEnvironment)
