from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripu.schedule import Plan, scheduled_steps


def test_phases_are_cut_at_rounds_and_at_the_end_of_pretraining() -> None:
    plan = Plan(max_steps=10, pretrain_steps=2, selection_steps=(4, 7))
    assert plan.boundaries == (0, 2, 4, 7, 10)
    assert [plan.phase(step) for step in (0, 1, 2, 3, 4, 6, 7, 9)] == [
        (0, 2), (0, 2), (2, 4), (2, 4), (4, 7), (4, 7), (7, 10), (7, 10),
    ]  # fmt: skip
    assert [plan.num_rounds(step) for step in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [plan.is_pretraining(step) for step in range(4)] == [True, True, False, False]


def test_a_round_at_the_end_of_pretraining_makes_no_empty_phase() -> None:
    assert Plan(10, 4, (4,)).boundaries == (0, 4, 10)


def test_published_fractions_give_the_published_steps() -> None:
    fractions = [0.25, 0.30, 0.35, 0.40, 0.45]
    assert scheduled_steps(fractions, 40_000) == (10_000, 12_000, 14_000, 16_000, 18_000)
    assert scheduled_steps(fractions, 400) == (100, 120, 140, 160, 180)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "trainer.max_steps=0"),
        ((10, -1), "pretrain_steps=-1"),
        ((10, 11), "pretrain_steps=11"),
        ((10, 0, (3, 3)), "must increase"),
        ((10, 0, (5, 3)), "must increase"),
        ((10, 0, (3, 10)), "trainer.max_steps=10"),
        ((10, 4, (3, 5)), "inside pre-training"),
    ],
)
def test_impossible_plans_are_refused(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Plan(*arguments)


def test_descriptions_name_phase_and_round() -> None:
    plan = Plan(10, 2, (4, 7))
    assert plan.describe(0) == "pre-training on source"
    assert plan.describe(5) == "adapting, 1 of 2 rounds"
    assert Plan(10).describe(3) == "training"


@given(st.data())
def test_phases_partition_the_run(data: st.DataObject) -> None:
    max_steps = data.draw(st.integers(1, 60))
    pretrain = data.draw(st.integers(0, max_steps))
    rounds = data.draw(st.sets(st.integers(pretrain, max_steps - 1), max_size=5)) if pretrain < max_steps else set()
    plan = Plan(max_steps, pretrain, tuple(sorted(rounds)))
    for step in range(max_steps):
        start, stop = plan.phase(step)
        assert start <= step < stop
        assert {plan.num_rounds(inside) for inside in range(start, stop)} == {plan.num_rounds(step)}
        assert {plan.is_pretraining(inside) for inside in range(start, stop)} == {plan.is_pretraining(step)}
