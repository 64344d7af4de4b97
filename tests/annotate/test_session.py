import numpy as np
import pytest

from annotation import CLASSES, IMAGES, answer, answer_all, make_run, open_session, true_labels
from ripu.annotate.classes import class_keys
from ripu.annotate.errors import (
    AnnotationError,
    OtherRoundError,
    UnknownQuestionError,
    WrongLabelsError,
)
from ripu.annotate.journal import Answer
from ripu.annotate.open_round import LEASE_SECONDS, Settings
from ripu.labelstore import LabelStore
from ripu.labelstore.cut import take_cut


def test_a_person_is_asked_everything_once(session):
    answered = answer_all(session)
    assert len(answered) == len({one.qid for one in answered}) == 120
    assert session.current.counts() == {
        "questions": 120, "answered": 120, "unanswered": 0, "unsure": 0, "conflicts": 0
    }  # fmt: skip
    assert session.next_questions("ann", 8) == ([], None)


def test_order_of_arrival_does_not_change_the_store(tmp_path):
    digests = set()
    for name, count, undo in (("a", 1, False), ("b", 7, True)):
        run = make_run(tmp_path / name)
        session = open_session(run)
        if undo:
            first = session.next_questions("ann", 1)[0][0]
            session.save([answer(first, np.zeros(len(first.pixels)), name="wrong")])
            session.undo("ann", "wrong")
        answer_all(session, count=count)
        session.close("ann")
        session.close_journal()
        with LabelStore.open(run / "labels", write=True) as store:
            take_cut(store, run / "annotation", 0)
        digests.add(tuple(sorted((path.name, path.read_bytes()) for path in (run / "labels").glob("answers-*"))))
    assert len(digests) == 1
    assert digests.pop()


def test_unanswered_unsure_and_contradicting_questions_stay_unrevealed(session, tmp_path):
    questions, _ = session.next_questions("ann", 4)
    session.save([answer(questions[0], true_labels(questions[0])), answer(questions[1], None)])
    session.save([answer(questions[2], np.zeros(len(questions[2].pixels)), "ann")])
    session.save([answer(questions[2], np.ones(len(questions[2].pixels)), "bob")])
    counts = session.close("ann")
    assert counts == {"questions": 120, "answered": 1, "unanswered": 117, "unsure": 1, "conflicts": 1}
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        take_cut(store, session.folder, 0)
        pixels = sum(int((store.revealed_round(image.image_id) == 0).sum()) for image in IMAGES)
        assert pixels == len(questions[0].pixels)


def test_an_answer_of_a_known_name_is_saved_once(session):
    question = session.next_questions("ann", 1)[0][0]
    one = answer(question, true_labels(question), ms=1000)
    assert session.save([one]) == session.save([one]) == 1
    assert session.stats()["annotators"] == [{"by": "ann", "answered": 1, "seconds_per_answer": 1.0}]


def test_a_second_answer_of_the_same_person_replaces_the_first(session):
    question = session.next_questions("ann", 1)[0][0]
    session.save([answer(question, np.zeros(len(question.pixels)), name="1")])
    session.save([answer(question, np.ones(len(question.pixels)), name="2")])
    assert session.final_labels(question).tolist() == [1] * len(question.pixels)
    session.undo("ann", "2")
    assert session.final_labels(question).tolist() == [0] * len(question.pixels)
    session.undo("ann", "1")
    assert session.final_labels(question) is None
    assert session.next_questions("ann", 1)[0][0].qid == question.qid


def test_undo_is_for_own_answers_and_once(session):
    question = session.next_questions("ann", 1)[0][0]
    session.save([answer(question, true_labels(question), name="x")])
    assert not session.undo("bob", "x")
    assert session.undo("ann", "x")
    assert not session.undo("ann", "x")
    assert not session.undo("ann", "never")


def test_a_conflict_is_decided_by_whoever_resolves_it(session):
    question = session.next_questions("ann", 1)[0][0]
    zeros, ones = np.zeros(len(question.pixels)), np.ones(len(question.pixels))
    session.save([answer(question, zeros, "ann")])
    session.save([answer(question, ones, "bob")])
    ((found, answers),) = session.conflicts(8)
    assert found.qid == question.qid
    assert [one.by for one in answers] == ["ann", "bob"]
    session.save([answer(question, ones, "ann", name="decided", resolves=True)])
    assert session.conflicts(8) == []
    assert session.final_labels(question).tolist() == ones.tolist()
    session.undo("ann", "decided")
    assert len(session.conflicts(8)) == 1


