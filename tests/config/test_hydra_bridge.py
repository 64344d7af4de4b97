"""The private names of Hydra are still there, and do what the package uses them for."""

from __future__ import annotations

from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from ripu.config.hydra_bridge import ConfigLoader, parse_arguments, split_sweep
from ripu.config.validate import config_dir


def test_arguments_are_split_into_options_and_overrides() -> None:
    args = parse_arguments(["-m", "--config-dir", "mine", "seed=0,1", "mode=ra"])
    assert (args.multirun, args.config_dir, args.overrides) == (True, "mine", ["seed=0,1", "mode=ra"])
    names = ("help", "hydra_help", "shell_completion", "info", "experimental_rerun", "config_name")
    assert not any(getattr(args, name) for name in names)


def test_a_sweep_is_split_into_jobs() -> None:
    overrides = OverridesParser.create().parse_overrides(["seed=0,1", "mode=ra"])
    assert split_sweep(overrides) == [["seed=0", "mode=ra"], ["seed=1", "mode=ra"]]


def test_configurations_are_composed_without_a_command(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("defaults: [streets, _self_]\nname: mine\n")
    loader = ConfigLoader(config_dir(), str(tmp_path))
    cfg = loader.compose("train", ["dataset=mine", "seed=3"])
    assert (cfg.dataset.name, cfg.seed) == ("mine", 3)
    assert cfg.hydra.runtime.choices["dataset"] == "mine"
    assert [one.provider for one in cfg.hydra.runtime.config_sources][:3] == ["hydra", "main", "command-line"]


def test_groups_and_their_options_are_known() -> None:
    loader = ConfigLoader(config_dir())
    assert loader.is_group("mode")
    assert not loader.is_group("seed")
    assert loader.options("mode") == ["images", "pa", "ra"]
    assert "table1/ra" in loader.options("experiment")
