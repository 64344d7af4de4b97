"""What can happen to a run that is under way: it is named, with what helps, and the run can be gone on with."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection, SocketClient
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import forks
from ripu.io.errors import line_of
from ripu.io.writing import WriteError
from ripu.labelstore import LabelStore
from ripu.labelstore.errors import StoreWriteError
from ripu.models.checkpoints import newest_checkpoint
from ripu.module import RipuModule
from ripu.repeat import main, repeat
from ripu.report import pictures, record
from ripu.run import lifecycle
from ripu.selection.ranks import SelectionError
from ripu.training.checkpoint_callback import RunCheckpoint
from ripu.training.step_failure import NonFiniteError
from ripu.training.training_log import MetricsFile
from running import ROUNDS, command, environment, label_bytes, same_weights, tiny, train_here
from tiny import TinyNetwork


@pytest.fixture(scope="module")
def whole(plain_run: Path) -> Path:
    """A run that nothing happened to."""
    return plain_run


def goes_on_as(whole: Path, data_root: Path, run: Path, *words: str) -> None:
    """The run is gone on with and ends as the one that nothing happened to."""
    train_here(data_root, run, "resume=true", *words)
    assert same_weights(whole, run)
    assert label_bytes(whole) == label_bytes(run)


def at_step(patch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Do something in the middle of a training step, behind its forward."""
    domain_loss = RipuModule.domain_loss

    def loss(self: RipuModule, batch: Any, domain: str, **more: Any) -> Any:
        terms = domain_loss(self, batch, domain, **more)
        return act(terms) if self.global_step == step and domain == "target" else terms

    patch.setattr(RipuModule, "domain_loss", loss)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_can_be_repeated(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda terms: {name: term * float("nan") for name, term in terms.items()})
        with pytest.raises(
            NonFiniteError, match=r"the loss is nan at step 4 .*images: source .*0016E5_.*; target .*0001TP_"
        ) as raised:
            train_here(data_root, run)
    assert "32-true" not in str(raised.value)  # which is set already
    assert not raised.value.can_resume
    (state,) = (run / "nonfinite").iterdir()
    # What the step gives without the fault that was put into it, computed from the state alone.
    found = repeat(state, "cpu")
    assert found["step"] == 4
    assert found["terms"]["source_ce"] == found["recorded"]["source_ce"]
    assert np.isnan(found["recorded"]["target_ce"])
    assert (found["first"], found["gradients"], found["weights"]) == (None, [], [])
    # The state of the run is that of the beginning of the step.
    assert newest_checkpoint(run / "checkpoints") == run / "checkpoints" / "step-00000004.ckpt"
    goes_on_as(whole, data_root, run)
    assert main([str(state)]) == 0
    assert "first module whose output is not finite: none" in capsys.readouterr().out
    assert main([str(run / "config.yaml")]) == 1


