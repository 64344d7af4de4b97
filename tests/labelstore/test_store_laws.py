"""Round trips of random rounds, shapes and answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Regions, TargetImage, square_regions
from ripu.labelstore.encoding import decode_answers, decode_picks, encode_answers, encode_picks

seeds = st.integers(0, 2**32 - 1)


def random_round(
    rng: np.random.Generator, height: int, width: int, radius: int, asked: np.ndarray, is_ragged: bool
) -> tuple[ImagePicks, np.ndarray]:
    """Picks whose pixels are disjoint from each other and from ``asked`` (updated), in random order."""
    centres, sets = [], []
    for flat in rng.permutation(height * width)[: rng.integers(0, 30)]:
        pick = np.array([divmod(int(flat), width)])
        if is_ragged:
            pixels = np.unique(rng.integers(0, height * width, rng.integers(1, 9)))
        else:
            pixels = square_regions(pick, radius, height, width).indices
        if not asked[pixels].any():
            asked[pixels] = True
            centres.append(pick[0])
            sets.append(rng.permutation(pixels))
    picks = np.array(centres, dtype=np.int32).reshape(-1, 2)
    scores = rng.normal(size=len(picks)).astype(np.float32) if rng.random() < 0.5 else None
    regions = Regions.from_sets(sets) if is_ragged else None
    pixels = np.concatenate([np.zeros(0, np.int64), *sets])
    return ImagePicks("image", picks, scores, regions, "d" * rng.integers(0, 5)), pixels


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_random_rounds_and_late_answers_round_trip(seed: int, height: int, width: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), height * width)
    asked = np.zeros(height * width, dtype=bool)
    label, by_round = np.full((2, height * width), 255, dtype=np.uint8)
    is_prompt = np.zeros(height * width, dtype=bool)
    num_rounds = int(rng.integers(1, 4))
    with tempfile.TemporaryDirectory() as folder:
        with LabelStore.create(Path(folder) / "s", [TargetImage("image", height, width)], ["a", "b", "c"]) as store:
            late = []
            for index in range(num_rounds):
                before = asked.copy()
                record, pixels = random_round(rng, height, width, radius, asked, rng.random() < 0.4)
                spec = store.begin_round(index, index + 1, 30, reveal_radius=radius)
                given_now = rng.permutation(pixels)[: rng.integers(0, len(pixels) + 1)]
                store.add_round(spec, [record, ImageAnswers("image", given_now, truth[given_now])])
                late.append(np.setdiff1d(pixels, given_now))
                is_prompt[given_now] = True
                label[pixels], by_round[pixels] = truth[pixels], index
                found = store.picks("image", index)
                np.testing.assert_array_equal(found.picks, record.picks)
                if record.scores is None:
                    assert found.scores is None
                else:
                    np.testing.assert_array_equal(found.scores, record.scores)
                assert found.digest == record.digest
                np.testing.assert_array_equal(np.sort(store.asked("image", index).indices), np.sort(pixels))
                np.testing.assert_array_equal(store.asked_mask("image", index).ravel(), before)  # it only grows
            missing = np.concatenate(late)
            np.testing.assert_array_equal(np.sort(store.unanswered("image")), np.sort(missing))
            assert not (store.revealed_round("image").ravel()[missing] != 255).any()
            assert store.append_answers([ImageAnswers("image", missing, truth[missing])]) == len(missing)
        reader = LabelStore.open(Path(folder) / "s")
        np.testing.assert_array_equal(reader.revealed_label("image").ravel(), label)
        np.testing.assert_array_equal(reader.revealed_round("image").ravel(), by_round)
        np.testing.assert_array_equal(reader.asked_mask("image").ravel(), asked)
        for index in range(num_rounds + 1):
            is_seen = (by_round < index) & (is_prompt | (index == num_rounds))  # late answers: as of the newest round
            np.testing.assert_array_equal(reader.revealed_label("image", index).ravel(), np.where(is_seen, label, 255))
            np.testing.assert_array_equal(
                reader.revealed_round("image", index).ravel(), np.where(is_seen, by_round, 255)
            )
            missing = np.sort(reader.unanswered("image", index))
            np.testing.assert_array_equal(missing, np.flatnonzero((by_round < index) & ~is_seen))
        indices, labels = reader.answers("image")
        np.testing.assert_array_equal(indices, np.flatnonzero(asked))
        np.testing.assert_array_equal(labels, truth[asked])
        assert reader.verify() == []
        stats = reader.stats()
        assert stats.total.asked_pixels == stats.total.answered_pixels == asked.sum()
        assert stats.total.void_pixels == (truth[asked] == 255).sum()
        assert stats.total.class_pixels == [int((truth[asked] == c).sum()) for c in range(3)]


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 50), st.integers(1, 50), st.integers(0, 4), st.booleans())
def test_records_round_trip_as_bytes(seed: int, height: int, width: int, radius: int, is_ragged: bool) -> None:
    rng = np.random.default_rng(seed)
    image = TargetImage("image", height, width)
    record, pixels = random_round(rng, height, width, radius, np.zeros(height * width, dtype=bool), is_ragged)
    found = decode_picks(encode_picks(record), "image")
    np.testing.assert_array_equal(found.picks, record.picks)
    assert (found.scores is None) == (record.scores is None)
    if found.scores is not None:
        assert found.scores.tobytes() == record.scores.tobytes()  # bit by bit
    if record.regions is not None:
        np.testing.assert_array_equal(found.regions.offsets, record.regions.offsets)
        np.testing.assert_array_equal(found.regions.indices, record.regions.indices)
    # Any subset of pixels, whatever squares are hinted at.
    some = np.flatnonzero(rng.random(height * width) < rng.choice([0.0, 0.3, 1.0]))
    some = np.union1d(some, pixels[: rng.integers(0, len(pixels) + 1)]).astype(np.int64)
    labels = rng.integers(0, 256, len(some)).astype(np.uint8)
    hint = None if is_ragged else (record.picks.astype(np.int64), radius)
    indices, answers = decode_answers(encode_answers(some, labels, image, hint), image)
    order = np.argsort(indices)
    np.testing.assert_array_equal(indices[order], some)
    np.testing.assert_array_equal(answers[order], labels)


def test_squares_are_stored_by_their_centres() -> None:
    image = TargetImage("image", 90, 90)
    picks = np.stack(np.meshgrid(np.arange(1, 90, 3), np.arange(1, 90, 3), indexing="ij"), axis=-1).reshape(-1, 2)
    indices = np.arange(90 * 90)
    labels = np.zeros(90 * 90, dtype=np.uint8)
    with_hint = encode_answers(indices, labels, image, (picks, 1))
    assert len(with_hint) < len(indices) * 1.5 < len(encode_answers(indices, labels, image))


def test_negative_and_special_scores_survive() -> None:
    scores = np.array([np.inf, 3.5, 0.0, -0.0, -2.5, -np.inf, np.nan], dtype=np.float32)
    record = ImagePicks("image", np.zeros((7, 2), dtype=np.int64), scores)
    assert decode_picks(encode_picks(record), "image").scores.tobytes() == scores.tobytes()
