"""Replaying the selection of a tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ripu import build, reopen
from ripu import replay as module
from ripu.build import ConfigError
from ripu.datamodule import PoolScenes
from ripu.labelstore import LabelStore
from ripu.replay import replay
from running import call, compose, train_here


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds; for reading only."""
    folder = tmp_path_factory.mktemp("replay") / "run"
    train_here(data_root, folder, "budget=0.1")
    return folder


def _replay(run: Path, out: Path, *words: str) -> dict[str, Any]:
    more = (f"run={run}", f"paths.output_dir={out}", "accelerator=cpu", "num_workers=0")
    return replay(compose(*more, *words, config_name="replay"))


def _picks(folder: Path) -> list[list[list[int]]]:
    store = LabelStore.open(folder / "labels")
    return [
        store.picks(one.image_id, index).picks.tolist() for one in store.images for index in range(store.num_rounds)
    ]


def test_several_scores_beside_the_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = _replay(run, tmp_path, "acquisitions=[ripu,random,canny_entropy]")
    assert results == json.loads((tmp_path / "replay.json").read_text())
    names = ["the run", "ripu", "random", "canny_entropy"]
    assert list(results["asked"]) == names
    assert results["rounds"] == 2
    own = LabelStore.open(run / "labels")
    asked = {name: own if name == names[0] else LabelStore.open(tmp_path / name / "labels") for name in names}
    masks = {
        name: np.concatenate([store.asked_mask(one.image_id).ravel() for one in own.images])
        for name, store in asked.items()
    }
    for name in names:
        facts = results["asked"][name]
        assert facts["asked_fraction"] == pytest.approx(masks[name].mean())
        assert sum(facts["class_shares"].values()) == pytest.approx(1.0)
        for other in set(names) - {name}:
            expected = (masks[name] & masks[other]).sum() / masks[name].sum()
            assert results["overlap"][name][other] == pytest.approx(expected)
    revealed = np.concatenate([asked["ripu"].revealed_label(one.image_id).ravel() for one in own.images])[masks["ripu"]]
    facts = results["asked"]["ripu"]
    assert facts["void_fraction"] == pytest.approx((revealed == 255).mean())
    known = revealed[revealed != 255]
    for number, share in enumerate(facts["class_shares"].values()):
        assert share == pytest.approx((known == number).mean())
    assert "also asked by" in capsys.readouterr().out


def test_the_network_of_the_run_is_asked(run: Path, tmp_path: Path) -> None:
    _replay(run, tmp_path, "rounds=1")
    stored = reopen.read_checkpoint(run / "checkpoints" / "final.ckpt")
    cfg = compose(config_name="replay")
    job = module._config(
        stored["hyper_parameters"]["config"], cfg, "own", stored["hyper_parameters"]["config"]["acquisition"]
    )
    scenes = build.make_scenes(job)
    network = build.make_module(job, scenes.taxonomy)
    network.load_state_dict(stored["state_dict"])
    network.eval()
    store = LabelStore.open(tmp_path / "RipuScore" / "labels")
    engine = build.make_engine(job, scenes, store)
    for index, one in enumerate(store.images):
        image = PoolScenes(scenes.target, (32, 48), [index])[0]["image"]
        with torch.no_grad():
            pixels = engine.would_ask(network(image[None]), image, (one.height, one.width))
        np.testing.assert_array_equal(np.sort(pixels), np.flatnonzero(store.asked_mask(one.image_id)))


