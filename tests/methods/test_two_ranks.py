"""Every method on two processes, which fail or are killed, and resumed: the same as without a break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from method_runs import OTHERS, files_of, pseudo_bytes, words
from rank_job import run_group
from running import label_bytes, same_weights, tiny


@pytest.fixture(scope="module")
def two_ranks(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs ``NAME-whole`` and ``NAME-resumed`` of every method, all of them in two groups of processes."""
    folder = tmp_path_factory.mktemp("two_ranks")

    def job(name: str, run: str, *more: str, fails_at: int | None = None) -> dict[str, Any]:
        given = (*words(name), *files_of(folder, name, data_root), "trainer.devices=2", "trainer.strategy=ddp", *more)
        line = tiny(data_root, folder / f"{name}-{run}", *given)
        return {"words": line, "fails_at": fails_at, "killed": fails_at is not None and name == OTHERS[-1]}

    wholes = [job(name, "whole") for name in OTHERS]
    broken = [job(name, "resumed", fails_at=6) for name in OTHERS]  # after the second round or renewal
    status, logs = run_group([*wholes, *broken], folder), [folder / "0.log", folder / "1.log"]
    assert status == [-9, -9], [log.read_text()[-4000:] for log in logs]
    assert not [*folder.glob("*-resumed/results.json")]
    status = run_group([job(name, "resumed", "resume=true") for name in OTHERS], folder)
    assert status == [0, 0], [log.read_text()[-4000:] for log in logs]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_run_that_was_broken_off_learns_the_same(name: str, two_ranks: Path) -> None:
    whole, resumed = two_ranks / f"{name}-whole", two_ranks / f"{name}-resumed"
    assert same_weights(whole, resumed)
    assert pseudo_bytes(whole) == pseudo_bytes(resumed)
    assert (whole / "labels").exists() == (resumed / "labels").exists()
    if (whole / "labels").exists():
        assert label_bytes(whole) == label_bytes(resumed)
