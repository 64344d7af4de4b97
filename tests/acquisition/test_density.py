"""The density ratio of target and source: mixtures, maps, rounds and refusals."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rounds
from reference import densities, equations, picking
from ripu.acquisition import (
    ClassBalanced,
    DensityRatio,
    DensityToUncertain,
    Features,
    RipuScore,
    UncertaintyOnly,
)
from ripu.acquisition.color_clusters import k_means
from ripu.acquisition.gaussian_mixtures import DensityPair
from ripu.acquisition.nested import for_round
from ripu.config.nodes import instantiate
from ripu.datasets.errors import Fault
from ripu.io.errors import ConfigError
from ripu.regions import Rectangles
from ripu.replay import replay
from ripu.selection import candidates, scoring
from ripu.selection.grid import TrainingGrid
from ripu.selection.ranks import SelectionError
from rounds import IDS, INPUT, LABEL, make_engine, make_store, run_round
from running import compose, spec, train_here

PAIR = DensityToUncertain(DensityRatio(1), UncertaintyOnly(1))


def points(count: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    clusters = drawn.integers(0, 3, count)[:, None] * 2.0
    return drawn.normal(size=(count, dimensions)) * np.linspace(0.5, 2.0, dimensions) + clusters + shift


@pytest.mark.parametrize(("above", "below", "dimensions"), [(230, 320, 3), (1, 1, 2), (12, 400, 4), (310, 2, 1)])
def test_the_ratio_is_the_literal_loop(above: int, below: int, dimensions: int) -> None:
    one, other = points(above, dimensions, 0), points(below, dimensions, 1, 0.7)
    asked = points(9, dimensions, 2)
    expected = densities.log_ratio(asked, one, other, lambda part, number: k_means(part, number, 5))
    np.testing.assert_allclose(DensityPair.of(one, other, 5).log_ratio(asked), expected, rtol=1e-7, atol=1e-7)


def test_the_ratio_of_two_known_densities_is_found() -> None:
    drawn = np.random.default_rng(0)
    one, other = drawn.normal(0.0, 1.0, (4000, 2)), drawn.normal((1.5, 0.0), 1.0, (4000, 2))
    asked = np.stack([np.linspace(-1.0, 2.5, 15), np.zeros(15)], axis=1)
    true = ((asked[:, 0] - 1.5) ** 2 - asked[:, 0] ** 2) / 2
    np.testing.assert_allclose(DensityPair.of(one, other, 0).log_ratio(asked), true, atol=0.35)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_laws_of_the_ratio(above: int, below: int, dimensions: int, seed: int) -> None:
    one, other = points(above, dimensions, seed), points(below, dimensions, seed + 1, 0.5)
    asked = points(6, dimensions, seed + 2)
    found = DensityPair.of(one, other, seed).log_ratio(asked)
    assert np.isfinite(found).all()
    # Neither the place nor the scale of the features matters.
    moved = DensityPair.of(3.0 * one - 7.0, 3.0 * other - 7.0, seed).log_ratio(3.0 * asked - 7.0)
    np.testing.assert_allclose(found, moved, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(DensityPair.of(one, one, seed).log_ratio(asked), 0.0, atol=1e-9)


def test_constant_features_have_the_same_ratio_everywhere() -> None:
    same = np.ones((20, 3))
    found = DensityPair.of(same, same[:4], 0).log_ratio(same)
    assert np.isfinite(found).all()
    assert len(set(found.tolist())) == 1


def sample_of(logits: torch.Tensor, features: Features, label: torch.Tensor | None = None) -> np.ndarray:
    """The samples of all cells by a literal loop: class and features of each cell whose middle is in the image."""
    rows, columns = features.values.shape[2:]
    found = []
    for i in range(rows):
        for j in range(columns):
            row = math.floor(Fraction(2 * i + 1, 2 * rows) * features.extent[0])
            column = math.floor(Fraction(2 * j + 1, 2 * columns) * features.extent[1])
            if row >= logits.shape[2] or column >= logits.shape[3]:
                continue
            kind = int(logits[0, :, row, column].argmax())
            if label is not None:
                row = math.floor(Fraction(2 * row + 1, 2 * logits.shape[2]) * label.shape[0])
                column = math.floor(Fraction(2 * column + 1, 2 * logits.shape[3]) * label.shape[1])
                kind = int(label[row, column])
                kind = -1 if kind == 255 else kind
            found.append([float(kind), *features.values[0, :, i, j].double().tolist()])
    return np.array(found)


@pytest.mark.parametrize(
    ("cells", "extent"), [((13, 17), (13, 17)), ((4, 5), (13, 17)), ((4, 5), (16, 20)), ((2, 2), (32, 32))]
)
@pytest.mark.parametrize("label_size", [None, (13, 17), (30, 20)])
def test_samples_are_those_of_the_image_alone(cells: Any, extent: Any, label_size: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 4, 13, 17, generator=generator)
    features = Features(torch.randn(1, 6, *cells, generator=generator), extent)
    score = DensityRatio(1, samples=300)
    if label_size is None:
        found, expected = score.survey(logits, features), sample_of(logits, features)
    else:
        label = torch.randint(0, 4, label_size, generator=generator, dtype=torch.uint8)
        label[:5] = 255
        found, expected = score.survey_source(logits, features, label), sample_of(logits, features, label)
    assert found.shape == (300, 7)
    np.testing.assert_array_equal(found[: len(expected)], expected)
    assert (found[len(expected) :, 0] == -1).all()
    few = DensityRatio(1, samples=3).survey(logits, features)
    every = {tuple(row) for row in sample_of(logits, features).tolist()}
    kept = few[few[:, 0] >= 0]
    assert {tuple(row) for row in kept.tolist()} <= every
    assert len(kept) == min(3, len(every))


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (20, 20)])
def test_few_samples_are_spread_over_the_image(shape: tuple[int, int]) -> None:
    place = torch.stack(torch.meshgrid(*(torch.linspace(0, 0.999, side) for side in shape), indexing="ij"))
    found = DensityRatio(1, samples=64).survey(torch.randn(1, 2, *shape), Features(place[None], shape))
    counts = np.histogram2d(found[:, 1], found[:, 2], bins=4, range=[[0, 1], [0, 1]])[0]
    assert counts.min() >= 2
    assert counts.max() <= 6


def test_many_features_are_projected_and_keep_their_distances() -> None:
    logits, values = torch.randn(1, 2, 9, 8), torch.randn(1, 700, 9, 8, generator=torch.Generator().manual_seed(0))
    found = DensityRatio(1, dimensions=64, samples=72).survey(logits, Features(values, (9, 8)))[:, 1:]
    assert found.shape == (72, 64)
    full = values[0].flatten(1).T.double().numpy()
    ratio = ((found[:36] - found[36:]) ** 2).sum(axis=1) / ((full[:36] - full[36:]) ** 2).sum(axis=1) * 700 / 64
    assert abs(ratio.mean() - 1.0) < 0.1


def known(score: DensityRatio, seed: int = 0) -> tuple[DensityRatio, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """A score that knows a source and a pool, and the points of each class in both."""
    drawn = np.random.default_rng(seed)
    found = []
    for shift in (0.0, 0.5):
        classes = drawn.integers(-1, 3, (4, 60, 1))
        found.append(np.concatenate([classes, drawn.normal(shift, 1.0, (4, 60, 2)) + classes], axis=2))
    own = score.with_source(found[0]).with_pool(found[1])
    flat = [part.reshape(-1, 3) for part in found]
    parts = {k: (flat[1][flat[1][:, 0] == k][:, 1:], flat[0][flat[0][:, 0] == k][:, 1:]) for k in range(3)}
    return own, parts


@pytest.mark.parametrize("pixel", [False, True])
def test_the_map_is_the_literal_loop(pixel: bool) -> None:
    """Cells of two pixels, padding of one row and column, labels three times as large."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 4, 7, 9, generator=generator)  # class 3 has no points
    features = Features(torch.randn(1, 2, 4, 5, generator=generator), (8, 10))
    score, parts = known(DensityRatio(1, pixel))
    assert score.pairs is not None
    assert set(score.pairs) == {0, 1, 2}
    cells = np.zeros((4, 5))
    for i in range(4):
        for j in range(5):
            kind = int(logits[0, :, min(2 * i + 1, 6), min(2 * j + 1, 8)].argmax())
            if kind < 3:
                point = features.values[0, :, i, j].double().numpy()[None]
                clusters = lambda part, number, kind=kind: k_means(part, number, kind)  # noqa: E731
                cells[i, j] = densities.log_ratio(point, *parts[kind], clusters)[0]
    covered = np.zeros((8, 10))
    for i in range(8):  # bilinear between the middles of cells
        for j in range(10):
            y, x = min(max((i + 0.5) / 2 - 0.5, 0), 3), min(max((j + 0.5) / 2 - 0.5, 0), 4)
            top, left = min(int(y), 2), min(int(x), 3)
            for row, high in ((top, 1 - (y - top)), (top + 1, y - top)):
                for column, wide in ((left, 1 - (x - left)), (left + 1, x - left)):
                    covered[i, j] += cells[row, column] * high * wide
    expected = equations.bilinear(covered[:7, :9], (21, 27))
    if not pixel:
        expected = equations.window_mean(expected, 1)
    maps = score(logits, (21, 27), [0], features=features)
    np.testing.assert_allclose(maps.score[0], expected, atol=1e-4)
    uncertainty = UncertaintyOnly(1, pixel)(logits, (21, 27), [0]).score
    assert maps.tie_break is not None
    assert torch.equal(maps.tie_break, uncertainty)
    assert maps.impurity is None


