"""Keys, types and values of ``conf/``, and of configurations that programs compose."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ripu.config import keys, validate
from ripu.config.checks import checked_spec
from ripu.io.errors import ConfigError
from running import compose

COMMANDS = sorted(path.stem for path in Path(validate.config_dir()).glob("*.yaml"))


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_that_say_nothing_of_their_type_have_a_rule(name: str) -> None:
    """A key whose value in ``conf/`` is null or another key's can be anything unless the table has a rule."""
    # nodes, and paths that are looked up
    free = {"mode", "region", "acquisition", "first_round", "checkpoint", "run", "report", "input", "output"}
    open_ = [
        key
        for key, kinds in validate.known_keys(name).items()
        if not kinds - {type(None)}
        and keys.key_of(key).rule is None
        and key.partition(".")[0] not in ("dataset", "paths", *free)
    ]
    targets = ("model.", "region.", "acquisition.", "logger.")
    assert [key for key in open_ if not key.startswith(targets)] == []


def test_what_a_program_composes_is_checked_too() -> None:
    cfg = compose("dataset=camvid")
    OmegaConf.set_struct(cfg, False)
    cfg.seed = "zero"
    with pytest.raises(ConfigError, match="seed=zero"):
        checked_spec(cfg)


def test_keys_are_those_of_the_chosen_options() -> None:
    every = validate.known_keys("train")
    chosen = validate.known_keys("train", {"region": "square", "dataset": "streets_synthia"})
    assert every["region.pixels"] == every["region.radius"] == frozenset()
    assert {"region.radius", "dataset.prepare.layouts", "dataset.recipe.max_steps", "seed"} <= chosen.keys()
    assert not {"region.pixels", "dataset.day", "model.encoder"} & chosen.keys()
    own = validate.known_keys("train", {"region": "mine"})
    assert {"region.pixels", "region.radius"} <= own.keys()
    assert every["mode.budget"] == {int, float}


def test_a_part_of_a_configuration_may_refer_to_the_rest() -> None:
    part = OmegaConf.create({"mode": {"radius": "${dataset.radius}", "k": 1}, "budget": "???"})
    assert validate.values_of(part) == {"mode.k": 1}
    whole = OmegaConf.create({"dataset": {"name": "x"}, "mode": {"radius": "${dataset.radius}"}})
    with pytest.raises(ConfigError, match=r"mode\.radius cannot be resolved"):
        validate.values_of(whole)


def test_a_mapping_is_no_value() -> None:
    cfg = OmegaConf.create({"seed": {"a": 1}})
    with pytest.raises(ConfigError, match=r"seed=\{'a': 1\} is not allowed"):
        validate.check_values(cfg, "train")


def test_an_object_is_found_or_its_module_named() -> None:
    assert validate.locate("ripu.regions.Square", "region._target_").__name__ == "Square"
    with pytest.raises(ConfigError, match=r"region\._target_=ripu\.regions\.Sqare .*; did you mean Square\?"):
        validate.locate("ripu.regions.Sqare", "region._target_")
