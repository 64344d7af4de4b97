"""Runs that share what comes before the first round end as if each had trained it."""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import forks
from ripu.datasets.coco_labels import CocoLabels
from ripu.io.errors import ConfigError
from ripu.run.assembly.data import make_scenes
from ripu.run.shared_beginning import Beginning, _foreign_code, digest_of
from ripu.schedule import Plan
from running import ROUNDS, command, environment, label_bytes, same_weights, spec, tiny, train_here


def state(shared: Path) -> list[str]:
    return sorted(str(path.relative_to(shared)) for path in shared.glob("*/state/checkpoints/*.ckpt"))


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    timed = ("system/", "al/seconds", "al/images_per_second", "train/images_per_second")
    return [{name: value for name, value in row.items() if not name.startswith(timed)} for row in rows]


@pytest.mark.parametrize(
    "first", ["selection_steps=[4,5]", "selection_steps=[3,5]"]
)  # within a phase, and at an end of one
def test_the_second_run_goes_on_from_the_first(first: str, data_root: Path, tmp_path: Path) -> None:
    shared, rounds = tmp_path / "shared", (first, "pretrain_steps=2")
    score = ("acquisition=entropy",)
    alone = train_here(data_root, tmp_path / "alone", *rounds, *score)
    train_here(data_root, tmp_path / "first", *rounds, f"paths.beginnings={shared}")
    assert len(state(shared)) == 1
    second = train_here(data_root, tmp_path / "second", *rounds, *score, f"paths.beginnings={shared}")
    assert len(state(shared)) == 1
    assert same_weights(tmp_path / "alone", tmp_path / "second")
    assert not same_weights(tmp_path / "first", tmp_path / "second")
    assert label_bytes(tmp_path / "alone") == label_bytes(tmp_path / "second")
    for key in ("mIoU", "per_class_iou", "evaluations", "labelled_fraction"):
        assert alone[key] == second[key]
    assert metrics(tmp_path / "alone") == metrics(tmp_path / "second")
    pictures = sorted((tmp_path / "alone" / "panel").iterdir())
    assert pictures
    for path in pictures:
        assert path.read_bytes() == (tmp_path / "second" / "panel" / path.name).read_bytes()


