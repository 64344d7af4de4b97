from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from fake_trainer import FakeTrainer, save
from ripu.models.checkpoints import newest_checkpoint
from ripu.schedule import Plan
from ripu.training.checkpoint_callback import RunCheckpoint, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def checkpoint(folder: Path, **options: Any) -> RunCheckpoint:
    return RunCheckpoint(folder, Plan(100, 0, (20,)), **options)


def test_the_newest_are_kept_each_with_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(checkpoint(folder, keep=2), FakeTrainer(folder), 3, 5, 9)
    assert names(folder) == [
        "step-00000005.ckpt", "step-00000005.sha256", "step-00000009.ckpt", "step-00000009.sha256",
    ]  # fmt: skip
    newest = newest_checkpoint(folder)
    assert newest == folder / "step-00000009.ckpt"
    digest = hashlib.sha256(newest.read_bytes()).hexdigest()
    assert newest.with_suffix(".sha256").read_text().strip() == digest


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["cut off", "changed", "no digest"])
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    save(checkpoint(folder), FakeTrainer(folder), 3, 5)
    newest = folder / "step-00000005.ckpt"
    if damage == "cut off":
        newest.write_bytes(newest.read_bytes()[:-4])
    elif damage == "changed":
        newest.write_bytes(newest.read_bytes().replace(b"5", b"6"))
    else:
        newest.with_suffix(".sha256").unlink()
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(folder) == folder / "step-00000003.ckpt"
    assert "step-00000005.ckpt is damaged" in caplog.text
    (folder / "step-00000003.ckpt").write_bytes(b"")
    assert newest_checkpoint(folder) is None


@pytest.mark.parametrize("keep", [1, 2])
def test_after_going_back_the_new_ones_are_kept_not_the_damaged(tmp_path: Path, keep: int) -> None:
    folder = tmp_path / "checkpoints"
    trainer = FakeTrainer(folder)
    save(checkpoint(folder, keep=3), trainer, 3, 5, 7)
    for step in (5, 7):
        (folder / f"step-{step:08d}.ckpt").write_bytes(b"damaged")
    save(checkpoint(folder, keep=keep), trainer, 4)  # the run went on from step 3
    assert newest_checkpoint(folder) == folder / "step-00000004.ckpt"


def test_a_step_is_saved_once_and_a_damaged_one_of_the_same_step_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    trainer, callback = FakeTrainer(folder), checkpoint(folder)
    save(callback, trainer, 5)
    path = folder / "step-00000005.ckpt"
    path.write_bytes(b"damaged")
    save(callback, trainer, 5)
    assert path.read_bytes() == b"damaged"
    save(checkpoint(folder), trainer, 5)
    assert newest_checkpoint(folder) == path


def test_due_steps_are_saved_but_ends_of_phases_wait_for_their_round(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    trainer: Any = FakeTrainer(folder)
    callback = checkpoint(folder, every_steps=5, keep=100)
    for step in range(1, 26):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    assert [path.stem for path in sorted(folder.glob("*.ckpt"))] == [f"step-{step:08d}" for step in (5, 10, 15, 25)]
    trainer.global_step = 20
    callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert (folder / "step-00000020.ckpt").exists()


def test_minutes_count(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    trainer: Any = FakeTrainer(folder)
    callback = checkpoint(folder, every_minutes=1e-9)
    trainer.global_step = 2
    callback.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    assert newest_checkpoint(folder) == folder / "step-00000002.ckpt"


@pytest.mark.parametrize(
    ("error", "step", "is_saved"),
    [
        (KeyboardInterrupt(), 7, True),
        (FloatingPointError(), 7, True),
        (RuntimeError(), 20, False),
        (RuntimeError(), 0, False),
    ],
)
def test_an_error_saves_what_is_whole(tmp_path: Path, error: BaseException, step: int, is_saved: bool) -> None:
    folder = tmp_path / "checkpoints"
    trainer: Any = FakeTrainer(folder)
    trainer.global_step = step
    checkpoint(folder).on_exception(trainer, None, error)  # type: ignore[arg-type]
    assert (newest_checkpoint(folder) is not None) == is_saved


@pytest.mark.parametrize("options", [{"keep": 0}, {"every_minutes": 0.0}, {"every_steps": 0}])
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        checkpoint(tmp_path, **options)


def test_what_a_killed_process_left_half_done_goes_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(checkpoint(folder, keep=3), FakeTrainer(folder), 3, 5, 7)
    (folder / "step-00000003.sha256").unlink()  # its removal was broken off
    (folder / "step-00000008.ckpt").write_text("not finished")
    (folder / "step-00000009.sha256").write_text("no checkpoint yet")
    (tmp_path / "report").mkdir()
    half = [".tmp-config.yaml-12", "report/.tmp-progress.json-12"]
    half += ["checkpoints/step-00000009.tmp", "checkpoints/.tmp-step-00000009.sha256-12", "checkpoints/final.tmp"]
    kept = ["config.yaml", "notes.tmp", "report/progress.json", "checkpoints/final.ckpt"]
    for name in half + kept:
        (tmp_path / name).write_text(name)
    (tmp_path / ".tmp-panel").mkdir()
    (tmp_path / ".tmp-panel" / "val-00000.png").write_text("half")
    (tmp_path / ".ripu-12-0a1b2c3d").mkdir()
    remove_leftovers(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        *kept,
        *(f"checkpoints/step-0000000{step}.{ending}" for step in (5, 7) for ending in ("ckpt", "sha256")),
        "checkpoints/step-00000008.ckpt",
    }
    assert not (tmp_path / ".tmp-panel").exists()
    assert not (tmp_path / ".ripu-12-0a1b2c3d").exists()


def test_another_number_of_processes_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = FakeTrainer(tmp_path / "checkpoints")
    first = checkpoint(tmp_path / "checkpoints")
    first.on_train_start(trainer, None)  # type: ignore[arg-type]
    again = checkpoint(tmp_path / "checkpoints")
    again.load_state_dict(first.state_dict())
    again.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert not caplog.records
    trainer.world_size, trainer.global_step = 2, 5
    again.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert "used 1 processes until step 5 and now resumes with 2" in caplog.text


def test_a_checkpoint_and_its_digest_are_on_the_disk_before_the_one_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name.partition(".sha256-")[0])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    folder = tmp_path / "checkpoints"
    save(checkpoint(folder), FakeTrainer(folder), 3)
    assert synced == ["step-00000003.tmp", ".tmp-step-00000003", "checkpoints", "checkpoints"]
