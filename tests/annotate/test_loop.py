"""A run that asks people ends with the bytes of one that asks label files, if they give the same answers."""

from __future__ import annotations

import json
import re
import shlex
import time

import numpy as np
import pytest

import forks
import trees
from annotation import COLORS
from ripu.annotate.journal import Answer
from ripu.annotate.questions import parse_qid
from ripu.annotate.session import Session
from ripu.labelstore import LabelReader, LabelStore
from ripu.labelstore.cut import take_cut
from ripu.run.assembly.data import load_parts
from running import ROUNDS, call, command, environment, same_weights, spec, tiny


def revealed(run):
    store = LabelReader(run / "labels")
    return {
        (image.image_id, number): store.revealed_label(image.image_id, number).tobytes()
        for image in store.images
        for number in range(store.num_rounds + 1)
    }


def answer_with_truth(run, data, close=True):
    """Answer every open question of a run as its label files would."""
    store = LabelStore.open(run / "labels")
    scenes = load_parts(spec(*tiny(data, run, *ROUNDS)).dataset, parts=("target",))["target"]
    labels = {scene.image_id: scenes.require_label(index) for index, scene in enumerate(scenes.scenes)}
    session = Session(run, store, [COLORS[0]] * len(store.class_names))
    try:
        while True:
            questions, _ = session.next_questions("truth", 16)
            if not questions:
                break
            session.save(
                [
                    Answer(
                        one.qid,
                        *parse_qid(one.qid),
                        "truth",
                        labels[one.image_id][one.pixels[:, 0], one.pixels[:, 1]],
                        1200,
                    )
                    for one in questions
                ]
            )
        if close:
            session.close("truth")
    finally:
        session.close_journal()


