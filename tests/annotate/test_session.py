import contextlib
import sqlite3

import numpy as np
import pytest

from annotation import CLASSES, IMAGES, Clock, add_round, grid_picks, make_run, open_session, true_labels, truth
from ripu.annotate.classes import class_keys
from ripu.annotate.errors import (
    AnnotationError,
    OtherRoundError,
    RoundClosedError,
    UnknownQuestionError,
    WrongLabelsError,
)
from ripu.annotate.journal import Answer
from ripu.annotate.open_round import LEASE_SECONDS, Settings
from ripu.annotate.questions import parse_qid
from ripu.io.writing import WriteError
from ripu.labelstore import LabelStore
from ripu.labelstore.cut import Cut, set_aside, take_cut


def answer(question, labels, by="ann", name=None, **more):
    array = None if labels is None else np.asarray(labels, dtype=np.uint8)
    return Answer(name or f"{by}-{question.qid}", *parse_qid(question.qid), by, array, **more)


def answer_all(session, by="ann", count=8):
    answered = []
    while True:
        questions, _ = session.next_questions(by, count)
        if not questions:
            return answered
        session.save([answer(one, true_labels(one), by, ms=1500) for one in questions])
        answered += questions


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def session(tmp_path, clock):
    opened = open_session(make_run(tmp_path), clock=clock)
    yield opened
    opened.close_journal()


def test_a_person_is_asked_everything_once(session):
    answered = answer_all(session)
    assert len(answered) == len({one.qid for one in answered}) == 120
    assert session.current.counts() == {
        "questions": 120, "answered": 120, "unanswered": 0, "unsure": 0, "conflicts": 0
    }  # fmt: skip
    assert session.next_questions("ann", 8) == ([], None)


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


def test_a_time_box_closes_the_round(tmp_path):
    session = open_session(make_run(tmp_path), Settings(hours=10 / 3600))
    for _ in range(2):
        question = session.next_questions("ann", 1)[0][0]
        session.save([answer(question, true_labels(question), ms=5000)])
    assert session.state == "closed"
    session.close_journal()


def test_everything_is_there_after_a_restart(tmp_path):
    session = open_session(make_run(tmp_path))
    questions, _ = session.next_questions("ann", 6)
    session.save([answer(one, true_labels(one), ms=1000) for one in questions[:4]])
    session.save([answer(questions[4], None)])
    session.undo("ann", f"ann-{questions[0].qid}")
    before, examples = session.stats(), set(session.current.examples)
    session.close_journal()
    session = open_session(tmp_path)
    assert session.stats() == before
    assert set(session.current.examples) <= examples | {0, 1, 2}
    assert [one.qid for one in session.next_questions("ann", 2)[0]] == [questions[0].qid, questions[5].qid]
    session.close_journal()


def test_a_second_session_is_refused(session, tmp_path):
    with pytest.raises(AnnotationError, match="another process has it open"):
        open_session(tmp_path)


def test_a_damaged_journal_is_named(tmp_path):
    make_run(tmp_path)
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation" / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(AnnotationError, match="damaged"):
        open_session(tmp_path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path):
    open_session(make_run(tmp_path)).close_journal()
    db = sqlite3.connect(tmp_path / "annotation" / "journal.sqlite")
    with db:
        db.execute("UPDATE about SET value = '99' WHERE key = 'version'")
    db.close()
    with pytest.raises(AnnotationError, match="format 99"):
        open_session(tmp_path)


def test_a_full_disk_loses_nothing_that_was_saved(tmp_path):
    session = open_session(make_run(tmp_path))
    pages = session.journal._db.execute("PRAGMA page_count").fetchone()[0]
    session.journal._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    saved = []

    def answer_without_end():
        while True:
            question = session.next_questions("ann", 1)[0][0]
            session.save([answer(question, true_labels(question), name=f"{len(saved)}")])
            saved.append(question.qid)

    with pytest.raises(WriteError, match="free some space"):
        answer_without_end()
    assert 0 < len(saved) == session.current.counts()["answered"]
    session.close_journal()
    session = open_session(tmp_path)
    assert session.current.counts()["answered"] == len(saved)
    answer_all(session)
    session.close_journal()