def test_the_state_of_a_diverged_run_repeats_the_loss(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FloatingPointError, match=r"python -m ripu\.repeat .*step-00000001-rank-0\.pt computes the step again"
    ):
        train_here(data_root, tmp_path / "run", "optimizer.learning_rate=1e30")
    found = repeat(tmp_path / "run" / "nonfinite" / "step-00000001-rank-0.pt", "cpu")
    assert {name: str(value) for name, value in found["terms"].items()} == {
        name: str(value) for name, value in found["recorded"].items()
    }
    assert found["gradients"] or found["first"]
    # Gone on with, it comes to the same step and says the same.
    with pytest.raises(FloatingPointError, match="at step 1"):
        train_here(data_root, tmp_path / "run", "optimizer.learning_rate=1e30", "resume=true")


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_changes_no_weight(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # finite, with an infinite slope
        at_step(patch, 4, lambda terms: {name: term + (term.detach() - term).sqrt() for name, term in terms.items()})
        with pytest.raises(NonFiniteError, match="the gradient is not finite at step 4"):
            train_here(data_root, tmp_path / "run")
    goes_on_as(whole, data_root, tmp_path / "run")


class Crowded(TinyNetwork):
    """Has memory for one image at a time when it is not training."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.training and len(image) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return super().forward(image)


def test_a_round_without_memory_goes_on_in_halves(
    whole: Path, data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_here(data_root, tmp_path / "run", "model._target_=test_faults.Crowded")
    assert "not enough memory for a batch of 3 images; continuing with 1" in caplog.text
    assert same_weights(whole, tmp_path / "run")
    one, other = (LabelStore.open(run / "labels") for run in (whole, tmp_path / "run"))
    for image in one.images:  # the scores beside them may differ in their last bit, as those of other batches do
        for index in (0, 1):
            picks = [store.picks(image.image_id, index).picks for store in (one, other)]
            np.testing.assert_array_equal(*picks)


@pytest.mark.slow
def test_training_without_memory_says_what_helps(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(terms: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    with monkeypatch.context() as patch:
        at_step(patch, 4, no_memory)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            train_here(data_root, tmp_path / "run")
    line = line_of(caught.value)
    assert line is not None
    for part in ("not enough memory on the device", "data.source_batch=1", "trainer.accumulate", "data.target_size"):
        assert part in line
    assert "\n" not in line
    goes_on_as(whole, data_root, tmp_path / "run")


@pytest.mark.parametrize("error", ["MemoryError('none left')", "RuntimeError('CUDA out of memory')"])
def test_what_helps_against_too_little_memory_is_said_wherever_it_strikes(error: str) -> None:
    """Also where the last line of Python that ran is one of this package."""
    code = compile(f"raise {error}", str(Path(lifecycle.__file__).parent / "losses.py"), "exec")
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        exec(code)
    assert "data.source_batch=1" in (line_of(caught.value) or "")


KILLS = """
import multiprocessing, os, signal
from ripu.module import RipuModule
from ripu.train import main

domain_loss = RipuModule.domain_loss

def loss(self, batch, domain, **more):
    if self.global_step == 3 and domain == "target":
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
    return domain_loss(self, batch, domain, **more)

RipuModule.domain_loss = loss
main()
"""


@pytest.mark.slow
def test_a_dead_worker_is_named(data_root: Path, tmp_path: Path) -> None:
    """Killed by the system in the middle of a step, as when memory runs out."""
    words = ("selection_steps=[3,60]", "trainer.max_steps=80", "pretrain_steps=2")
    given = tiny(data_root, tmp_path / "run", *words, "data.num_workers=2")
    done = subprocess.run(
        [sys.executable, "-c", KILLS, *given],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"data worker(s with process IDs \d+, \d+| with process ID \d+)? died \(", done.stderr)
    assert "lower data.num_workers" in done.stderr
    assert "resume=true" in done.stderr
    assert "Traceback" not in done.stderr  # PyTorch tells a process of its dead workers whenever any child of it ends
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is not None
    train_here(data_root, tmp_path / "whole", *words)
    goes_on_as(tmp_path / "whole", data_root, tmp_path / "run", *words)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("(pid(s) 17) exited unexpectedly", "worker with process ID 17 died (exited unexpectedly)"),
        ("(pid(s) 17, 4) exited unexpectedly", "workers with process IDs 17, 4 died (exited unexpectedly)"),
        ("(pid 17) is killed by signal: Killed. ", "worker with process ID 17 died (killed by signal: Killed)"),
    ],
)
def test_one_dead_worker_or_several(said: str, wanted: str) -> None:
    """As PyTorch says it, which names all that it finds dead at once."""
    assert (line_of(RuntimeError(f"DataLoader worker {said}")) or "").startswith(f"the data {wanted}. Most often")


def hung_up(*, unread: bool) -> Connection:
    """A connection whose other end is closed, by choice with what was sent to it still unread."""
    ours, theirs = Pipe()
    if unread:
        ours.send_bytes(b"never read")
    theirs.close()
    return ours


@pytest.mark.parametrize(
    ("error", "connect"),
    [
        (ConnectionResetError, lambda _: hung_up(unread=True)),
        (EOFError, lambda _: hung_up(unread=False)),
        (FileNotFoundError, lambda _: SocketClient("/nowhere/at/all")),
    ],
)
def test_a_worker_that_dies_while_it_speaks_is_named(
    error: type[Exception], connect: Callable[[Any], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sockets are closed some time before it counts as dead, and PyTorch then has an error of the socket only."""
    loader = DataLoader(TensorDataset(torch.zeros(4, 3)), num_workers=1)
    monkeypatch.setattr("multiprocessing.connection.SocketClient", connect)
    with pytest.raises(error) as caught:
        next(iter(loader))
    line = line_of(caught.value)
    assert line is not None
    assert line.startswith("a data worker died (")
    assert "use data.num_workers=0" in line


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """What a full disk is to a write: it is refused at some byte."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "writer", "name", "call"),
    [
        (lifecycle, "claim", "config.yaml", 1),
        (MetricsFile, "save", "metrics.csv", 2),
        (LabelStore, "write_shard", "labels/answers cannot be written", 2),
        (LabelStore, "commit_round", "labels/answers cannot be written", 2),
        (RunCheckpoint, "save", "checkpoints/step-00000005.ckpt", 3),
        (record, "write_bytes", "report/", 4),
        (lifecycle, "save_final", "checkpoints/final.ckpt", 1),
        (pictures, "write_curve", "learning_curve.png", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_full_disk_is_named_and_what_was_committed_stays(
    owner: Any,
    writer: str,
    name: str,
    call: int,
    whole: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],  # keeps what is printed in memory, out of the limit
) -> None:
    run, calls = tmp_path / "run", 0
    write = getattr(owner, writer)
    gallery = () if owner is record else ("evaluation.gallery=0",)  # whose maps are written in a round too

    def limited(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return write(*args, **more)
        with no_file_larger_than(8000 if owner is RunCheckpoint else 60):  # a checkpoint flushes metrics.csv first
            return write(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, writer, limited)
        with pytest.raises((WriteError, StoreWriteError, SelectionError)) as caught:
            train_here(data_root, run, *gallery)
    line = line_of(caught.value)
    assert line is not None
    assert "\n" not in line
    assert f"{run}/{name}" in line, line
    assert "is full" in line
    assert "free some space" in line
    assert [
        one for one in run.rglob("*tmp*") if one.is_file() and one.stat().st_size == 60 and "config" not in one.name
    ] == []
    if (run / "labels" / "manifest.json").exists():
        assert LabelStore.open(run / "labels").verify() == []
    goes_on_as(whole, data_root, run, *gallery)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "says"),
    [
        ("imports", "stopped"),
        ("setup", "nothing was begun, start again"),
        ("training", "resume=true"),
        ("round", "resume=true"),
        ("evaluation", "resume=true"),
        ("test", "resume=true"),
        ("report", "resume=true"),
    ],
)
def test_ctrl_c_stops_cleanly_at_any_moment(
    moment: str, says: str, data_root: Path, tmp_path: Path, whole: Path
) -> None:
    """A real process is sent the signal that a terminal sends, at a named place of its work."""
    run = tmp_path / "run"
    process = forks.run(
        command("interrupted", moment, *tiny(data_root, run, *ROUNDS)),
        cwd=tmp_path, env=environment(), text=True, timeout=300, fresh=moment == "imports",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )  # fmt: skip
    assert process.returncode == 130, process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("stopped")]
    assert len(lines) == 1, process.stderr
    assert says in lines[0]
    if "resume" in says:
        goes_on_as(whole, data_root, run)
