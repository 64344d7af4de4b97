import contextlib
import sqlite3

import numpy as np
import pytest

from annotation import (
    IMAGES,
    add_round,
    answer,
    answer_all,
    grid_picks,
    make_run,
    open_session,
    true_labels,
    truth,
)
from ripu.annotate.errors import (
    AnnotationError,
    OtherRoundError,
    RoundClosedError,
)
from ripu.annotate.open_round import Settings
from ripu.io.writing import WriteError
from ripu.labelstore import LabelStore
from ripu.labelstore.cut import Cut, set_aside, take_cut


def test_the_run_takes_exactly_the_answers_of_the_closed_round(session, tmp_path):
    answer_all(session)
    session.close("ann")
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        cut = take_cut(store, session.folder, 0)
        assert cut is not None
        assert cut.facts["answered"] == 120
        assert cut.facts["seconds"] == 180
        for number, image in enumerate(IMAGES):
            asked = store.asked_mask(image.image_id)
            assert np.array_equal(store.revealed_label(image.image_id), np.where(asked, truth(number), 255))
            assert not len(store.unanswered(image.image_id))
        assert len(store.log.answers) == 1
        take_cut(store, session.folder, 0)
        assert len(store.log.answers) == 1


def test_a_closed_round_takes_no_answer_and_opens_again_until_the_run_goes_on(session, tmp_path):
    questions, _ = session.next_questions("ann", 2)
    session.save([answer(questions[0], true_labels(questions[0]))])
    session.close("ann")
    assert session.state == "closed"
    for refused in (
        lambda: session.save([answer(questions[1], true_labels(questions[1]))]),
        lambda: session.undo("ann", f"ann-{questions[0].qid}"),
        lambda: session.close("ann"),
        lambda: session.next_questions("ann", 1),
        lambda: session.import_answers("x", []),
    ):
        with pytest.raises(RoundClosedError, match="round 1 is closed"):
            refused()
    session.reopen("ann")
    assert session.state == "open"
    with pytest.raises(AnnotationError, match="not closed"):
        session.reopen("ann")
    session.save([answer(questions[1], true_labels(questions[1]))])
    session.close("ann")
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        take_cut(store, session.folder, 0)
    with pytest.raises(AnnotationError, match="begun to train"):
        session.reopen("ann")
    assert Cut(session.folder, session.store, 0).facts["answered"] == 2


def test_late_answers_go_with_the_next_round(tmp_path):
    run = make_run(tmp_path, per_image=20)
    session = open_session(run)
    first = session.next_questions("ann", 2)[0]
    session.save([answer(first[0], true_labels(first[0]))])
    session.close("ann")
    with LabelStore.open(run / "labels", write=True) as store:
        take_cut(store, session.folder, 0)
        add_round(store, 1, per_image=20)
    assert session.state == "open"
    assert session.questions.round == 1
    report = session.import_answers("late", [(first[1].qid, true_labels(first[1]))])
    assert report.new == 1
    fresh = session.next_questions("ann", 1)[0][0]
    session.save([answer(fresh, true_labels(fresh))])
    session.close("ann")
    with LabelStore.open(run / "labels", write=True) as store:
        before = sum(len(store.answers(image.image_id)[0]) for image in IMAGES)
        earlier_phase = [store.revealed_label(image.image_id, 1) for image in IMAGES]
        take_cut(store, session.folder, 1)
        after = sum(len(store.answers(image.image_id)[0]) for image in IMAGES)
        for image, label in zip(IMAGES, earlier_phase, strict=True):  # a run that goes back to that phase sees the same
            np.testing.assert_array_equal(store.revealed_label(image.image_id, 1), label)
    session.close_journal()
    assert after - before == len(first[1].pixels) + len(fresh.pixels)


def test_a_time_box_closes_the_round(tmp_path):
    session = open_session(make_run(tmp_path), Settings(hours=10 / 3600))
    for _ in range(2):
        question = session.next_questions("ann", 1)[0][0]
        session.save([answer(question, true_labels(question), ms=5000)])
    assert session.state == "closed"
    session.close_journal()


def ask_anew(run, *, radius=1, per_image=40, seed=9):
    """Undo round 0 and ask other pixels under its number, as a resumed run does."""
    with LabelStore.open(run / "labels", write=True) as store:
        store.undo_round(0)
        set_aside(run / "annotation", 0)
        spec = store.begin_round(0, 10, per_image, reveal_radius=radius, suppress_radius=2 * radius)
        store.add_round(spec, grid_picks(radius, per_image, seed))