def test_a_batch_is_its_images() -> None:
    logits = torch.randn(3, 4, 7, 9)
    features = Features(torch.randn(3, 2, 4, 5), (8, 10))
    score, _ = known(DensityRatio(1))
    whole = score(logits, (14, 18), [0, 1, 2], features=features).score
    for b in range(3):
        alone = score(logits[b : b + 1], (14, 18), [b], features=features.of_image(b)).score
        assert torch.equal(alone[0], whole[b])


def test_outside_rounds_the_uncertain_places_win() -> None:
    logits = torch.randn(1, 4, 7, 9)
    maps = DensityRatio(1)(logits, (14, 18), [0])
    assert (maps.score == 0).all()
    assert maps.tie_break is not None
    assert torch.equal(maps.tie_break, UncertaintyOnly(1)(logits, (14, 18), [0]).score)
    assert torch.equal(PAIR(logits, (14, 18), [0]).score, UncertaintyOnly(1)(logits, (14, 18), [0]).score)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_fail_the_round(value: float, tmp_path: Path) -> None:
    def broken(image: torch.Tensor) -> tuple[torch.Tensor, Features]:
        logits, features = rounds.with_features(image)
        return logits, Features(features.values * value, features.extent)

    with make_store(tmp_path) as store:
        with pytest.raises(SelectionError, match=r"image 0 of the source \(from 0\) cannot be scored"):
            run_round(make_engine(acquisition=PAIR), store, 0, with_features=broken)
        assert store.num_rounds == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".tmp", "shard"))]


