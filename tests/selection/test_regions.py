"""Region shapes: their partitions, the scores of their regions, and what a round asks of them."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

import rounds
from ripu import acquisition as scores
from ripu.config.validate import config_dir
from ripu.io.errors import ConfigError
from ripu.regions import Rectangles, RegionShape, Square, Superpixels
from ripu.selection.candidates import fixed_candidates, global_cut
from running import compose, spec, spec_of, train_here

FILES = sorted(Path(config_dir(), "region").glob("*.yaml"))
SIZE = (23, 31)
NOTHING = np.zeros(SIZE, dtype=np.bool_)


def _shape(path: Path, **changes: Any) -> RegionShape:
    recipe = {"region_side": 16, "region_pixels": 256}
    node = OmegaConf.create({"mode": {"radius": 1}, "dataset": {"recipe": recipe}, "region": OmegaConf.load(path)})
    node.region = OmegaConf.merge(node.region, changes)
    try:
        shape: RegionShape = instantiate(node.region)
    except Exception as error:
        if "ripu[superpixels]" in str(error):
            pytest.skip("scikit-image is not installed")
        raise
    return shape


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shape_cuts_an_image_the_same_way_again(path: Path) -> None:
    shape = _shape(path)
    assert shape.region_px() >= 1
    if not shape.is_fixed:
        return
    image = rounds.images()[0].permute(1, 2, 0).numpy() if shape.needs_image else None
    for size in ((1, 1), SIZE, (64, 48)):
        partition = shape.partition(size, image)
        assert partition.shape == size
        assert partition.dtype == np.int32
        assert partition.min() >= -1
        np.testing.assert_array_equal(partition, shape.partition(size, image))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shape_composes(path: Path) -> None:
    cfg = compose("dataset=camvid", f"region={path.stem}")
    if "superpixels" in path.stem and importlib.util.find_spec("skimage") is None:
        with pytest.raises(ValueError, match=r"ripu\[superpixels\]"):
            _ = spec_of(cfg).region
        return
    if spec_of(cfg).region.is_fixed:
        with pytest.raises(ConfigError, match=r"mode=ra, or region=square"):
            _ = spec("dataset=camvid", "mode=pa", f"region={path.stem}").region


def test_rectangles_at_the_border_are_smaller() -> None:
    counts = np.bincount(Rectangles(10, 8).partition(SIZE).ravel())
    assert counts.tolist() == [80, 80, 80, 70] * 2 + [24, 24, 24, 21]


@pytest.mark.parametrize(
    "wrong", [{"height": 0, "width": 4}, {"height": 4, "width": 1.5}, {"height": True, "width": 2}]
)
def test_impossible_rectangles(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"region\.(height|width)="):
        Rectangles(**wrong)


def _regions_of(partition: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(partition.ravel() == number) for number in range(partition.max() + 1)]


def _literal(logits: torch.Tensor, pixels: NDArray[np.int64]) -> tuple[float, float]:
    """Impurity of the predicted labels and mean entropy over a set of pixels, in float64."""
    full = torch.nn.functional.interpolate(logits.double(), SIZE, mode="bilinear", align_corners=True)
    probs = full.softmax(1)[0].flatten(1).numpy()
    label = probs.argmax(0)[pixels]
    impurity = 0.0
    for count in np.bincount(label):
        if count:
            impurity -= count / len(pixels) * math.log(count / len(pixels))
    entropy = -(probs[:, pixels] * np.log(probs[:, pixels])).sum(0).mean()
    return impurity, float(entropy)


@pytest.mark.parametrize("name", ["ripu", "impurity", "entropy"])
def test_scores_of_regions_are_the_equations_over_the_region(name: str) -> None:
    logits = 3 * torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    partition = Rectangles(4, 6).partition(SIZE)
    score = {"ripu": scores.RipuScore(1), "impurity": scores.ImpurityOnly(1), "entropy": scores.UncertaintyOnly(1)}[
        name
    ]
    offer = fixed_candidates(2, score, logits, partition, 0, NOTHING, SIZE[0] * SIZE[1])
    regions = _regions_of(partition)
    assert len(offer) == len(regions)
    assert offer.regions is not None
    assert (np.diff(offer.scores) <= 0).all()
    found = [offer.regions.indices[a:b] for a, b in zip(offer.regions.offsets, offer.regions.offsets[1:], strict=False)]
    for pixels, place, value in zip(found, offer.places, offer.scores, strict=True):
        assert any(np.array_equal(pixels, region) for region in regions)
        assert place[0] * SIZE[1] + place[1] in pixels
        impurity, entropy = _literal(logits, pixels)
        expected = {"ripu": impurity * entropy, "impurity": impurity, "entropy": entropy}[name]
        assert value == pytest.approx(expected, abs=1e-5)


def test_equal_scores_go_by_uncertainty_then_by_number() -> None:
    logits = torch.zeros(1, 3, *SIZE)
    logits[:, 0] = 2.0
    logits[:, 0, :, 10:20] = 1.0  # one class everywhere, so that the score is 0; less certain here
    partition = (np.indices(SIZE)[1] // 10).astype(np.int32)
    offer = fixed_candidates(0, scores.RipuScore(1), logits, partition, 0, NOTHING, SIZE[0] * SIZE[1])
    assert (offer.scores == 0).all()
    assert (offer.places[:, 1] // 10).tolist() == [1, 0, 2, 3]


def test_random_regions_do_not_favour_small_ones() -> None:
    partition = (np.indices(SIZE)[1] // 10).astype(np.int32)  # the last region is one column
    logits = torch.zeros(1, 2, *SIZE)
    first = [
        int(fixed_candidates(0, scores.RandomScore(), logits, partition, key, NOTHING, 10**6).places[0, 1]) // 10
        for key in range(400)
    ]
    assert min(np.bincount(first, minlength=4)) > 60


def test_regions_are_taken_until_one_does_not_fit() -> None:
    logits = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    partition = Rectangles(7, 9).partition(SIZE)

    def offer(limit: int, **more: Any) -> Any:
        return fixed_candidates(0, scores.UncertaintyOnly(1), logits, partition, 0, NOTHING, limit, **more)

    everything = offer(SIZE[0] * SIZE[1]).pixels
    for limit in range(0, 300, 13):
        taken = offer(limit).pixels
        assert taken.sum() <= limit
        assert taken.sum() + everything[len(taken)] > limit
    assert len(offer(0)) == 0
    assert len(offer(0, at_least_one=True)) == 1


@pytest.mark.parametrize("budget_per", ["image", "dataset"])
def test_rounds_of_rectangles_keep_the_budget_and_never_ask_twice(tmp_path: Path, budget_per: str) -> None:
    shape = Rectangles(5, 4)
    mask = np.zeros(rounds.LABEL, dtype=np.bool_)
    mask[20:, :10] = True
    engine = rounds.make_engine(region=shape, budget=0.3, budget_per=budget_per, excluded=lambda index: mask)
    area = rounds.LABEL[0] * rounds.LABEL[1]
    with rounds.make_store(tmp_path) as store:
        for index in range(3):
            rounds.run_round(engine, store, index)
            asked = [int(store.asked_mask(image).sum()) for image in rounds.IDS]
            limit = math.floor(round(area * 0.3 * (index + 1) / 3, 9))
            if budget_per == "image":
                assert max(asked) <= limit
                assert min(asked) > limit - shape.region_px()
            else:
                assert limit * len(asked) - shape.region_px() < sum(asked) <= limit * len(asked)
                assert max(asked) > limit
        partition = shape.partition(rounds.LABEL)
        for image in rounds.IDS:
            shown = store.asked_mask(image)
            assert not (shown & mask).any()
            for number in np.unique(partition[shown]):
                np.testing.assert_array_equal(shown[partition == number], ~mask[partition == number])
            truth = np.where(shown, rounds.truth(image), 255)
            np.testing.assert_array_equal(store.revealed_label(image), truth)


def test_a_region_that_was_too_large_for_one_round_comes_in_a_later_one(tmp_path: Path) -> None:
    engine = rounds.make_engine(region=Rectangles(10, 22), budget=0.2)  # 220 of 264 pixels; 88 a round
    with rounds.make_store(tmp_path) as store:
        counts = []
        for index in range(3):
            rounds.run_round(engine, store, index)
            counts.append(len(store.picks(rounds.IDS[0], index).picks))
    assert counts == [0, 0, 1]


def test_regions_that_can_never_fit_are_refused_before_anything_is_written(data_root: Path, tmp_path: Path) -> None:
    words = ("region=rectangles", "region.width=60", "budget=0.2")
    with pytest.raises(ConfigError, match=r"budget=0\.2 is .* make regions smaller or the budget larger"):
        train_here(data_root, tmp_path / "run", *words, "region.height=60")
    assert not (tmp_path / "run").exists()
    train_here(data_root, tmp_path / "run", *words, "region.height=2")


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"mode\.pixel=true"):
        rounds.make_engine(pixel=True, budget=10, region=Rectangles(4, 4))
    with pytest.raises(ValueError, match=r"acquisition\.numerics=released"):
        rounds.make_engine(acquisition=scores.RipuScore(1, numerics="released"), region=Rectangles(4, 4))
    released = scores.RipuScore(1, numerics="released")
    for changes in ({"first_round": released}, {"acquisition": scores.PixelPick(released)}):
        with pytest.raises(ValueError, match=r"acquisition\.numerics=released"):
            rounds.make_engine(region=Rectangles(4, 4), **changes)
    with pytest.raises(ConfigError, match=r"mode\.image_cap=2"):
        _ = spec("dataset=camvid", "mode.image_cap=2").query
    with pytest.raises(ConfigError, match=r"mode\.image_cap=0\.5"):
        _ = spec("dataset=camvid", "mode.image_cap=0.5", "mode.budget_per=dataset").query
    with pytest.raises(ConfigError, match=r"mode\.budget_per=batch"):
        _ = spec("dataset=camvid", "mode.budget_per=batch").query
    with pytest.raises(ConfigError, match=r"give only mode\.radius"):
        _ = spec("dataset=camvid", "region.radius=3").region
    with pytest.raises(TypeError):
        Square(1).partition((4, 4))


def test_superpixels_without_the_library_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "skimage" else found(name, *more)
    )
    with pytest.raises(ValueError, match=r"ripu\[superpixels\]"):
        Superpixels(100)


@pytest.fixture
def fake_slic(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for scikit-image that cuts an image into columns and notes what it was asked."""
    asked: dict[str, Any] = {}

    def slic(image: NDArray[np.uint8], **options: Any) -> NDArray[np.int64]:
        asked.update(options)
        return np.indices(image.shape[:2])[1] * options["n_segments"] // image.shape[1]

    segmentation = types.SimpleNamespace(slic=slic)
    monkeypatch.setitem(sys.modules, "skimage", types.ModuleType("skimage"))
    monkeypatch.setitem(sys.modules, "skimage.segmentation", segmentation)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: object())
    return asked


