"""Scores beyond the paper against literal loops, alone and in rounds."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rounds
from reference import equations, picking
from ripu.acquisition import (
    ClassBalanced,
    DiverseToUncertain,
    Margin,
    MarginBalanced,
    PixelPick,
    RandomScore,
    RipuScore,
    UncertaintyOnly,
)
from ripu.acquisition.nested import for_round, of_single_pixels
from ripu.config.command_line import check_command_line
from ripu.config.nodes import instantiate
from ripu.config.targets import accept_stored
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.regions import Rectangles
from ripu.replay import replay
from ripu.selection.candidates import fixed_candidates
from ripu.selection.ranks import SelectionError
from rounds import IDS, LABEL, NUM_CLASSES, make_engine, make_store, run_round
from running import compose, label_bytes, same_weights, spec, train_here

SIZE = (13, 17)


def logits_of(batch: int = 2, num_classes: int = 5, seed: int = 0) -> torch.Tensor:
    coarse = torch.randn(batch, num_classes, 4, 5, generator=torch.Generator().manual_seed(seed)) * 3
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic", align_corners=True)


def numbers(key: int, count: int) -> list[float]:
    return RandomScore()(torch.zeros(1, 1, 1, 1), (1, count), [key]).score.flatten().tolist()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("values", [[2.0], [1.0, 1.0, 1.0], [0.0, 3.0, 1.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.25, 4.0]])
def test_the_top_is_drawn_and_the_rest_follows_by_its_score(fraction: float, values: list[float]) -> None:
    got = PixelPick(RandomScore(), fraction).rescore(torch.tensor(values), key=9).tolist()
    drawn = numbers(9, len(values))
    most = math.ceil(round(fraction * len(values), 9))
    for place, value in enumerate(values):
        if sum(other > value for other in values) < most:
            assert got[place] == drawn[place]
        else:
            assert got[place] < 0
            for other, another in enumerate(values):
                if another > value:
                    assert got[other] > got[place]


@pytest.mark.parametrize("pixel", [False, True])
def test_pixelpick_draws_from_the_top_of_the_other_score(pixel: bool) -> None:
    logits, score = logits_of(), Margin(1, pixel)
    maps = PixelPick(score, 0.1)(logits, SIZE, [4, 5])
    inner = score(logits, SIZE, [4, 5]).score
    count = math.ceil(0.1 * 13 * 17)
    for b in range(2):
        assert int((maps.score[b] >= 0).sum()) == count
        assert set((maps.score[b] >= 0).flatten().nonzero().flatten().tolist()) == set(
            inner[b].flatten().topk(count).indices.tolist()
        )
    other = PixelPick(score, 0.1)(logits, SIZE, [6, 5]).score
    assert torch.equal(other[1], maps.score[1])
    assert not torch.equal(other[0], maps.score[0])


def test_every_place_is_as_likely_where_all_tie() -> None:
    score = PixelPick(Margin(0, True), 0.05)(torch.zeros(1, 3, 4, 4), (20, 30), [3]).score[0]
    assert torch.equal(score, RandomScore()(torch.zeros(1, 3, 4, 4), (20, 30), [3]).score[0])


@given(st.integers(0, 9), st.integers(1, 10))
def test_the_share_shrinks_from_round_to_round(index: int, num_rounds: int) -> None:
    score: Any = for_round(DiverseToUncertain(RipuScore(1), 0.01), min(index, num_rounds - 1), num_rounds)
    assert isinstance(score, DiverseToUncertain)
    exponent = min(index, num_rounds - 1) / max(1, num_rounds - 1)
    assert score.fraction == pytest.approx(math.exp(exponent * math.log(0.01)))


@pytest.mark.parametrize("region", [None, Rectangles(3, 4)], ids=["square", "rectangles"])
def test_the_first_round_is_random_and_the_last_nearly_greedy(region: Any, tmp_path: Path) -> None:
    picks = {}
    fraction = 1e-9
    kinds = {"random": RandomScore(), "ripu": RipuScore(1), "both": DiverseToUncertain(RipuScore(1), fraction)}
    for name, score in kinds.items():
        engine = make_engine(acquisition=score, region=region, num_rounds=2)
        with make_store(tmp_path / name) as store:
            run_round(make_engine(acquisition=RandomScore(), region=region, num_rounds=2), store, 0)
            run_round(engine, store, 1)
            picks[name] = [store.picks(one, 1).picks.tolist() for one in IDS]
        with make_store(tmp_path / f"{name} first") as store:
            run_round(engine, store, 0)
            picks[f"{name} first"] = [store.picks(one, 0).picks.tolist() for one in IDS]
            assert store.rounds[0].info["acquisition"] == type(score).__name__
    if region is None:  # regions of fixed shape are drawn as such, not by their middle pixels
        assert picks["both first"] == picks["random first"]
    assert picks["both first"] != picks["ripu first"]
    assert [sorted(one) for one in picks["both"]] == [sorted(one) for one in picks["ripu"]]


def test_regions_of_fixed_shape_are_drawn_by_their_own_scores() -> None:
    logits = logits_of(1)
    partition = Rectangles(3, 4).partition(SIZE, None)
    nothing = np.zeros(SIZE, dtype=np.bool_)
    whole = fixed_candidates(0, RipuScore(1), logits, partition, 8, nothing, 10**6)
    drawn = fixed_candidates(0, PixelPick(RipuScore(1), 0.2), logits, partition, 8, nothing, 10**6)
    top = math.ceil(0.2 * len(whole))
    best = {tuple(place) for place in whole.places[:top].tolist()}
    assert {tuple(place) for place in drawn.places[:top].tolist()} == best
    assert drawn.places[top:].tolist() == whole.places[top:].tolist()
    assert (drawn.scores[:top] >= 0).all()
    assert drawn.impurity is not None


@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("strength", [0.0, 6.0])
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_margin_balanced_is_the_literal_loop(pixel: bool, strength: float, num_classes: int) -> None:
    logits = logits_of(1, num_classes)
    shares = np.arange(1, num_classes + 1) / sum(range(1, num_classes + 1))
    score = MarginBalanced(1, pixel, strength).with_pool(np.stack([shares, shares]))
    expected = equations.margin_balanced(logits[0].double().numpy(), shares, strength, 1, pixel)
    np.testing.assert_allclose(score(logits, SIZE, [0]).score[0], expected, atol=1e-5)
    if strength == 0.0:
        np.testing.assert_allclose(score(logits, SIZE, [0]).score, Margin(1, pixel)(logits, SIZE, [0]).score, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda score: score, ClassBalanced, lambda score: PixelPick(score, 1e-9)])
@pytest.mark.parametrize("region", [None, Rectangles(3, 4)], ids=["square", "rectangles"])
def test_a_round_knows_the_shares_of_the_whole_pool(wrap: Any, region: Any, tmp_path: Path) -> None:
    logits = rounds.network()(rounds.images())
    shares = []
    for one in logits.double().numpy():
        probs = np.stack([[equations.softmax(one[:, row, column]) for column in range(22)] for row in range(15)])
        shares.append(probs.mean(axis=(0, 1)))
    known = wrap(MarginBalanced(1, shares=tuple(np.mean(shares, axis=0).tolist())))
    alone = wrap(MarginBalanced(1, shares=tuple(shares[0].tolist())))
    seen: list[tuple[int, int]] = []
    with make_store(tmp_path / "pool") as store:
        engine = make_engine(acquisition=wrap(MarginBalanced(1)), region=region)
        run_round(engine, store, 0, progress=lambda done, total: seen.append((done, total)))
        picks = {"pool": [store.picks(one, 0).picks.tolist() for one in IDS]}
    assert seen == [(number, 14) for number in range(1, 15)]
    with make_store(tmp_path / "given") as store:
        radii = {} if region else {"reveal_radius": 1, "suppress_radius": 2}
        spec = store.begin_round(0, 10, 100, **radii)
        for name, score in {"known": known, "image": alone}.items():
            scorer = make_engine(acquisition=score, region=region).scorer
            picks[name] = [
                scorer.candidates(store, spec, number, logits[number : number + 1], None).places.tolist()
                for number in range(len(IDS))
            ]
    assert picks["pool"] == picks["known"]
    assert picks["pool"] != picks["image"]


def test_a_committed_round_is_surveyed_again_and_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine(acquisition=MarginBalanced(1))
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        before = rounds.store_bytes(tmp_path)
        run_round(engine, store, 0)
        assert rounds.store_bytes(tmp_path) == before
    assert "now computes other picks" not in caplog.text


def test_logits_that_are_not_finite_fail_the_survey_and_leave_nothing(tmp_path: Path) -> None:
    def broken(image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), NUM_CLASSES, 15, 22), torch.nan)

    with make_store(tmp_path) as store:
        with pytest.raises(SelectionError, match=r"round 0 at step 10 was not committed: image 'scene/0' cannot be"):
            run_round(make_engine(acquisition=MarginBalanced(1)), store, 0, network=broken)
        assert store.num_rounds == 0
    assert not [path for path in tmp_path.iterdir() if "survey" in path.name]


def test_predicted_classes_take_turns(tmp_path: Path) -> None:
    logits = rounds.network()(rounds.images())
    full = torch.nn.functional.interpolate(logits, LABEL, mode="bilinear", align_corners=True)
    engine = make_engine(acquisition=ClassBalanced(RipuScore(1)))
    with make_store(tmp_path) as store:
        run_round(engine, store, 0)
        for number, image_id in enumerate(IDS):
            maps = RipuScore(1)(logits[number : number + 1], LABEL, [0])
            assert maps.tie_break is not None
            label = full[number].argmax(0).numpy()
            picks = store.picks(image_id, 0).picks
            expected = picking.fair_picks(
                maps.score[0].numpy(), label, len(picks), 2, tie_break=maps.tie_break[0].numpy()
            )
            assert picks.tolist() == expected
            counts = Counter(label[picks[:, 0], picks[:, 1]].tolist())
            large = [kind for kind in np.unique(label) if (label == kind).sum() > 25 * len(picks)]
            assert (
                max((counts[kind] for kind in large), default=0) - min((counts[kind] for kind in large), default=0) <= 1
            )


def test_predicted_classes_of_fixed_regions_take_turns() -> None:
    logits = logits_of(1, seed=3)
    partition = Rectangles(2, 2).partition(SIZE, None)
    nothing = np.zeros(SIZE, dtype=np.bool_)
    whole = fixed_candidates(0, RipuScore(1), logits, partition, 8, nothing, 10**6)
    label = logits[0].argmax(0).numpy()
    kind = {}
    for number in range(partition.max() + 1):
        counts = Counter(label[partition == number].tolist())
        kind[number] = min(counts, key=lambda one, counts=counts: (-counts[one], one))  # type: ignore[misc]
    ranked = [int(partition[row, column]) for row, column in whole.places]
    expected, taken = [], Counter[int]()
    while ranked:
        fewest = min(taken[kind[number]] for number in ranked)
        best = next(number for number in ranked if taken[kind[number]] == fewest)
        ranked.remove(best)
        taken[kind[best]] += 1
        expected.append(best)
    fair = fixed_candidates(0, ClassBalanced(RipuScore(1)), logits, partition, 8, nothing, 10**6)
    assert [int(partition[row, column]) for row, column in fair.places] == expected


def test_windows_of_scores_inside_scores_shrink_for_fixed_regions() -> None:
    assert of_single_pixels(PixelPick(ClassBalanced(RipuScore(3)), 0.2)) == PixelPick(
        ClassBalanced(RipuScore(0, pixel=True)), 0.2
    )


def test_shared_budgets_need_scores_that_can_be_compared() -> None:
    for score in (ClassBalanced(RipuScore(1)), PixelPick(ClassBalanced(RipuScore(1)))):
        with pytest.raises(ConfigError, match=r"mode.budget_per=dataset compares"):
            make_engine(budget_per="dataset", acquisition=score)
    make_engine(budget_per="dataset", acquisition=PixelPick(RipuScore(1)))


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, math.nan])
def test_bad_shares_are_refused(fraction: float) -> None:
    for kind in (PixelPick, DiverseToUncertain):
        with pytest.raises(ConfigError, match="fraction"):
            kind(RipuScore(1), fraction)


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_bad_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match="strength"):
        MarginBalanced(1, strength=strength)


def test_labels_play_no_part(tmp_path: Path) -> None:
    class Void:
        def answer(self, image_id: str, rows: Any, columns: Any) -> Any:
            return np.full(len(rows), 255, dtype=np.uint8)

    stores: list[LabelStore] = []
    for name, more in {"true": {}, "void": {"oracle": Void()}}.items():
        with make_store(tmp_path / name) as store:
            for index in range(2):
                run_round(make_engine(acquisition=MarginBalanced(1), **more), store, index)
            stores.append(store)
            picks = [store.picks(one, 1).picks.tolist() for one in IDS]
            if name == "true":
                expected = picks
    assert picks == expected


NEW = ("pixelpick", "diverse_to_uncertain", "margin_balanced", "class_balanced", "density")


@pytest.mark.parametrize("name", NEW)
def test_a_run_resumes_with_the_same_picks(name: str, data_root: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    results = train_here(data_root, whole, f"acquisition={name}", "budget=0.1")
    kinds = {"pixelpick": "PixelPick", "diverse_to_uncertain": "DiverseToUncertain"}
    kinds |= {"margin_balanced": "MarginBalanced", "class_balanced": "ClassBalanced", "density": "DensityToUncertain"}
    assert [one["acquisition"] for one in results["rounds"]] == [kinds[name]] * 2
    shutil.copytree(whole, half)
    for path in (half / "checkpoints").iterdir():
        if path.name != "step-00000003.ckpt":
            path.unlink()
    train_here(data_root, half, f"acquisition={name}", "budget=0.1", "resume=true")
    assert same_weights(whole, half)
    assert label_bytes(whole) == label_bytes(half)


def test_a_replay_compares_them_and_follows_the_mode_inside(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "acquisition=pixelpick", "budget=0.1")
    more = (f"run={tmp_path / 'run'}", "accelerator=cpu", "num_workers=0")
    words = (*more, f"paths.output_dir={tmp_path / 'all'}", f"acquisitions=[{','.join(NEW)}]")
    results = replay(compose(*words, config_name="replay"))
    assert set(results["asked"]) == {"the run", *NEW}
    words = (*more, f"paths.output_dir={tmp_path / 'own'}", "mode.radius=3", "rounds=1")
    replay(compose(*words, config_name="replay"))
    inputs = json.loads((tmp_path / "own" / "replay-inputs.json").read_text())
    assert inputs["acquisition"]["PixelPick"]["score"]["radius"] == 3
    with LabelStore.open(tmp_path / "own" / "PixelPick" / "labels") as store:
        assert store.rounds[0].reveal_radius == 3


def test_a_score_inside_can_be_chosen_and_is_checked() -> None:
    words = ["acquisition=pixelpick", "acquisition.score._target_=ripu.acquisition.UncertaintyOnly"]
    assert check_command_line(words, "train", len) == []
    made: Any = instantiate(spec(*words).acquisition)
    assert made == PixelPick(UncertaintyOnly(1), 0.05)
    with pytest.raises(ConfigError, match=r"acquisition.score._target_=collections.OrderedDict is not a score"):
        check_command_line([words[0], "acquisition.score._target_=collections.OrderedDict"], "train", len)
    with pytest.raises(ConfigError, match=r"acquisition.fracton"):
        check_command_line([words[0], "acquisition.fracton=0.1"], "train", len)


def test_a_checkpoint_may_name_scores_inside_scores_and_nothing_else() -> None:
    config = dict(spec("acquisition=class_balanced").config)
    accept_stored(config, Path("x.ckpt"))
    config["acquisition"] = {**config["acquisition"], "score": {"_target_": "subprocess.Popen"}}
    with pytest.raises(ConfigError, match=r"acquisition.score._target_=subprocess.Popen, where a score belongs"):
        accept_stored(config, Path("x.ckpt"))
