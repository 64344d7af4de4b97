"""Composed configurations and tiny training runs, in this process or in a subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

import forks
from ripu.config.checks import checked_spec
from ripu.config.nodes import plain
from ripu.config.spec import RunSpec, make_spec
from ripu.config.validate import config_dir

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]


def compose(*overrides: str, config_name: str = "train") -> DictConfig:
    """Compose the configuration of a command line."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return hydra_compose(config_name, list(overrides))


def spec_of(cfg: DictConfig) -> RunSpec:
    """Return the run of a composed configuration, not checked."""
    return make_spec(plain(cfg))


def spec(*overrides: str) -> RunSpec:
    """Return the run of a command line, not checked."""
    return spec_of(compose(*overrides))


TINY = {
    "optimizer": "sgd",
    "objective.class_balance": 0,
    "ema.decay": "null",
    "data.source_batch": 2,
    "data.target_batch": 2,
    "model._target_": "tiny.TinyNetwork",
    "data.source_size": "[32,48]",
    "data.target_size": "[32,48]",
    "data.num_workers": 0,
    "trainer.max_steps": 7,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.log_every_n_steps": 1,
    "evaluation.pictures": 1,
}
"""A run that takes seconds, with the paper's training, which the recipes of small data sets go beyond."""


def tiny(data_root: Path, run: Path, *extra: str, dataset: str = "camvid") -> list[str]:
    """Return the overrides of a run of TINY, without the keys that ``extra`` gives."""
    given = {word.lstrip("+~").partition("=")[0] for word in extra}
    if "objective" in given:  # a teacher is an average
        given.add("ema.decay")
    if {"setting=target_only", "setting=source_free"} & {*extra}:
        given.add("data.source_batch")
    words = {"dataset": dataset, "paths.data_root": data_root, "paths.output_dir": run, **TINY}
    return [*(f"{key}={value}" for key, value in words.items() if key not in given), *extra]


ROUNDS = ("selection_steps=[3,5]", "pretrain_steps=2")


def train_here(data_root: Path, run: Path, *extra: str, dataset: str = "camvid") -> dict[str, Any]:
    """Train in this process, on one thread like the subprocesses; two rounds unless ``setting=`` is given."""
    import torch

    from ripu.train import train

    has_rounds = not any(word.startswith("setting=") for word in extra)
    cfg = compose(*tiny(data_root, run, *(ROUNDS if has_rounds else ()), *extra, dataset=dataset))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(checked_spec(cfg))
    finally:
        torch.set_num_threads(threads)


def untrained_checkpoint(folder: Path, *extra: str) -> Path:
    """Write what training leaves, of a network that was not trained and whose data are nowhere."""
    import torch

    from ripu.run.assembly.network import make_module

    cfg = compose(*tiny(Path("nowhere"), folder / "run", *ROUNDS, *extra))
    path = folder / "final.ckpt"
    state = make_module(spec_of(cfg)).state_dict()
    torch.save({"state_dict": state, "hyper_parameters": {"config": plain(cfg)}}, path)
    return path


def command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a subprocess, which finds this folder's modules and uses one thread."""
    path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **more}


def call(module: str, *words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a module as a command and wait for it."""
    return forks.run(command(module, *words), cwd=cwd, env=environment(**more), text=True, timeout=400)


def call_printed(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that was printed, with the words that a shell makes of it."""
    words = line.replace("python", r"printf '%s\0'", 1)
    given = subprocess.run(["/bin/sh", "-c", words], cwd=cwd, capture_output=True, text=True, check=True).stdout
    command = [sys.executable, *given.split("\0")[:-1]]
    return forks.run(command, cwd=cwd, env=environment(), text=True, timeout=400)


def kill_after(step: int, run: Path, *words: str) -> None:
    """Start training, and kill all its processes once it has saved a checkpoint of a step after ``step``."""
    log = run.parent / f"{run.name}.log"
    with log.open("w") as file:
        process = forks.start(
            command("ripu.train", *words),
            cwd=run.parent,
            env=environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        deadline = time.monotonic() + 200
        while not any(int(path.stem.split("-")[1]) > step for path in run.glob("checkpoints/step-*.ckpt")):
            assert time.monotonic() < deadline
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (run / "results.json").exists()


def no_checkpoint_of(step: int) -> AbstractContextManager[None]:
    """Let a run fail when it saves the checkpoint of a step."""
    from ripu.training.checkpoint_callback import RunCheckpoint

    return _failing(RunCheckpoint, "save", lambda self, trainer: trainer.global_step == step)


def failing_at(step: int) -> AbstractContextManager[None]:
    """Let a run fail when a training step begins."""
    from ripu.module import RipuModule

    return _failing(RipuModule, "on_train_batch_start", lambda self, *_: self.global_step == step)


@contextmanager
def _failing(owner: type, name: str, when: Callable[..., bool]) -> Iterator[None]:
    import pytest

    method = getattr(owner, name)

    def fail(self: Any, *arguments: Any) -> Any:
        if when(self, *arguments):
            raise MemoryError("the power went out")
        return method(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):  # noqa: PT012
        patch.setattr(owner, name, fail)
        yield


def weights(run: Path, name: str = "final.ckpt") -> dict[str, Any]:
    """Load the tensors of a run's checkpoint."""
    import torch

    state: dict[str, Any] = torch.load(run / "checkpoints" / name, map_location="cpu", weights_only=True)["state_dict"]
    return state


def same_weights(first: Path, second: Path) -> bool:
    """Compare the final tensors of two runs, bit by bit."""
    import torch

    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def label_bytes(run: Path) -> dict[str, bytes]:
    """Read every file of a run's label store except the lock."""
    return {path.name: path.read_bytes() for path in sorted((run / "labels").iterdir()) if path.name != "lock"}
