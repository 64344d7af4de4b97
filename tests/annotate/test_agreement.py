import numpy as np
import pytest

from ripu.annotate.agreement import agreement_of, cohen_kappa
from ripu.annotate.journal import Answer
from ripu.annotate.suggestions import is_biased, is_blind


def answer(pick, by, labels, **more):
    array = None if labels is None else np.asarray(labels, dtype=np.uint8)
    return Answer(f"{pick}-{by}", 0, 0, pick, by, array, **more)


def literal_kappa(pairs):
    labels = sorted({label for pair in pairs for label in pair})
    observed = sum(a == b for a, b in pairs) / len(pairs)
    expected = sum(
        sum(a == label for a, _ in pairs) / len(pairs) * sum(b == label for _, b in pairs) / len(pairs)
        for label in labels
    )
    return (observed - expected) / (1 - expected)


def test_kappa_is_the_literal_one():
    rng = np.random.default_rng(0)
    pairs = [(int(a), int(a if rng.random() < 0.7 else rng.integers(4))) for a in rng.integers(4, size=200)]
    matrix = np.zeros((4, 4), np.int64)
    for a, b in pairs:
        matrix[a, b] += 1
    assert cohen_kappa(matrix) == pytest.approx(literal_kappa(pairs), abs=1e-9)


def test_people_are_compared_on_shared_questions_alone():
    found = agreement_of(
        [
            answer(0, "a", [0, 0, 1]),
            answer(0, "b", [0, 1, 1]),
            answer(1, "a", [2, 2]),
            answer(2, "a", [255]),
            answer(2, "b", [255]),
            answer(2, "c", None),
            answer(3, "b", [0], resolves=True),
            answer(3, "a", [0]),
        ],
        3,
    )
    assert found is not None
    assert [(pair.first, pair.second, pair.pixels, pair.agreement) for pair in found.pairs] == [("a", "b", 4, 0.75)]
    assert found.agreement == 0.75


def test_no_shared_question_is_no_agreement():
    assert agreement_of([answer(0, "a", [1]), answer(1, "b", [1])], 3) is None


def test_one_label_alone_has_no_kappa():
    found = agreement_of([answer(0, "a", [1]), answer(0, "b", [1])], 3)
    assert found is not None
    assert found.agreement == 1
    assert found.kappa is None


def test_one_question_in_ten_is_blind():
    share = np.mean([is_blind(f"0-{image}-{pick}") for image in range(50) for pick in range(100)])
    assert 0.08 < share < 0.12


@pytest.mark.parametrize(
    ("shown", "blind", "biased"),
    [
        ((950, 1000), (85, 100), True),  # ten points, 4 standard errors
        ((890, 1000), (85, 100), False),  # four points
        ((19, 20), (4, 5), False),  # fifteen points of nearly nothing
        ((700, 1000), (90, 100), False),
    ],
)
def test_suggestions_are_biased_where_people_follow_them(shown, blind, biased):
    counts = {
        "shown": {"answers": shown[1], "agree": shown[0]},
        "blind": {"answers": blind[1], "agree": blind[0]},
    }
    assert is_biased(counts) is biased
    assert not is_biased(None)
    assert not is_biased({"shown": counts["shown"]})


def test_pixels_that_one_person_left_out_are_not_compared():
    found = agreement_of([answer(0, "ann", [0, 1, 254]), answer(0, "ben", [0, 2, 1])], 3)
    assert (found.pairs[0].pixels, found.agreement) == (2, 0.5)
    assert agreement_of([answer(0, "ann", [0, 254]), answer(0, "ben", [254, 1])], 3) is None
