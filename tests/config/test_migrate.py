"""Configurations of older runs have today's keys once they are upgraded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ripu.config.migrate import RENAMED, upgrade
from ripu.config.nodes import plain
from ripu.config.spec import make_spec
from ripu.config.targets import accept_stored
from ripu.config.validate import locate, values_of
from ripu.io.errors import ConfigError
from ripu.io.reading import read_yaml
from ripu.run.folder import check_free
from running import compose

OLD_RUNS = Path(__file__).parent / "old_runs"
RECIPE = ["optimizer=sgd", "objective.class_balance=0", "ema.decay=null", "dataset.recipe.max_steps=400"]
"""The recipe of streets at the time."""

CHOICES = {
    "first": ["dataset=streets", "mode=pa", "model=smp", "logger=wandb", *RECIPE],
    "with-dashboards": ["dataset=gtav", "logger=wandb", "model=deeplabv2_r101"],
    "before-the-rooms": RECIPE,
}


def read(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = read_yaml(OLD_RUNS / f"{name}.yaml")
    return stored


@pytest.mark.parametrize("name", CHOICES)
def test_an_old_configuration_has_every_key_of_today(name: str) -> None:
    new = values_of(OmegaConf.create(upgrade(read(name))))
    today = values_of(compose(*CHOICES[name], "paths.output_dir=run"))
    # What the recipe lacks has been copied to where it is read, and a logger is made from the new command line.
    missing = {key for key in today.keys() - new.keys() if not key.startswith(("dataset.recipe.", "logger."))}
    assert missing == set()


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_stored_keeps_its_value(name: str) -> None:
    old = read(name)
    before = copy.deepcopy(old)
    new = values_of(OmegaConf.create(upgrade(old)))
    assert old == before
    for key, value in values_of(OmegaConf.create(old)).items():
        assert new[key] == (RENAMED.get(value, value) if key.endswith("._target_") else value)


def test_defaults_are_what_the_code_of_the_time_did() -> None:
    new = upgrade(read("first"))
    assert new["region"] == {"_target_": "ripu.regions.Square", "radius": 8}
    assert new["setting"]["selection_fractions"] == new["dataset"]["recipe"]["selection_fractions"]
    assert new["setting"]["uses_source"] is True
    assert new["protocol"]["flip"] is new["evaluation"]["flip"] is False
    assert new["start"]["run"] is None
    assert upgrade(read("with-dashboards"))["logger"]["wandb"]["_target_"] == "ripu.dashboards.wandb.WandbBoard"


def test_todays_configuration_stays_what_it_is() -> None:
    today = OmegaConf.to_container(compose("paths.output_dir=run"), resolve=True)
    assert isinstance(today, dict)
    assert upgrade({str(key): value for key, value in today.items()}) == today


@pytest.mark.parametrize("target", RENAMED.values())
def test_todays_names_are_there(target: str) -> None:
    locate(target, "logger")


@pytest.mark.parametrize("damaged", [{}, {"setting": None}, {"mode": 3}, {"model": {"_target_": []}}, {"dataset": []}])
def test_damaged_configurations_are_left_to_whoever_reads_them(damaged: dict[str, Any]) -> None:
    assert upgrade(damaged).items() >= {"dry_run": False}.items()


@pytest.mark.parametrize("name", CHOICES)
def test_a_checkpoint_of_an_old_run_describes_it(name: str) -> None:
    spec = make_spec(accept_stored(read(name), Path("old.ckpt")))
    assert len(spec.plan.selection_steps) == 5
    assert spec.query is not None
    assert spec.region is not None


@pytest.mark.parametrize("name", ["with-dashboards", "before-the-rooms"])
def test_an_old_run_can_be_resumed(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((OLD_RUNS / f"{name}.yaml").read_text())
    check_free(tmp_path, plain(compose(*CHOICES[name], f"paths.output_dir={tmp_path}")), resume=True)
    other = plain(compose(*CHOICES[name], "seed=1", f"paths.output_dir={tmp_path}"))
    with pytest.raises(ConfigError, match=r"other settings \(seed: 0 -> 1\)"):
        check_free(tmp_path, other, resume=True)