@pytest.mark.parametrize(
    ("labels", "error"),
    [([0], "number of labels is 1"), ([3] * 9, "label 3"), ([254] * 9, "label 254")],
)
def test_labels_that_do_not_fit_are_refused_and_nothing_is_saved(session, labels, error):
    questions = [one for one in session.next_questions("ann", 20)[0] if len(one.pixels) == 9][:2]
    with pytest.raises(WrongLabelsError, match=error):
        session.save([answer(questions[0], true_labels(questions[0])), answer(questions[1], labels)])
    assert session.current.counts()["answered"] == 0


def test_other_rounds_classes_and_questions_are_refused(session):
    question = session.next_questions("ann", 1)[0][0]
    good = answer(question, true_labels(question))
    with pytest.raises(OtherRoundError, match="round 4"):
        session.save([good], 3)
    with pytest.raises(OtherRoundError, match="other classes"):
        session.save([good], 0, "0123456789abcdef")
    with pytest.raises(OtherRoundError):
        session.save([Answer("x", 1, 0, 0, "ann", good.labels)])
    with pytest.raises(UnknownQuestionError):
        session.save([Answer("x", 0, 99, 0, "ann", good.labels)])
    assert session.save([good], 0, session.classes_digest) == 1


def test_two_people_never_get_the_same_question(session, clock):
    asked = {"ann": [], "bob": [], "cem": []}
    for _ in range(200):
        for by in asked:
            questions, wait = session.next_questions(by, 3)
            clock.now += 1
            if questions:
                session.save([answer(one, true_labels(one), by) for one in questions])
            else:
                assert wait is None or 0 < wait <= LEASE_SECONDS
            asked[by] += [one.qid for one in questions]
    everything = [qid for qids in asked.values() for qid in qids]
    assert len(everything) == len(set(everything)) == 120
    assert all(asked.values())


def test_a_block_of_somebody_who_left_becomes_free(tmp_path, clock):
    session = open_session(make_run(tmp_path, per_image=5), clock=clock)
    held = {one.qid for _ in range(3) for one in session.next_questions("ann", 5 * 3)[0]}
    assert len(held) == 15
    questions, wait = session.next_questions("bob", 8)
    assert questions == []
    assert wait == pytest.approx(LEASE_SECONDS)
    session.close_journal()
    session = open_session(tmp_path, clock=clock)  # leases outlive the server
    assert session.next_questions("bob", 8)[0] == []
    clock.now += LEASE_SECONDS + 1
    assert {one.qid for one in session.next_questions("bob", 15)[0]} == held
    session.close_journal()


def test_overlap_asks_two_people_and_no_third(tmp_path):
    session = open_session(make_run(tmp_path), Settings(overlap=1.0))
    for by in ("ann", "bob"):
        assert len(answer_all(session, by)) == 120
    assert session.next_questions("cem", 8) == ([], None)
    found = session.agreement()
    assert found is not None
    assert found.agreement == 1
    assert found.pairs[0].pixels == sum(len(one.pixels) for one in session.questions)
    session.close_journal()


def test_pauses_count_for_a_minute_and_not_in_the_mean(session):
    questions, _ = session.next_questions("ann", 3)
    for question, ms in zip(questions, (1000, 3000, 600_000), strict=True):
        session.save([answer(question, true_labels(question), ms=ms)])
    stats = session.stats()
    assert stats["seconds_per_answer"] == 2
    assert stats["hours_spent"] == pytest.approx(64 / 3600)
    assert stats["left"] == 117
    assert stats["hours_left"] == pytest.approx(117 * 2 / 3600)


def test_letters_are_fixed_chosen_or_free():
    assert class_keys(CLASSES, {}) == ["r", "o", "s"]
    assert class_keys(CLASSES, {"sky": "R"}) == ["o", "f", "r"]
    many = class_keys([f"class {number}" for number in range(30)], {})
    assert len(set(many[:23])) == 23
    assert many[23:] == [""] * 7
    for chosen, error in (
        ({"sky": "v"}, "'v'"),
        ({"sea": "s"}, "'sea'"),
        ({"sky": "r", "road": "R"}, "same letter"),
        ({"sky": "ab"}, "'ab'"),
    ):
        with pytest.raises(AnnotationError, match=error):
            class_keys(CLASSES, chosen)
