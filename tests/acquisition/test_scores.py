from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from reference import equations, picking
from ripu.acquisition import (
    CannyEntropy,
    ColorClusters,
    ImpurityOnly,
    Margin,
    RandomScore,
    RipuScore,
    ScoreMaps,
    SoftmaxConfidence,
    UncertaintyOnly,
    ripu_maps,
    ripu_score,
)
from ripu.selection.picks import greedy_picks

CONF = Path(__file__).parents[2] / "conf"
CONFIGS = [*sorted((CONF / "acquisition").glob("*.yaml")), CONF / "first_round" / "clusters.yaml"]
SIZE = (29, 41)


def smooth_logits(batch: int, num_classes: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Piecewise smooth, as networks make them."""
    coarse = torch.randn(batch, num_classes, 4, 6, generator=torch.Generator().manual_seed(seed)) * 4
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)


def call(score: Any, logits: torch.Tensor, size: tuple[int, int] = SIZE, keys: list[int] | None = None) -> ScoreMaps:
    extra = {}
    if score.needs_image:
        pixels = torch.randint(256, (logits.shape[-2], logits.shape[-1], 3), generator=torch.Generator().manual_seed(3))
        extra["images"] = pixels.to(torch.uint8).expand(len(logits), -1, -1, -1)
    return score(logits, size, list(range(len(logits))) if keys is None else keys, **extra)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> Path:
    return request.param


def build(config: Path, radius: int, pixel: bool) -> Any:
    root = OmegaConf.create({"mode": {"radius": radius, "pixel": pixel}, "acquisition": OmegaConf.load(config)})
    return instantiate(root.acquisition)


def test_there_are_scores() -> None:
    assert {"ripu", "random", "entropy", "softmax_confidence"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(("radius", "pixel"), [(1, False), (4, True)])
def test_every_score_keeps_the_contract(config: Path, radius: int, pixel: bool) -> None:
    score = build(config, radius, pixel)
    logits = smooth_logits(3, 6, 17, 23)
    maps = call(score, logits)
    for name in ("score", "tie_break", "impurity", "uncertainty"):
        values = getattr(maps, name)
        if values is not None:
            assert values.shape == (3, *SIZE), name
            assert values.dtype == torch.float32, name
            assert torch.isfinite(values).all(), name
    assert maps.score.std() > 0
    assert maps.group is None or not score.is_comparable
    if maps.group is not None:
        assert maps.group.shape == (3, *SIZE)
        assert not maps.group.is_floating_point()
    for b in range(3):  # the same image alone: the same bytes
        alone = call(score, logits[b : b + 1], keys=[b])
        assert torch.equal(alone.score[0], maps.score[b])
        if maps.group is not None:
            assert alone.group is not None
            assert torch.equal(alone.group[0], maps.group[b])
        if maps.tie_break is not None:
            assert alone.tie_break is not None
            assert torch.equal(alone.tie_break[0], maps.tie_break[b])
    assert score == build(config, radius, pixel)


def test_every_score_computes_half_precision_in_float32(config: Path) -> None:
    score = build(config, 1, False)
    logits = smooth_logits(2, 6, 17, 23).bfloat16()
    assert torch.equal(call(score, logits).score, call(score, logits.float()).score)


def test_every_score_takes_an_empty_batch(config: Path) -> None:
    assert call(build(config, 1, False), torch.empty(0, 6, 17, 23)).score.shape == (0, *SIZE)


def test_every_score_that_reads_logits_refuses_nan(config: Path) -> None:
    score = build(config, 1, False)
    if isinstance(score, (RandomScore, ColorClusters)):
        pytest.skip("reads no logits")
    logits = smooth_logits(3, 6, 17, 23)
    logits[1, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"\[1\]"):
        call(score, logits)


@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("radius", [1, 3, 40])
@pytest.mark.parametrize("size", [(13, 17), (21, 30)])
def test_ripu_score_matches_the_loop(pixel: bool, radius: int, size: tuple[int, int]) -> None:
    logits = smooth_logits(1, 5, 13, 17)
    got = ripu_score(logits, radius, size=size, pixel=pixel)
    expected = equations.ripu_score(logits[0].double().numpy(), radius, size, pixel)
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("pixel", [False, True])
def test_the_whole_way_from_logits_to_picks(pixel: bool) -> None:
    radius, suppress_radius, num_picks = (5, 5, 9) if pixel else (1, 2, 40)
    logits = smooth_logits(1, 7, 30, 45, seed=5)
    full = torch.nn.functional.interpolate(logits, (48, 72), mode="bilinear", align_corners=True)[0].double().numpy()
    expected = equations.ripu_score(full, radius, (48, 72), pixel)
    maps = RipuScore(radius, pixel)(logits, (48, 72), [0])
    np.testing.assert_allclose(maps.score[0], expected, atol=1e-5)
    got = greedy_picks(maps.score[0], num_picks, suppress_radius, tie_break=maps.tie_break[0])
    assert got.tolist() == picking.greedy_picks(expected, num_picks, suppress_radius)


def test_score_without_size_keeps_the_size_of_the_logits() -> None:
    logits = smooth_logits(2, 5, 11, 12)
    assert torch.equal(ripu_score(logits, 1), ripu_score(logits, 1, size=(11, 12)))


@pytest.mark.parametrize("pixel", [False, True])
def test_ripu_maps_multiply_to_the_score(pixel: bool) -> None:
    maps = ripu_maps(smooth_logits(2, 5, 33, 37), 2, SIZE, pixel)
    assert maps.impurity is not None
    assert maps.uncertainty is not None
    torch.testing.assert_close(maps.impurity * maps.uncertainty, maps.score)
    assert torch.equal(maps.tie_break, maps.uncertainty)
    assert (maps.score[maps.impurity == 0] == 0).all()


@pytest.mark.parametrize("pixel", [False, True])
def test_released_numerics(pixel: bool) -> None:
    logits = smooth_logits(1, 5, 9, 11)
    values = logits[0].double().numpy()
    divisor = 1.0 if pixel else math.log(19)
    entropy = equations.pixel_entropy(values, epsilon=1e-6) / divisor
    uncertainty = entropy if pixel else equations.window_mean(entropy, 2)
    impurity = equations.region_impurity(values.argmax(0), 5, 2, epsilon=1e-6) / divisor
    maps = RipuScore(2, pixel, numerics="released")(logits, (9, 11), [0])
    np.testing.assert_allclose(maps.score[0], impurity * uncertainty, atol=1e-6)
    np.testing.assert_allclose(maps.uncertainty[0], uncertainty, atol=1e-5)


def test_other_scores_match_their_definitions() -> None:
    logits = smooth_logits(1, 6, 9, 11)
    probs = np.moveaxis(np.apply_along_axis(equations.softmax, 0, logits[0].double().numpy()), 0, 0)
    ordered = np.sort(probs, axis=0)
    entropy = equations.pixel_entropy(logits[0].double().numpy())
    expected = {
        SoftmaxConfidence: 1 - ordered[-1],
        Margin: 1 - (ordered[-1] - ordered[-2]),
        UncertaintyOnly: entropy,
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(call(kind(1, True), logits, (9, 11)).score[0], values, atol=1e-5)
        region = equations.window_mean(values, 1)
        np.testing.assert_allclose(call(kind(1, False), logits, (9, 11)).score[0], region, atol=1e-5)
    impurity = equations.region_impurity(probs.argmax(0), 6, 1)
    np.testing.assert_allclose(call(ImpurityOnly(1), logits, (9, 11)).score[0], impurity, atol=1e-5)
    assert (call(Margin(1, True), logits[:, :1], (9, 11)).score == 0).all()


def split_mix(key: int, number: int) -> int:
    """Steele, Lea, Flood: Fast splittable pseudorandom number generators, with Python's integers."""
    word = (1 << 64) - 1
    state = (key + number * 0x9E3779B97F4A7C15) & word
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
    return state ^ (state >> 31)


@pytest.mark.parametrize("key", [0, 1, 12345, 2**63, 2**64 - 1])
def test_random_is_split_mix(key: int) -> None:
    got = RandomScore()(torch.zeros(1, 2, 3, 4), (5, 6), [key]).score[0].flatten().tolist()
    assert got == [(split_mix(key, number) >> 40) * 2.0**-24 for number in range(1, 31)]


def test_random_is_uniform_and_depends_on_the_key_alone() -> None:
    maps = RandomScore()(torch.zeros(2, 3, 4, 5), (200, 300), [5, 6]).score
    assert abs(maps.mean().item() - 0.5) < 0.005
    assert abs(np.corrcoef(maps[0].flatten(), maps[1].flatten())[0, 1]) < 0.02
    assert maps.min() >= 0
    assert maps.max() < 1
    again = RandomScore()(torch.ones(1, 7, 2, 2), (200, 300), [6]).score
    assert torch.equal(again[0], maps[1])


@pytest.mark.parametrize("keys", [[-1], [2**64], [1, 2]])
def test_random_refuses_bad_keys(keys: list[int]) -> None:
    with pytest.raises(ValueError, match="key"):
        RandomScore()(torch.zeros(1, 2, 3, 4), (5, 6), keys)


def test_canny_scores_edges_alone() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, 30:] = (200, 180, 40)
    images = torch.from_numpy(image)[None]
    logits = smooth_logits(1, 5, 20, 30)
    maps = CannyEntropy(1, True)(logits, (40, 60), [0], images=images)
    entropy = UncertaintyOnly(1, True)(logits, (40, 60), [0]).score
    edges = torch.from_numpy(cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 200) > 0)
    assert 0 < edges.sum() < 100
    assert torch.equal(maps.score[0], torch.where(edges, entropy[0], 0.0))
    assert torch.equal(maps.tie_break, entropy)
    picks = greedy_picks(maps.score[0], 45, 0, tie_break=maps.tie_break[0])
    assert edges[picks[:40, 0], picks[:40, 1]].all()  # edges first, then the most uncertain of the rest
    assert not edges[picks[40:, 0], picks[40:, 1]].any()


@pytest.mark.parametrize("images", [torch.zeros(1, 4, 5, 3), torch.zeros(2, 4, 5, 3, dtype=torch.uint8)])
def test_canny_refuses_other_images(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images"):
        CannyEntropy(1)(torch.zeros(1, 3, 4, 5), (4, 5), [0], images=images)


@pytest.mark.parametrize("kind", [RipuScore, ImpurityOnly, UncertaintyOnly, SoftmaxConfidence, Margin, CannyEntropy])
def test_negative_radius_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="radius"):
        kind(-1)


def test_other_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="numerics"):
        RipuScore(1, numerics="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="thresholds"):
        CannyEntropy(1, low_threshold=10, high_threshold=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_score_on_cuda_matches_cpu(config: Path) -> None:
    score = build(config, 2, False)
    logits = smooth_logits(2, 6, 17, 23)
    torch.testing.assert_close(call(score, logits.cuda()).score.cpu(), call(score, logits).score, atol=1e-4, rtol=0)
