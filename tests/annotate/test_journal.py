import sqlite3

import pytest

from annotation import answer, answer_all, make_run, open_session, true_labels
from ripu.annotate.errors import (
    AnnotationError,
)
from ripu.io.writing import WriteError


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