def knowing(score: DensityRatio) -> DensityRatio:
    """The score that a round of :mod:`rounds` makes, from whole batches in the order of the images."""
    source, pool = [], []
    for batch in rounds.source_loader(list(range(11))):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            source.append(score.survey_source(*rounds.with_features(image[None]), label))
    for image in rounds.images():
        pool.append(score.survey(*rounds.with_features(image[None])))
    return score.with_source(np.stack(source)).with_pool(np.stack(pool))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_round_asks_density_first_and_uncertainty_for_the_rest(index: int, balanced: bool, tmp_path: Path) -> None:
    density: Any = ClassBalanced(DensityRatio(1)) if balanced else DensityRatio(1)
    seen: list[tuple[int, int]] = []
    with make_store(tmp_path) as store:
        for number in range(index + 1):
            seen.clear()
            engine = make_engine(acquisition=DensityToUncertain(density, UncertaintyOnly(1)))
            run_round(engine, store, number, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(number, 25) for number in range(1, 26)]  # 11 of the source, 7 twice
        ratio = knowing(DensityRatio(1))
        for image, image_id in enumerate(IDS):
            logits, features = rounds.with_features(rounds.images()[image : image + 1])
            maps = ratio(logits, LABEL, [0], features=features)
            uncertain = UncertaintyOnly(1)(logits, LABEL, [0]).score[0].numpy()
            available = ~store.suppressed(image_id, index)
            picks = store.picks(image_id, index).picks
            first = len(picks) if index == 0 else math.ceil(len(picks) / 2)
            assert maps.tie_break is not None
            rule: dict[str, Any] = {"available": available, "tie_break": maps.tie_break[0].numpy()}
            if balanced:
                full = torch.nn.functional.interpolate(logits, LABEL, mode="bilinear", align_corners=True)
                expected = picking.fair_picks(maps.score[0].numpy(), full[0].argmax(0).numpy(), first, 2, **rule)
            else:
                expected = picking.greedy_picks(maps.score[0].numpy(), first, 2, **rule)
            left = available.copy()
            for row, column in expected:
                left[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = False
            expected = [*expected, *picking.greedy_picks(uncertain, len(picks) - first, 2, available=left)]
            assert picks.tolist() == [list(one) for one in expected]


def test_regions_and_pixels_of_the_grid_are_shared_out_too(tmp_path: Path) -> None:
    pixel: dict[str, Any] = {"pixel": True, "radius": 3, "suppress_radius": 3, "budget": 24, "grid": "training"}
    scores = DensityRatio(1, pixel=True), UncertaintyOnly(1, pixel=True)
    for name, more in {"regions": {"region": Rectangles(5, 4)}, "pixels": pixel}.items():
        picks = {}
        variants: dict[str, Any] = {"density": scores[0], "uncertain": scores[1], "both": DensityToUncertain(*scores)}
        for kind, score in variants.items():
            with make_store(tmp_path / name / kind) as store:
                run_round(make_engine(acquisition=UncertaintyOnly(1), **more), store, 0)
                run_round(make_engine(acquisition=score, **more), store, 1)
                picks[kind] = [store.picks(one, 1).picks.tolist() for one in IDS]
                before = [store.picks(one, 0).picks.tolist() for one in IDS]
        for image, (density, uncertain, both) in enumerate(zip(*picks.values(), strict=True)):
            half = 4 if name == "pixels" else len(both) // 2  # of a budget of 8 pixels, of which few may be left
            assert both[:half] == density[:half]
            rest = [one for one in uncertain if one not in both[:half]]  # no two regions touch the same pixels
            if name == "pixels":
                rest = uncertain_pixels(image, [*before[image], *both[:half]], 3, len(both) - half)
            assert both[half:] == rest[: len(both) - half]


def uncertain_pixels(image: int, asked: list[list[int]], radius: int, count: int) -> list[list[int]]:
    """The most uncertain pixels of the training grid, picked by the literal loop away from those asked already."""
    grid = TrainingGrid.between(LABEL, INPUT)
    logits = rounds.network()(rounds.images()[image : image + 1])
    score = UncertaintyOnly(1, pixel=True)(logits, INPUT, [0]).score[0].numpy()
    left = ~grid.near(np.array(asked), radius)
    found = picking.greedy_picks(score, count, radius, available=left)
    return [[int(grid.rows[row]), int(grid.columns[column])] for row, column in found]


@given(st.integers(0, 9), st.floats(0.0, 5.0))
def test_the_share_of_density_halves(index: int, decay: float) -> None:
    score: Any = for_round(DensityToUncertain(DensityRatio(1), RipuScore(1), decay), index, 10)
    assert score.share == pytest.approx(math.exp(-decay * index * math.log(2)))
    parts = score.split()
    assert sum(share for share, _ in parts) == pytest.approx(1.0)
    assert isinstance(parts[0][1], DensityRatio)
    assert [type(one) for _, one in DensityToUncertain(DensityRatio(1), RipuScore(1)).split()] == [RipuScore]


def test_labels_of_the_target_play_no_part(tmp_path: Path) -> None:
    class Void:
        def answer(self, image_id: str, rows: Any, columns: Any) -> Any:
            return np.full(len(rows), 255, dtype=np.uint8)

    found = {}
    for name, more in {"true": {}, "void": {"oracle": Void()}}.items():
        with make_store(tmp_path / name) as store:
            for index in range(2):
                run_round(make_engine(acquisition=PAIR, **more), store, index)
            found[name] = [store.picks(one, 1).picks.tolist() for one in IDS]
    assert found["true"] == found["void"]


def test_a_class_that_the_source_lacks_is_neither_dense_nor_rare() -> None:
    score = DensityRatio(1)
    source = np.array([[[0.0, 1.0], [0.0, 2.0], [-1.0, 0.0]]])
    pool = np.array([[[0.0, 1.0], [1.0, 2.0], [-1.0, 0.0]]])
    assert set(score.with_source(source).with_pool(pool).pairs or ()) == {0}
    assert score.with_pool(pool).pairs == {}


@pytest.mark.parametrize("setting", ["target_only", "source_free"])
def test_runs_without_a_source_are_refused(setting: str, data_root: Path, tmp_path: Path) -> None:
    words = [f"setting={setting}", "acquisition=density"]
    if setting == "source_free":
        words += ["model.checkpoint=x.ckpt", "selection_steps=[2]"]
    said = rf"acquisition compares .*setting={setting} has no source; use setting=active"
    with pytest.raises(ConfigError, match=said):
        train_here(data_root, tmp_path / "run", *words)
    assert not (tmp_path / "run" / "labels").exists()


def test_an_engine_without_source_or_features_says_so(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with pytest.raises(ConfigError, match="there is no source"):
            run_round(make_engine(acquisition=PAIR), store, 0, source=None)
        with pytest.raises(ConfigError, match="only its logits are known"):
            run_round(make_engine(acquisition=PAIR), store, 0, with_features=None)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_source_of_which_nothing_can_be_read_fails_the_round(world_size: int, tmp_path: Path) -> None:
    def unreadable(indices: list[int]) -> list[dict[str, Any]]:
        faults = [Fault("source", str(index), f"{index}.png", "is cut off") for index in indices]
        return [{"image": torch.empty(0), "label": [], "index": [], "fault": faults}]

    with make_store(tmp_path) as store:
        source = rounds.Labelled(11, unreadable)  # type: ignore[arg-type]
        for error in rounds.run_ranks(make_engine(acquisition=PAIR), store, 0, world_size, source=source):
            assert isinstance(error, SelectionError)
            assert re.search(r"round 0 at step 10 was not committed: none of the source images .*doctor", str(error))
        assert store.num_rounds == 0


@dataclass(frozen=True)
class Counting:
    """A score that counts its calls."""

    calls: list[int]
    needs_image: bool = False

    def __call__(self, logits: torch.Tensor, size: tuple[int, int], keys: Any, **more: Any) -> Any:
        self.calls.append(1)
        return UncertaintyOnly(1)(logits, size, keys)


@pytest.mark.parametrize("region", [None, Rectangles(5, 4)])
def test_a_score_without_a_share_of_the_picks_is_not_computed(region: Any, tmp_path: Path) -> None:
    calls: list[int] = []
    pair = DensityToUncertain(UncertaintyOnly(1), Counting(calls))
    few = 0.005 if region is None else 0.0005  # a pick of each image; no pixel of regions
    counts = []
    for name, budget in {"few": few, "many": 0.5}.items():
        with make_store(tmp_path / name) as store:
            calls.clear()
            run_round(make_engine(acquisition=UncertaintyOnly(1), budget=budget, region=region), store, 0)
            run_round(make_engine(acquisition=pair, budget=budget, region=region), store, 1)
            counts.append(len(calls))
    assert counts == [0, len(IDS)]


def test_picks_are_blocked_only_for_a_later_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    monkeypatch.setattr(scoring, "grown", lambda mask, radius: [grown.append(1), candidates.grown(mask, radius)][1])
    with make_store(tmp_path) as store:
        run_round(make_engine(acquisition=UncertaintyOnly(1)), store, 0)
        assert not grown
        run_round(make_engine(acquisition=PAIR), store, 1)
        assert len(grown) == len(IDS)


@pytest.mark.parametrize("outer", [ClassBalanced(PAIR), DensityToUncertain(ClassBalanced(PAIR), UncertaintyOnly(1))])
def test_a_score_that_shares_out_picks_is_not_part_of_another(outer: Any) -> None:
    for more in ({"acquisition": outer}, {"acquisition": UncertaintyOnly(1), "first_round": outer}):
        with pytest.raises(ConfigError, match="contains DensityToUncertain, which shares out the picks"):
            make_engine(**more)


def test_shared_budgets_take_the_ratio_alone() -> None:
    with pytest.raises(ConfigError, match=r"mode.budget_per=dataset compares"):
        make_engine(budget_per="dataset", acquisition=PAIR)
    make_engine(budget_per="dataset", acquisition=DensityRatio(1))


@pytest.mark.parametrize("bad", [{"dimensions": 0}, {"samples": 0}, {"source_images": 0}])
def test_bad_numbers_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(bad))} 0 must be 1 or more"):
        DensityRatio(1, **bad)
    for decay in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="decay"):
            DensityToUncertain(DensityRatio(1), RipuScore(1), decay)


def test_a_replay_asks_as_the_run_did(data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "acquisition=density", "budget=0.1", "selection_steps=[6]")
    words = (f"run={tmp_path / 'run'}", "accelerator=cpu", "num_workers=0", f"paths.output_dir={tmp_path / 'again'}")
    results = replay(compose(*words, "acquisitions=[density,ripu]", config_name="replay"))
    assert set(results["asked"]) == {"the run", "density", "ripu"}
    bare = train_here(data_root, tmp_path / "bare", "setting=target_only", "budget=0.1")
    assert bare["rounds"]
    words = (f"run={tmp_path / 'bare'}", "accelerator=cpu", f"paths.output_dir={tmp_path / 'other'}")
    with pytest.raises(ConfigError, match="setting=target_only has no source"):
        replay(compose(*words, "acquisition=density", config_name="replay"))


def test_the_yaml_is_the_schedule_of_the_paper() -> None:
    made: Any = instantiate(spec("acquisition=density").acquisition)
    shares = [for_round(made, index, 5).share for index in range(5)]  # type: ignore[attr-defined]
    assert shares == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert made == DensityToUncertain(ClassBalanced(DensityRatio(1)), UncertaintyOnly(1))
    assert INPUT == (15, 22)
