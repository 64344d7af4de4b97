"""Runs under limits of Windows and macOS: without fcntl, resource and fork, and with processes that are spawned."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from running import ROOT, SUPPORT, call, label_bytes, same_weights, tiny, train_here
from trees import write_camvid

OTHER_SYSTEM = os.pathsep.join(map(str, (SUPPORT / "other_system", SUPPORT, ROOT / "src")))


def call_there(module: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = call(module, *words, cwd=cwd, PYTHONPATH=OTHER_SYSTEM, RIPU_TESTED_AS_OTHER_SYSTEM="1")
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_every_command_works_there_and_gives_the_same_bytes(tmp_path: Path) -> None:
    data, here, there = tmp_path / "data", tmp_path / "here", tmp_path / "a run (there)"
    folder = write_camvid(data)
    rounds = ("selection_steps=[3]", "pretrain_steps=2", "trainer.max_steps=4")
    train_here(data, here, *rounds)
    call_there("ripu.train", *tiny(data, there, *rounds, "data.num_workers=1"), cwd=tmp_path)
    assert same_weights(here, there)
    assert label_bytes(here) == label_bytes(there)

    (there / "checkpoints" / "final.ckpt").unlink()
    (there / "results.json").unlink()
    call_there("ripu.train", *tiny(data, there, *rounds), "resume=true", cwd=tmp_path)
    assert same_weights(here, there)
    call_there("ripu.labels", "verify", str(there), cwd=tmp_path)
    call_there("ripu.report", str(there), "--html", cwd=tmp_path)
    call_there("ripu.predict", f"checkpoint='{there}'", f"input='{folder / 'test'}'", "output=out", cwd=tmp_path)
    assert any((tmp_path / "out").iterdir())
    call_there("ripu.doctor", "dataset=camvid", f"paths.data_root='{data}'", "num_workers=2", cwd=tmp_path)