def test_logits_are_computed_once_and_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    words = (f"cache={cache}", "acquisitions=[ripu,canny_entropy]")
    _replay(run, tmp_path / "cold", *words)
    files = sorted(path.name for path in cache.iterdir())
    assert files == ["000000.npy", "000001.npy", "000002.npy", "cache.json"]
    (cache / "000001.npy").unlink()
    _replay(run, tmp_path / "one_missing", *words)

    def never(*_: Any) -> None:
        raise AssertionError("the network was asked again")

    from ripu.module import RipuModule

    monkeypatch.setattr(RipuModule, "forward", never)
    _replay(run, tmp_path / "warm", *words)
    for name in ("ripu", "canny_entropy"):
        assert _picks(tmp_path / "cold" / name) == _picks(tmp_path / "warm" / name)
        assert _picks(tmp_path / "cold" / name) == _picks(tmp_path / "one_missing" / name)
    facts = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps({**facts, "target_size": [1, 1]}))
    with pytest.raises(ConfigError, match="another target_size"):
        _replay(run, tmp_path / "other", *words)


def test_memory_or_not_makes_no_difference(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replay(run, tmp_path / "kept")
    monkeypatch.setattr(module, "MEMORY_BYTES", 0)
    _replay(run, tmp_path / "again")
    assert _picks(tmp_path / "kept" / "RipuScore") == _picks(tmp_path / "again" / "RipuScore")


def test_another_window_mode_shape_and_budget(run: Path, tmp_path: Path) -> None:
    wider = _replay(run, tmp_path / "k", "mode.radius=3", "budget=0.2")
    assert (wider["radius"], wider["suppress_radius"], wider["budget"]) == (3, 6, 0.2)
    assert LabelStore.open(tmp_path / "k" / "RipuScore" / "labels").rounds[0].reveal_radius == 3
    pixels = _replay(run, tmp_path / "pa", "mode=pa", "mode.radius=4", "acquisition=entropy")
    assert (pixels["mode"], pixels["radius"], pixels["suppress_radius"], pixels["budget"]) == ("pa", 4, 4, 40)
    shapes = _replay(run, tmp_path / "grid", "region=rectangles", "region.height=8", "mode.budget_per=dataset")
    assert shapes["region"] == {"_target_": "ripu.regions.Rectangles", "height": 8, "width": 16}
    store = LabelStore.open(tmp_path / "grid" / "RipuScore" / "labels")
    assert store.picks(store.images[0].image_id, 0).regions is not None
    assert shapes["asked"]["RipuScore"]["asked_fraction"] <= 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("acquisitions=[ripu,entropi]",), "entropi"),
        (("acquisitions=[ripu]", "acquisition=entropy"), "both given"),
        (("rounds=3",), r"rounds=3 must lie in 1\.\.2"),
        (("mode.radius=3", "mode.suppress_radius=2"), r"mode\.suppress_radius=2"),
        (("mode=pa", "region=rectangles"), "use mode=ra"),
        (("accelerator=tpu",), "accelerator=tpu"),
        (("checkpoint=nowhere.ckpt",), "nowhere.ckpt does not exist"),
    ],
)
def test_errors_name_the_key(run: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _replay(run, tmp_path, *words)
    assert not (tmp_path / "replay.json").exists()


def test_a_run_without_rounds_is_asked_as_one_with_them(run: Path, data_root: Path, tmp_path: Path) -> None:
    fractions = "dataset.recipe.selection_fractions=[0.2,0.6]"
    train_here(data_root, tmp_path / "run", "setting=active", "selection_steps=[]", f"start.run={run}", fractions)
    found = _replay(tmp_path / "run", tmp_path / "out", "acquisitions=[random]")
    assert found["rounds"] == 2
    assert LabelStore.open(tmp_path / "out" / "random" / "labels").num_rounds == 2


def test_a_replay_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    _replay(run, tmp_path, "rounds=1")
    with pytest.raises(ConfigError, match="holds a replay already"):
        _replay(run, tmp_path, "rounds=1")


@pytest.mark.slow
def test_the_command(run: Path, tmp_path: Path) -> None:
    done = call("ripu.replay", f"run={run}", "acquisition=entropy", "paths.output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "entropy" / "labels" / "manifest.json").exists()
    wrong = call("ripu.replay", "run=nowhere", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "error: run=nowhere" in wrong.stderr
