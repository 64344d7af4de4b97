import numpy as np

from annotation import answer, true_labels
from ripu.labelstore.cut import Cut


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
