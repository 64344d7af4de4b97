import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation import IMAGES, add_round, make_run
from ripu.annotate.errors import UnknownQuestionError
from ripu.annotate.questions import BLOCK_PICKS, Questions, nearest_order, parse_qid
from ripu.labelstore import ImagePicks, LabelStore, RoundOrderError


@pytest.fixture
def questions(tmp_path):
    make_run(tmp_path)
    return Questions(LabelStore.open(tmp_path / "labels"), 0)


def test_each_pick_is_a_question_with_its_pixels_row_by_row(questions):
    assert len(questions) == 120
    found = list(questions)
    for question in found:
        asked = questions.store.asked(question.image_id, 0)
        flat = question.pixels[:, 0] * 60 + question.pixels[:, 1]
        assert np.array_equal(flat, asked.indices[asked.offsets[question.pick] : asked.offsets[question.pick + 1]])
        assert questions.question(question.qid).qid == question.qid
        assert questions.at(questions.position(question.qid)) == question.qid
    assert len({question.qid for question in found}) == 120


def test_blocks_are_of_one_image_best_first_and_cover_the_round(questions):
    blocks = questions.blocks
    asked = [list(questions.in_block(block)) for block in range(len(blocks))]
    assert sorted(question.qid for block in asked for question in block) == sorted(one.qid for one in questions)
    assert all(len({question.number for question in block}) == 1 for block in asked)
    assert max(len(block) for block in asked) == BLOCK_PICKS
    means = [float(np.mean([question.score for question in block])) for block in asked]
    assert means == sorted(means, reverse=True)


def test_a_round_without_scores_asks_in_picking_order(tmp_path):
    with LabelStore.create(tmp_path / "labels", IMAGES, ("a", "b")) as store:
        picks = np.stack([np.arange(40), np.arange(40)], axis=1)
        store.add_round(store.begin_round(0, 1, 40), [ImagePicks(IMAGES[1].image_id, picks)])
        questions = Questions(store, 0)
        assert next(question.pick for block in range(2) for question in questions.in_block(block)) == 0
        assert questions.blocks.first.tolist() == [0, BLOCK_PICKS]
        assert [questions.count(number) for number in range(3)] == [0, 40, 0]


def test_a_round_may_ask_nothing(tmp_path):
    with LabelStore.create(tmp_path / "labels", IMAGES, ("a", "b")) as store:
        store.add_round(store.begin_round(0, 1, 40), [])
        assert len(Questions(store, 0)) == len(Questions(store, 0).blocks) == 0


@pytest.mark.parametrize(
    "qid", ["", "0", "0-1", "a-b-c", "0-0-40", "0-3-0", "1-0-0", "-1-0-0", "0-0-²", "00-0-0", "9" * 5000, "0-0-0-0"]
)
def test_other_names_are_no_questions(questions, qid):
    with pytest.raises(UnknownQuestionError):
        questions.question(qid)


def test_a_round_that_is_not_committed_has_no_questions(questions):
    with pytest.raises(RoundOrderError):
        Questions(questions.store, 1)


def test_a_later_round_has_questions_of_its_own(tmp_path):
    make_run(tmp_path, per_image=20)
    with LabelStore.open(tmp_path / "labels", write=True) as store:
        add_round(store, 1, per_image=20)
        assert {parse_qid(question.qid)[0] for question in Questions(store, 1)} == {1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_the_nearest_order_is_greedy(points):
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    order = nearest_order(array)
    assert sorted(order) == list(range(len(points)))
    for at, (here, there) in enumerate(itertools.pairwise(order)):
        left = order[at + 1 :]
        distances = ((array[left] - array[here]) ** 2).sum(axis=1)
        assert ((array[there] - array[here]) ** 2).sum() == distances.min()