@pytest.mark.parametrize("is_open", [False, True], ids=["server stopped", "server open"])
def test_answers_to_an_undone_round_do_not_count_for_the_one_asked_anew(tmp_path, clock, is_open):
    session = open_session(make_run(tmp_path), clock=clock)
    old = answer_all(session)
    digest = session.classes_digest
    session.close("ann")
    if not is_open:
        session.close_journal()
    ask_anew(tmp_path)
    if not is_open:
        session = open_session(tmp_path, clock=clock)
    assert session.state == "open"
    assert session.current.counts()["unanswered"] == len(session.questions) == 120
    with pytest.raises(OtherRoundError, match="asked again"):
        session.save([answer(old[0], true_labels(old[0]), name="late")], 0, digest)
    session.import_answers("ann", [(one.qid, true_labels(one)) for one in session.questions])
    session.close("ann")
    session.reopen("ann")
    session.close("ann")
    session.close_journal()
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        take_cut(store, session.folder, 0)
        for number, image in enumerate(IMAGES):
            asked = store.asked_mask(image.image_id)
            assert np.array_equal(store.revealed_label(image.image_id), np.where(asked, truth(number), 255))
    with contextlib.closing(sqlite3.connect(session.folder / "journal.sqlite")) as rows:
        assert rows.execute("SELECT count(*) FROM answers WHERE undone IS NOT NULL").fetchone() == (120,)


def test_a_round_asked_anew_with_the_same_questions_keeps_its_answers(tmp_path, clock):
    session = open_session(make_run(tmp_path), clock=clock)
    answer_all(session)
    ask_anew(tmp_path, seed=0)
    assert session.current.counts()["answered"] == 120
    session.close_journal()


def next_round(session, tmp_path):
    session.close("ann")
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        take_cut(store, session.folder, 0)
        add_round(store, 1)


def test_an_answer_that_was_saved_unheard_is_known_after_its_round(session, tmp_path):
    first, second = list(session.questions)[:2]
    saved = answer(first, true_labels(first))
    session.save([saved])
    session.close("ann")
    assert session.save([saved]) == 1
    with pytest.raises(RoundClosedError):
        session.save([saved, answer(second, true_labels(second))])
    session.reopen("ann")
    next_round(session, tmp_path)
    assert session.save([saved], 0) == 1
    assert session.current.counts()["answered"] == 0


def test_an_answer_that_the_run_has_taken_is_not_undone(session, tmp_path):
    question = next(iter(session.questions))
    session.save([answer(question, true_labels(question), name="old")])
    next_round(session, tmp_path)
    assert not session.undo("ann", "old")
    assert session.final_labels(question) is not None


def test_the_agreement_of_a_closed_round_is_that_of_all_its_answers(session, tmp_path):
    first, second = list(session.questions)[:2]
    for by in ("ann", "ben"):
        session.save([answer(first, true_labels(first), by=by)])
    session.agreement()
    session._agreement = (session._agreement[0], session._clock() + 99, session._agreement[2])  # took long
    for by, label in (("ann", 0), ("ben", 1), ("cem", 1)):
        session.save([answer(second, [label] * 9, by=by)])
    session.undo("cem", f"cem-{second.qid}")
    session.close("ann")
    facts = Cut(session.folder, session.store, 0).facts
    assert (facts["agreement"]["agreement"], facts["annotators"]) == (0.5, 2)


def test_a_time_box_closes_once(tmp_path):
    session = open_session(make_run(tmp_path), Settings(hours=1 / 3600))
    first, second = list(session.questions)[:2]
    session.save([answer(first, true_labels(first), ms=1500)])
    assert session.state == "closed"
    session.reopen("ann")
    session.save([answer(second, true_labels(second), ms=1500)])
    assert (session.state, session.current.counts()["answered"]) == ("open", 2)
    session.close_journal()


def test_a_closing_without_its_note_is_a_closing(session, monkeypatch):
    def full(*arguments):
        raise WriteError("the disk is full")

    monkeypatch.setattr(session.journal, "note", full)
    assert session.close("ann")["questions"] == 120
    assert session.state == "closed"
