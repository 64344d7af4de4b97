from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripu.loading.order import AlternatingStream, PhaseSampler, ShuffledStream, seed_of


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 1000), st.integers(0, 1))
def test_every_image_is_drawn_once_an_epoch(length: int, seed: int, domain: int) -> None:
    stream = ShuffledStream(length, seed, domain)
    for epoch in range(3):
        assert sorted(stream[epoch * length + place] for place in range(length)) == list(range(length))


def test_a_stream_is_a_function_of_key_and_position() -> None:
    first = [ShuffledStream(50, 3, 0)[position] for position in range(150)]
    backwards = ShuffledStream(50, 3, 0)
    assert [backwards[position] for position in reversed(range(150))] == first[::-1]
    assert first[:50] != first[50:100]
    for other in ((4, 0), (3, 1)):
        assert [ShuffledStream(50, *other)[position] for position in range(50)] != first[:50]


def test_the_order_of_shuffled_draws_is_stable() -> None:
    """A change here changes the training data of every seed."""
    assert [ShuffledStream(8, 0, 1)[position] for position in range(8)] == EIGHT
    assert seed_of(0, 1, 2) == SEED


EIGHT = [1, 3, 7, 6, 0, 4, 2, 5]
SEED = 1535930435702422785


@settings(max_examples=40, deadline=None)
@given(
    restart=st.integers(0, 12),
    batch=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    world=st.integers(1, 3),
)
def test_ranks_share_the_positions_and_restarts_continue(restart: int, batch: int, accumulate: int, world: int) -> None:
    stream = ShuffledStream(7, 0)

    def read(first: int, rank: int) -> list[tuple[int, int]]:
        sampler = PhaseSampler(
            stream, (first, 12), batch_size=batch, accumulate=accumulate, rank=rank, world_size=world
        )
        drawn = list(sampler)
        assert len(sampler) == len(drawn)
        return drawn

    whole = [read(0, rank) for rank in range(world)]
    counted = Counter(position for share in whole for position, _ in share)
    assert counted == Counter(range(12 * batch * accumulate * world))
    for rank in range(world):
        assert all(index == stream[position] for position, index in whole[rank])
        suffix = read(restart, rank)
        assert suffix == whole[rank][restart * accumulate * batch :]


def test_a_step_reads_the_same_images_with_any_number_of_ranks() -> None:
    stream = ShuffledStream(9, 1)

    def step_of(world: int, batch: int) -> list[set[int]]:
        shares = [
            [position for position, _ in PhaseSampler(stream, (2, 6), batch_size=batch, rank=rank, world_size=world)]
            for rank in range(world)
        ]
        return [{p for share in shares for p in share[step * batch : (step + 1) * batch]} for step in range(4)]

    assert step_of(1, 4) == step_of(2, 2) == step_of(4, 1)


def test_seeds_are_63_bit_and_depend_on_every_part() -> None:
    keys = [(seed, domain, position) for seed in (0, 1, 7) for domain in (0, 1) for position in range(50)]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [seed_of(*key) for key in keys]


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (1, 3)])
def test_every_rank_reads_images_of_both_kinds_in_turn(batch_size: int, world_size: int) -> None:
    some = (70, 80, 90)
    stream = AlternatingStream(some, ShuffledStream(3, 0), ShuffledStream(50, 1), batch_size * world_size)
    of_ranks = [
        [index for _, index in PhaseSampler(stream, (0, 12), batch_size=batch_size, rank=rank, world_size=world_size)]
        for rank in range(world_size)
    ]
    for indices in of_ranks:
        assert sum(index in some for index in indices) == len(indices) // 2
        for first in range(0, len(indices), 2):
            assert sum(index in some for index in indices[first : first + 2]) == 1
    every = [stream[position] for position in range(12 * batch_size * world_size)]
    assert [index for index in every if index in some][:3] == [some[ShuffledStream(3, 0)[at]] for at in range(3)]
    assert len({index for index in every if index not in some}) == min(50, len(every) // 2)