def close_without_answers(run):
    store = LabelStore.open(run / "labels")
    session = Session(run, store, [COLORS[0]] * len(store.class_names))
    session.close("ann")
    session.close_journal()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    trees.write_camvid(root)
    return root


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("truth") / "run"
    done = call("ripu.train", *tiny(data, run, *ROUNDS), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return run


def check_same(run, reference):
    assert same_weights(run, reference)
    assert revealed(run) == revealed(reference)
    mine, other = (json.loads((one / "results.json").read_text()) for one in (run, reference))
    assert mine["mIoU"] == other["mIoU"]
    for a, b in zip(mine["rounds"], other["rounds"], strict=True):
        assert {key: a[key] for key in ("picks", "class_pixels", "new_class_pixels", "labelled_fraction", "mIoU")} == {
            key: b[key] for key in ("picks", "class_pixels", "new_class_pixels", "labelled_fraction", "mIoU")
        }
        assert a["human_hours"] > 0


@pytest.mark.slow
def test_a_run_that_exits_and_resumes_is_the_run_of_label_files(data, reference, tmp_path):
    run = tmp_path / "a run"
    words = tiny(data, run, *ROUNDS, "oracle=human")
    for number in range(2):
        asked = call("ripu.train", *words, *(["resume=true"] if number else []), cwd=tmp_path)
        assert asked.returncode == 75, asked.stderr
        (line,) = [one for one in asked.stdout.splitlines() if "waits for answers" in one]
        assert re.fullmatch(rf"round {number + 1} waits for answers: (.*); then resume with: (.*)", line)
        assert "'a run'" in line or "a run" in shlex.split(line.partition(": ")[2])[3]
        began = time.monotonic()
        again = call("ripu.train", *words, "resume=true", cwd=tmp_path)
        assert (again.returncode, again.stdout.splitlines()[-1]) == (75, line)
        assert time.monotonic() - began < 20
        answer_with_truth(run, data)
    done = call("ripu.train", *words, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_same(run, reference)


@pytest.mark.slow
def test_a_run_that_holds_goes_on_when_the_round_is_closed(data, reference, tmp_path):
    run = tmp_path / "run"
    words = tiny(data, run, *ROUNDS, "oracle=human", "oracle.wait=hold", "oracle.hold_minutes=5")
    process = forks.start(command("ripu.train", *words), cwd=tmp_path, env=environment())
    try:
        for number in range(2):
            until = time.monotonic() + 240
            while not (run / "checkpoints" / f"step-{(3, 5)[number]:08d}.ckpt").exists():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            answer_with_truth(run, data)
        assert process.wait(240) == 0
    finally:
        process.kill()
    check_same(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["exit", "hold"])
def test_two_processes_wait_and_resume_together(data, tmp_path, wait):
    rounds = ("selection_steps=[3]", "pretrain_steps=2", "trainer.devices=2", "trainer.strategy=ddp")
    truth, run = tmp_path / "truth", tmp_path / "run"
    done = call("ripu.train", *tiny(data, truth, *rounds), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = [*tiny(data, run, *rounds), "oracle=human", f"oracle.wait={wait}", "oracle.hold_minutes=5"]
    process = forks.start(command("ripu.train", *words), cwd=tmp_path, env=environment())
    try:
        if wait == "exit":
            assert process.wait(300) == 75
            answer_with_truth(run, data)
            assert call("ripu.train", *words, "resume=true", cwd=tmp_path).returncode == 0
        else:
            until = time.monotonic() + 240
            while not (run / "checkpoints" / "step-00000003.ckpt").exists():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            answer_with_truth(run, data)
            assert process.wait(240) == 0
    finally:
        process.kill()
    check_same(run, truth)


@pytest.mark.slow
def test_a_round_before_the_first_step_waits_too(data, tmp_path):
    rounds = ("selection_steps=[0,4]", "pretrain_steps=0")
    truth, run = tmp_path / "truth", tmp_path / "run"
    done = call("ripu.train", *tiny(data, truth, *rounds), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = tiny(data, run, *rounds, "oracle=human")
    for number in range(2):
        asked = call("ripu.train", *words, *(["resume=true"] if number else []), cwd=tmp_path)
        assert asked.returncode == 75, asked.stderr
        assert call("ripu.train", *words, "resume=true", cwd=tmp_path).returncode == 75
        answer_with_truth(run, data)
    assert call("ripu.train", *words, "resume=true", cwd=tmp_path).returncode == 0
    check_same(run, truth)


@pytest.mark.slow
def test_predictions_of_the_asked_pixels_are_kept(data, tmp_path):
    run = tmp_path / "run"
    asked = call("ripu.train", *tiny(data, run, *ROUNDS, "oracle=human", "oracle.suggest=true"), cwd=tmp_path)
    assert asked.returncode == 75, asked.stderr
    store = LabelStore.open(run / "labels")
    session = Session(run, store, [COLORS[0]] * len(store.class_names))
    for question in session.questions:
        labels = session.current.prediction(question)
        assert labels is not None
        assert len(labels) == len(question.pixels)
        assert labels.max() < len(store.class_names)
    session.close_journal()
    assert not np.any([len(store.answers(image.image_id)[0]) for image in store.images])


@pytest.mark.slow
def test_a_network_that_has_seen_no_label_suggests_nothing_and_a_round_without_labels_is_named(data, tmp_path):
    run = tmp_path / "run"
    words = [*tiny(data, run, "selection_steps=[0,3,5]"), "setting=target_only", "oracle=human", "oracle.suggest=true"]
    for number, resume in enumerate(([], ["resume=true"], ["resume=true"])):
        asked = call("ripu.train", *words, *resume, cwd=tmp_path)
        assert asked.returncode == 75, asked.stderr
        assert asked.stdout.count("closed without an answer: no target label is known yet") == (number == 1)
        assert bool(list((run / "annotation").glob(f"predictions-{number:03d}-*"))) is (number == 2)
        answer_with_truth(run, data) if number else close_without_answers(run)


@pytest.mark.slow
def test_an_undone_round_is_asked_and_closed_again(data, tmp_path):
    run = tmp_path / "run"
    words = tiny(data, run, *ROUNDS, "oracle=human")
    assert call("ripu.train", *words, cwd=tmp_path).returncode == 75
    answer_with_truth(run, data)
    (run / "annotation" / "taken-000").touch()  # as if the run had gone on
    assert call("ripu.labels", "undo", str(run), cwd=tmp_path).returncode == 0
    again = call("ripu.train", *words, "resume=true", cwd=tmp_path)
    assert (again.returncode, again.stdout.splitlines()[-1].partition(":")[0]) == (75, "round 1 waits for answers")
    store = LabelStore.open(run / "labels")
    session = Session(run, store, [COLORS[0]] * len(store.class_names))
    assert session.state == "open"
    assert session.current.counts()["answered"] == len(session.questions)  # the same questions
    session.close("ann")
    session.reopen("ann")
    session.close("ann")
    session.close_journal()
    with LabelStore.open(run / "labels", write=True) as store:
        take_cut(store, run / "annotation", 0)
        assert not sum(len(store.unanswered(image.image_id)) for image in store.images)
    assert (run / "annotation" / "undone-000.dat").exists()
