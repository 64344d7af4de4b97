"""SIGTERM and SIGINT end a run at a whole step; SLURM's signal saves the run and puts its job back into the queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment
from torch.utils.data import DataLoader, Dataset

import forks
from ripu.io import signals
from ripu.io.console import override
from ripu.training.stop_signals import StopSignals, replace_sigterm_notifier
from running import ROUNDS, call, call_printed, command, environment, label_bytes, same_weights, tiny, train_here

LONG = ("selection_steps=[8,16]", "pretrain_steps=4", "trainer.max_steps=120", "evaluation.pictures=0")

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "ripu",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def words(data_root: Path, run: Path, *more: str) -> list[str]:
    return tiny(data_root, run, *LONG, *more)


def start(folder: Path, given: list[str], **more: str) -> subprocess.Popen[str]:
    return forks.start(
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
    assert line.startswith("python -m ripu.train dataset=camvid ")
    assert f" paths.data_root={data_root} " in line
    saved = max(run.glob("checkpoints/step-*.ckpt"))
    assert 20 < int(saved.stem.partition("-")[2]) < 120  # the step that it was at, not the end of a phase
    done = call_printed(line, tmp_path)
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
    slurm = {**SLURM, "PATH": f"{tools}:{os.environ['PATH']}"}
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
    # What Lightning's own requeueing left in runs of earlier versions: nothing may read it.
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
    given = tiny(data_root, run, *ROUNDS, "trainer.devices=2", "trainer.strategy=ddp", "resume=true")
    process = start(tmp_path, given)
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


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the handlers of this process back after a test."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._requested.clear()


class Checkpoints:
    """Notes the steps that are saved."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def save(self, trainer: Any) -> None:
        self.steps.append(trainer.global_step)


def test_requeueing_saves_between_steps_and_does_not_wait_for_a_round(tmp_path: Path, handlers: None) -> None:
    calls: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    checkpoints, trainer = Checkpoints(), SimpleNamespace(world_size=1, global_step=3)
    watch: Any = StopSignals(tmp_path, checkpoints)  # type: ignore[arg-type]
    watch.on_train_start(trainer, None)
    watch.on_train_epoch_start(trainer, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert calls == []
    watch.on_train_batch_start(trainer)
    assert (len(calls), checkpoints.steps) == (1, [3])
    os.kill(os.getpid(), signal.SIGUSR1)  # in the last step of a phase
    watch.on_validation_start(trainer, None)
    assert len(calls) == 2
    os.kill(os.getpid(), signal.SIGUSR1)  # in the evaluation or the round
    assert (len(calls), checkpoints.steps) == (3, [3])
    if not (child := os.fork()):  # a data worker has the same handler, and SLURM signals it too
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(len(calls))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    watch.on_train_end()
    os.kill(os.getpid(), signal.SIGUSR1)  # in the last evaluation
    assert len(calls) == 4


def test_lightning_does_not_requeue_a_run_that_a_program_starts(
    tmp_path: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the command ``ripu.train``, nothing has taken the signal before Lightning."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, plugins=[SLURMEnvironment()], **quiet)
    StopSignals(tmp_path, Checkpoints()).setup(trainer, None, "fit")  # type: ignore[arg-type]
    own = signal.getsignal(signal.SIGUSR1)
    assert callable(own)
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGUSR1) is own
    trainer._signal_connector.teardown()


@pytest.mark.parametrize("is_slurm", [True, False])
def test_slurm_sends_sigterm_twice_and_the_step_ends_all_the_same(
    is_slurm: bool, tmp_path: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
    checkpoints, trainer = Checkpoints(), SimpleNamespace(world_size=1, global_step=3)
    watch: Any = StopSignals(tmp_path, checkpoints)  # type: ignore[arg-type]
    watch.on_train_start(trainer, None)
    watch.on_train_epoch_start(trainer, None)
    os.kill(os.getpid(), signal.SIGTERM)
    if not is_slurm:
        with pytest.raises(signals.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        return
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(signals.Terminated):
        watch.on_train_batch_start(trainer)
    assert checkpoints.steps == [3]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, "requeue 4711\n"),
        ({"SLURM_ARRAY_JOB_ID": "47", "SLURM_ARRAY_TASK_ID": "2"}, "requeue 47_2\n"),
        ({"SLURM_PROCID": "1"}, None),  # the first process asks
        ({"RANK": "1", "SLURM_PROCID": "0"}, None),  # of torchrun's processes, too
        ({"RANK": "0", "SLURM_PROCID": "1"}, "requeue 4711\n"),
        ({"SLURM_JOB_NAME": "bash"}, None),  # a shell for people
    ],
)
def test_the_job_that_slurm_is_asked_to_requeue(
    given: dict[str, str], asked: str | None, tmp_path: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    for name, value in {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "ripu", "PATH": str(tmp_path), **given}.items():
        monkeypatch.setenv(name, value)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signals.requeue_on_sigusr1()
    if "SLURM_JOB_NAME" in given:
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        return
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (tmp_path / "asked").exists() == (asked is not None)
    assert asked is None or (tmp_path / "asked").read_text() == asked


def test_a_job_that_cannot_be_requeued_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    signals.requeue()
    assert "scontrol requeue 4711 failed ([Errno 2] " in capsys.readouterr().err
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho Job/step already completing >&2\nexit 3\n")
    scontrol.chmod(0o755)
    signals.requeue()
    said = "scontrol requeue 4711 failed (status 3: Job/step already completing); the run goes on"
    assert said in capsys.readouterr().err
    scontrol.write_text("#!/bin/sh\necho a remark >&2\n")
    signals.requeue()
    assert capsys.readouterr().err == ""


class Numbers(Dataset[int]):
    """Ten numbers, each with the id of the process that read it."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_only_its_parent_ends_a_data_worker() -> None:
    loader = DataLoader(
        Numbers(), batch_size=1, num_workers=1, prefetch_factor=1, worker_init_fn=signals.leave_signals_to_parent
    )
    batches = iter(loader)
    worker = int(next(batches))
    for name in ("TERM", "INT", "USR1", "USR2"):
        subprocess.run(["/bin/kill", f"-{name}", str(worker)], check=True)
    assert [int(batch) for batch in batches] == [worker] * 9
    batches = iter(loader)
    process = batches._workers[0]  # type: ignore[attr-defined]
    next(batches)
    process.terminate()
    process.join(60)
    assert process.exitcode == 0