def test_an_import_twice_adds_nothing(session):
    given = [(one.qid, true_labels(one)) for one in session.questions]
    first = session.import_answers("tool", given)
    again = session.import_answers("tool", given)
    assert (first.new, again.new, again.known) == (120, 0, 120)
    assert session.current.counts()["answered"] == 120
    assert len(list(session.journal.answers(0))) == 120


def test_an_import_names_what_it_leaves_out(session):
    questions = list(session.questions)
    session.save([answer(questions[0], np.zeros(len(questions[0].pixels)))])
    report = session.import_answers(
        "tool",
        [
            (questions[0].qid, np.ones(len(questions[0].pixels), np.uint8)),
            (questions[1].qid, np.full(len(questions[1].pixels), 254, np.uint8)),
            (questions[2].qid, np.where(np.arange(len(questions[2].pixels)) == 0, 254, 1).astype(np.uint8)),
            ("0-0-999", np.ones(9, np.uint8)),
            ("7-0-0", np.ones(9, np.uint8)),
            ("nonsense", np.ones(9, np.uint8)),
        ],
    )
    assert report.conflicts == [questions[0].qid]
    assert report.unknown_questions == ["0-0-999", "7-0-0", "nonsense"]
    assert (report.new, report.incomplete) == (1, 1)
    assert session.current.counts()["conflicts"] == 1
    assert session.final_labels(questions[1]) is None
    session.close("ann")
    frozen = dict(Cut(session.folder, session.store, 0))
    assert sum(len(indices) for indices, _ in frozen.values()) == len(questions[2].pixels) - 1


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


def test_answers_in_part_complete_each_other(session):
    question = next(iter(session.questions))
    labels = true_labels(question)
    parts = [np.where(np.arange(9) < 5, labels, 254), np.where(np.arange(9) < 5, 254, labels)]
    for by, part, new, known in (("ann", 0, 1, 0), ("ben", 0, 0, 1), ("ann", 1, 1, 0), ("ann", 0, 0, 1)):
        report = session.import_answers(by, [(question.qid, parts[part])])
        assert (report.new, report.known, report.conflicts) == (new, known, [])
    assert np.array_equal(session.final_labels(question), labels)
    session.save([answer(question, labels, by="ben")])
    assert session.current.counts()["conflicts"] == 0
    assert session.import_answers("cem", [(question.qid, (labels + 1) % 3)]).conflicts == [question.qid]
    assert session.current.counts()["conflicts"] == 1


def test_contradicting_rows_of_one_import_are_a_conflict(session):
    question = next(iter(session.questions))
    rows = [(question.qid, np.full(9, label, np.uint8)) for label in (0, 1, 0)]
    report = session.import_answers("ann", rows)
    assert (report.new, report.known, report.conflicts) == (1, 1, [question.qid])
    assert session.final_labels(question).tolist() == [0] * 9


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


def use_all(session):
    said = []
    for use in (session.stats, lambda: session.next_questions("ben", 8), lambda: session.close("ann")):
        try:
            use()
        except AnnotationError as error:
            said.append(str(error))
    if session.state == "closed":
        session.reopen("ann")
    return said


def test_a_journal_damaged_anywhere_says_so(tmp_path):
    session = open_session(make_run(tmp_path))
    answer_all(session)
    session.close_journal()
    path = session.folder / "journal.sqlite"
    content = path.read_bytes()
    for start in range(4096, len(content), 4096):
        path.write_bytes(content[:start] + b"\xff" * 200 + content[start + 200 :])
        said = []
        try:
            session = open_session(tmp_path)
            said = use_all(session)
        except AnnotationError as error:
            said = [str(error)]
        session.close_journal()
        assert all("damaged" in one for one in said)


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