def test_what_matters_before_the_first_round_is_in_the_key(data_root: Path, tmp_path: Path) -> None:
    def key(*more: str) -> str:
        run = spec(*tiny(data_root, tmp_path / "run", *ROUNDS, *more))
        return digest_of(run, make_scenes(run))

    same = [
        "mode=pa",
        "acquisition=random",
        "budget=0.05",
        "mode.radius=2 mode.suppress_radius=4",
        "data.num_workers=2",
    ]
    same += ["selection_steps=[3,6]", f"paths.output_dir={tmp_path}/other", "resume=true", "checkpoint.keep=5"]
    other = ["seed=1", "objective.negative_weight=0", "objective.consistency_weight=0", "data.source_batch=1"]
    other += ["pretrain_steps=1"]
    other += ["optimizer.learning_rate=0.1", "selection_steps=[4,5]", "trainer.max_steps=8", "model.dropout=0.2"]
    other = ["+" + words if words.startswith("model.") else words for words in other]
    assert {key(*words.split()) for words in same} == {key()}
    assert len({key(), *(key(*words.split()) for words in other)}) == len(other) + 1
    image = next(data_root.rglob("train/*.png"))
    before, status = key(), image.stat()
    image.touch()
    try:
        assert key() != before
    finally:
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_edits_of_code_outside_the_package_are_noticed(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "own_parts.py"
    code.write_text("from tiny import TinyNetwork\nclass Net(TinyNetwork): pass\nclass Flip: pass\n")
    (tmp_path / "own_score.py").write_text("class Score: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def key(*more: str) -> str:
        run = spec(*tiny(data_root, tmp_path / "run", *ROUNDS, *more))
        return digest_of(run, make_scenes(run))

    network = "model._target_=own_parts.Net"
    listed = "data.transforms=[{_target_: own_parts.Flip}]"
    scored = "acquisition._target_=own_score.Score"
    before = key(), key(network), key(listed), key(scored)
    assert before[0] == before[3]
    code.write_text(code.read_text() + "# edited\n")
    (tmp_path / "own_score.py").write_text("class Score: x = 1\n")
    after = key(), key(network), key(listed), key(scored)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False, True]


def test_an_edit_of_a_base_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_base.py").write_text("class Base: pass\n")
    (tmp_path / "own_child.py").write_text("from own_base import Base\nclass Net(Base): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"_target_": "ripu.acquisition.UncertaintyOnly"}
    found = _foreign_code({"model": {"_target_": "own_child.Net"}, "a": [own]})
    assert found == [tmp_path / "own_base.py", tmp_path / "own_child.py"]
    assert _foreign_code({"model._target_": "builtins.dict"}) == []


def test_another_way_to_read_labels_is_noticed(data_root: Path, tmp_path: Path) -> None:
    run = spec(*tiny(data_root, tmp_path / "run", *ROUNDS))
    scenes = make_scenes(run)
    other = replace(scenes, val=replace(scenes.val, decode_label=CocoLabels(("road",), sources=["labels.json 1 2"])))
    edited = replace(scenes, val=replace(scenes.val, decode_label=CocoLabels(("road",), sources=["labels.json 1 3"])))
    assert len({digest_of(run, one) for one in (scenes, other, edited)}) == 3


@pytest.mark.slow
def test_two_processes_at_once_train_it_once(data_root: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    words = [
        tiny(data_root, tmp_path / name, *ROUNDS, f"acquisition={name}", f"paths.beginnings={shared}")
        for name in ("ripu", "random")
    ]
    running = [
        forks.start(command("ripu.train", *one), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        for one in words
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert len(state(shared)) == 1
    for name in ("ripu", "random"):
        train_here(data_root, tmp_path / f"{name}-alone", f"acquisition={name}")
        assert same_weights(tmp_path / name, tmp_path / f"{name}-alone")


def test_a_damaged_state_is_trained_again(data_root: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    train_here(data_root, tmp_path / "first", f"paths.beginnings={shared}")
    (shared / state(shared)[0]).write_bytes(b"no checkpoint")
    train_here(data_root, tmp_path / "second", f"paths.beginnings={shared}")
    assert same_weights(tmp_path / "first", tmp_path / "second")


def test_several_processes_are_refused(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths\.beginnings=.*trainer\.devices=1"):
        train_here(data_root, tmp_path / "run", f"paths.beginnings={tmp_path}", "trainer.devices=2")


@pytest.mark.parametrize(
    "codes", [[errno.ENOSYS], [errno.EAGAIN, errno.ENOLCK]], ids=["no locks", "lost while waiting"]
)
def test_without_locks_nothing_is_shared(
    codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter(codes)

    def flock(*arguments: object) -> None:
        raise OSError(code := next(errors), os.strerror(code))

    run, shared = tmp_path / "run", tmp_path / "shared"
    state = shared / "key" / "state" / "checkpoints"
    state.mkdir(parents=True)
    plan = Plan(4, 0, (2,))
    beginning = Beginning(shared, "key", plan, run)
    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level("WARNING"):
        assert not beginning.take()
    assert f"this file system has no locks ({os.strerror(codes[-1])})" in caplog.messages[-2]
    assert caplog.messages[-1].endswith("trains its beginning for itself and shares none")
    assert len(caplog.messages) == len(codes) + 1
    trainer = SimpleNamespace(global_step=beginning.step)
    beginning.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    beginning.close()
    assert not run.exists()
    assert sorted(path.name for path in (shared / "key").iterdir()) == ["lock", "state"]


def test_the_journal_and_key_of_a_page_stay_with_their_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    (run / "annotation").mkdir(parents=True)
    (run / "annotation" / "server.json").write_text("{}")
    (run / "metrics.csv").write_text("step")
    beginning = Beginning(tmp_path / "shared", "key", Plan(4, 0, (2,)), run)
    assert not beginning.take()
    monkeypatch.setattr("ripu.run.shared_beginning.RunCheckpoint.save", lambda self, trainer: None)
    trainer = SimpleNamespace(global_step=beginning.step, loggers=[])
    beginning.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "shared" / "key" / "state").iterdir()] == ["metrics.csv"]
