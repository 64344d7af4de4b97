"""Another score in the first round: who knows of it, and what it does to picks, resuming, reports and replays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rounds
from ripu.acquisition import ColorClusters, RandomScore, RipuScore
from ripu.config.migrate import read_values, upgrade
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.regions import Rectangles
from ripu.replay import replay
from ripu.report.collect import read_record
from running import ROUNDS, call, compose, label_bytes, same_weights, spec, tiny, train_here


def _replay(run: Path, out: Path, *words: str) -> dict[str, Any]:
    more = (f"run={run}", f"paths.output_dir={out}", "accelerator=cpu", "num_workers=0")
    return replay(compose(*more, *words, config_name="replay"))


def _picks(labels: Path, index: int) -> list[list[list[int]]]:
    with LabelStore.open(labels) as store:
        return [store.picks(one.image_id, index).picks.tolist() for one in store.images]


@pytest.mark.parametrize("region", [None, Rectangles(5, 4)], ids=["square", "rectangles"])
@pytest.mark.parametrize("first", [RandomScore(), ColorClusters(4)], ids=["random", "clusters"])
def test_only_the_first_round_uses_it(first: Any, region: Any, tmp_path: Path) -> None:
    by_rounds = {}
    for name, changes in {
        "first": {"acquisition": first},
        "own": {"acquisition": RipuScore(1), "first_round": first},
    }.items():
        engine = rounds.make_engine(region=region, **changes)
        with rounds.make_store(tmp_path / name) as store:
            for index in range(2):
                rounds.run_round(engine, store, index)
            by_rounds[name] = [[store.picks(one, index).picks.tolist() for one in rounds.IDS] for index in range(2)]
            by_rounds[f"{name} info"] = [one.info["acquisition"] for one in store.rounds]
    assert by_rounds["own"][0] == by_rounds["first"][0]
    assert by_rounds["own"][1] != by_rounds["first"][1]
    assert by_rounds["own info"] == [type(first).__name__, "RipuScore"]
    engine = rounds.make_engine(region=region, acquisition=RipuScore(1))
    with rounds.make_store(tmp_path / "later") as store:  # the later rounds are those of the score itself
        rounds.run_round(rounds.make_engine(region=region, acquisition=first), store, 0)
        rounds.run_round(engine, store, 1)
        assert [store.picks(one, 1).picks.tolist() for one in rounds.IDS] == by_rounds["own"][1]


def test_scores_that_share_out_picks_need_a_budget_for_each_image() -> None:
    for scores in ({"acquisition": ColorClusters(4)}, {"first_round": ColorClusters(4)}):
        with pytest.raises(ConfigError, match=r"mode.budget_per=dataset compares .*\(ColorClusters\); use"):
            rounds.make_engine(budget_per="dataset", **scores)
    rounds.make_engine(budget_per="dataset", first_round=RandomScore())


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds, the first one at random; for reading only."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train_here(data_root, folder, "first_round=random", "budget=0.1")
    return folder


def test_results_rounds_and_report_say_which_score_asked(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert (results["acquisition"], results["first_round"]) == ("RipuScore", "RandomScore")
    assert [one["acquisition"] for one in results["rounds"]] == ["RandomScore", "RipuScore"]
    assert results["rounds"][0]["mean_impurity"] is None
    assert results["rounds"][1]["mean_uncertainty"] is not None
    with LabelStore.open(run / "labels") as store:
        assert [one.info["acquisition"] for one in store.rounds] == ["RandomScore", "RipuScore"]
    assert read_record(run, read_values).title["acquisition"] == "RandomScore, then RipuScore"
    page = (run / "report.html").read_text()
    assert "RandomScore, then RipuScore" in page
    assert "<td>RandomScore</td>" in page


def test_the_first_round_counts_but_not_before_it(run: Path, data_root: Path, tmp_path: Path) -> None:
    plain = train_here(data_root, tmp_path, "budget=0.1")
    results = json.loads((run / "results.json").read_text())
    assert plain["first_round"] is None
    assert plain["rounds"][0]["mIoU_before"] == results["rounds"][0]["mIoU_before"]
    assert _picks(run / "labels", 0) != _picks(tmp_path / "labels", 0)
    assert not same_weights(run, tmp_path)


@pytest.mark.parametrize("word", [(), ("first_round=clusters",)])
def test_a_resumed_run_cannot_change_it(run: Path, data_root: Path, word: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"started with other settings \(first_round"):
        train_here(data_root, run, "budget=0.1", "resume=true", *word)


def test_resuming_between_the_rounds_gives_the_same_run(run: Path, data_root: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(run, again)
    (again / "checkpoints" / "final.ckpt").unlink()
    for path in sorted((again / "checkpoints").glob("step-*.ckpt"))[1:]:
        path.unlink()
    train_here(data_root, again, "first_round=random", "budget=0.1", "resume=true")
    assert same_weights(run, again)
    assert label_bytes(run) == label_bytes(again)


def test_a_replay_without_scores_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    _replay(run, tmp_path / "own")
    assert _picks(tmp_path / "own" / "RipuScore" / "labels", 0) == _picks(run / "labels", 0)


def test_scores_that_a_replay_compares_ask_every_round(run: Path, tmp_path: Path) -> None:
    _replay(run, tmp_path / "all", "acquisitions=[ripu,entropy]")
    stored = tmp_path / "all" / "ripu" / "labels"
    assert _picks(stored, 0) != _picks(run / "labels", 0)
    with LabelStore.open(stored) as store:
        assert [one.info["acquisition"] for one in store.rounds] == ["RipuScore", "RipuScore"]
    _replay(run, tmp_path / "given", "acquisitions=[ripu]", "first_round=random")
    assert _picks(tmp_path / "given" / "ripu" / "labels", 0) == _picks(run / "labels", 0)
    (tmp_path / "given" / "replay.json").unlink()  # as if it had been stopped
    with pytest.raises(ConfigError, match=r"other inputs \(first_round"):
        _replay(run, tmp_path / "given", "acquisitions=[ripu]", "first_round=clusters")


def test_a_replay_shares_the_images_that_only_the_first_round_needs(run: Path, tmp_path: Path) -> None:
    _replay(run, tmp_path, "acquisitions=[ripu]", "first_round=clusters")
    with LabelStore.open(tmp_path / "ripu" / "labels") as store:
        assert [one.info["acquisition"] for one in store.rounds] == ["ColorClusters", "RipuScore"]


def test_older_runs_used_one_score() -> None:
    assert upgrade({"mode": {}})["first_round"] == {}
    assert spec().first_round is None
    assert spec("first_round=same").scores == {"acquisition": "RipuScore", "first_round": None}


def test_an_experiment_of_ones_own_can_choose_it(tmp_path: Path, data_root: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /first_round: random\nbudget: 0.1\n"
    )
    words = tiny(data_root, tmp_path / "run", *ROUNDS, "experiment=mine", "dry_run=true")
    done = call("ripu.train", "--config-dir", str(tmp_path / "conf"), *words, "--cfg", "job", cwd=tmp_path)
    assert "_target_: ripu.acquisition.RandomScore" in done.stdout
    done = call("ripu.train", "--config-dir", str(tmp_path / "conf"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "round 1" in done.stdout