def test_superpixels_are_brought_to_label_size(fake_slic: dict[str, Any]) -> None:
    image = rounds.images()[0].permute(1, 2, 0).numpy()
    partition = Superpixels(120).partition(rounds.LABEL, image)
    assert fake_slic["n_segments"] == 11
    assert partition.shape == rounds.LABEL
    np.testing.assert_array_equal(partition[0], np.arange(44) // 2 * 11 // 22)
    with pytest.raises(ValueError, match="need the image"):
        Superpixels(120).partition(rounds.LABEL)


def test_a_round_of_superpixels(fake_slic: dict[str, Any], tmp_path: Path) -> None:
    engine = rounds.make_engine(region=Superpixels(66), budget=0.4)
    assert engine.scorer.needs_image
    with rounds.make_store(tmp_path) as store:
        rounds.run_round(engine, store, 0)
        assert all(len(store.picks(image, 0).picks) for image in rounds.IDS)


def test_real_superpixels() -> None:
    pytest.importorskip("skimage")
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, 30:] = 255
    partition = Superpixels(200).partition((80, 120), image)
    assert 10 < partition.max() + 1 < 100
    assert not set(partition[:, :60].ravel()) & set(partition[:, 60:].ravel())  # none crosses the edge


def test_the_cut_goes_by_score_then_image_then_order() -> None:
    values = [np.float32([3, 2, 2]), np.float32([]), np.float32([3, 2])]
    costs = [np.ones(len(one), dtype=np.int64) for one in values]
    taken = [global_cut(values, costs, budget).tolist() for budget in range(7)]
    assert taken == [[0, 0, 0], [1, 0, 0], [1, 0, 1], [2, 0, 1], [3, 0, 1], [3, 0, 2], [3, 0, 2]]


def test_would_ask_is_the_first_round(tmp_path: Path) -> None:
    for engine in (rounds.make_engine(), rounds.make_engine(region=Rectangles(5, 4))):
        logits = rounds.network()(rounds.images()[2:3])
        with rounds.make_store(tmp_path / type(engine.scorer.region).__name__) as store:
            rounds.run_round(engine, store, 0, pool=lambda indices: rounds.pool(indices, batch_size=1))
            pixels = engine.scorer.would_ask(logits, rounds.images()[2], rounds.LABEL)
            np.testing.assert_array_equal(np.sort(pixels), np.flatnonzero(store.asked_mask(rounds.IDS[2])))
