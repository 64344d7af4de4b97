"""The description of a run, and its checks at the door."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from ripu.config.checks import checked_spec
from ripu.config.nodes import plain
from ripu.config.spec import make_spec
from ripu.io.errors import ConfigError
from ripu.regions import Rectangles
from running import compose, spec

OLD_RUNS = sorted((Path(__file__).parent / "old_runs").glob("*.yaml"))


def test_a_spec_is_plain_and_frozen() -> None:
    cfg = compose("dataset=camvid", "paths.output_dir=run", "trainer.devices=[0,1]", "logger=tensorboard")
    made = make_spec(plain(cfg), words=["seed=1"], experiment="table1/ra")
    assert made.config == OmegaConf.to_container(cfg, resolve=True)
    assert (made.words, made.experiment, made.output_dir) == (("seed=1",), "table1/ra", Path("run"))
    assert made.data.target_size == (192, 256)
    assert made.trainer.devices == [0, 1]
    assert [type(node) for node in (*made.loggers, made.model, made.acquisition)] == [dict, dict, dict]
    with pytest.raises(FrozenInstanceError):
        made.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize("path", OLD_RUNS, ids=lambda path: path.stem)
def test_configurations_of_older_runs_are_described(path: Path) -> None:
    made = make_spec(yaml.safe_load(path.read_text()))
    assert made.plan.max_steps > 0
    assert made.query is not None
    assert made.setting.uses_source
    assert not made.start.has_labels


def test_options_of_ones_own_may_leave_out_what_has_a_default() -> None:
    cfg = compose("paths.output_dir=run")
    OmegaConf.set_struct(cfg, False)
    del cfg.setting.uses_source, cfg.mode.budget_per, cfg.protocol.pixel_grid
    made = make_spec(plain(cfg))
    assert made.setting.uses_source
    assert made.query is not None
    assert (made.query.budget_per, made.query.grid) == ("image", "label")


def test_values_that_hydra_gives_are_left_out_at_the_door() -> None:
    cfg = compose("paths.output_dir=run", "logger=tensorboard")
    cfg.logger.tensorboard.save_dir = "${hydra:runtime.output_dir}/boards"
    checked_spec(cfg)


def test_regions_are_made_where_rounds_ask_for_them() -> None:
    assert isinstance(spec("region=rectangles").region, Rectangles)
    assert spec("region=rectangles", "setting=source_only").region is None


def test_a_budget_without_rounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget=0\.05 has no effect in setting=source_only"):
        checked_spec(compose("setting=source_only", "budget=0.05", "paths.output_dir=run"))
