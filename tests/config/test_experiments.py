"""The rows of the paper's tables: each composes, and its objects have the values that the row is about."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ripu.config.checks import checked_spec
from ripu.config.nodes import instantiate
from ripu.config.validate import config_dir
from ripu.module import RipuModule
from ripu.run.assembly.network import make_module
from running import compose, spec_of

FOLDER = Path(config_dir()) / "experiment"
ROWS = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))
LABEL = (1024, 2048)
TRAIN = (640, 1280)


@cache
def composed(row: str, *more: str) -> Any:
    """The checked configuration of a row, for reading only."""
    is_free = row.endswith("source_free") or row in ("table5/gtav_ra", "table5/synthia_ra")
    start = ["model.checkpoint=source.ckpt"] if is_free else []
    cfg = compose(f"experiment={row}", "paths.output_dir=run", *start, *more)
    checked_spec(cfg)
    return cfg


def module(cfg: Any) -> RipuModule:
    with_tiny = OmegaConf.merge(cfg, {"model": {"_target_": "tiny.TinyNetwork", "checkpoint": None}})
    return make_module(spec_of(with_tiny))  # type: ignore[arg-type]


def leaves(cfg: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}" if name else str(key))
        else:
            flat[name] = node

    walk(OmegaConf.to_container(cfg, resolve=True), "")
    return flat


def differences(one: str, other: str) -> set[str]:
    first, second = leaves(composed(one)), leaves(composed(other))
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_the_published_setting(row: str) -> None:
    cfg = composed(row)
    made = module(cfg)
    is_synthia = cfg.dataset.name == "synthia"
    assert made.taxonomy.num_classes == (16 if is_synthia else 19)
    is_source = row in ("table5/gtav_source", "table5/synthia_source")
    assert made.optimization.learning_rate == (5e-4 if is_source else 2.5e-4)
    assert made.optimization.head_lr_factor == 10.0
    steps = {"source_free": 30000}.get(cfg.setting.name, 20000 if is_source else 40000)
    assert (made.plan.max_steps, made.optimization.poly_horizon) == (steps, 31250 if is_source else 62500)
    rounds = {
        "active": (10000, 12000, 14000, 16000, 18000),
        "source_free": (0, 2000, 4000, 6000, 8000),
        "source_only": (),
        "fully_supervised": (),
    }[cfg.setting.name]
    assert made.plan.selection_steps == rounds
    if rounds:
        query = spec_of(cfg).query
        side = 2 * query.radius + 1
        expected = 21 if query.pixel else -(-LABEL[0] * LABEL[1] * query.budget // 5 // side**2)
        assert query.picks_per_round(LABEL, TRAIN) == expected
        instantiate(cfg.acquisition)
    text = (FOLDER / f"{row}.yaml").read_text().splitlines()
    assert text[:2] == ["# @package _global_", f"# python -m ripu.train experiment={row}" + text[1].partition(row)[2]]
    assert re.match(r"# (Table|Fig\.) \d+, .*\.$", text[2])
    assert text[3].startswith("# Needs ")


@pytest.mark.parametrize(
    ("row", "picks"), [("table1/ra", 1026), ("table1/ra_5", 2331), ("table1/pa", 21), ("table5/gtav_ra", 26)]
)
def test_picks_a_round(row: str, picks: int) -> None:
    assert spec_of(composed(row)).query.picks_per_round(LABEL, TRAIN) == picks


@pytest.mark.parametrize(
    ("pattern", "key", "values"),
    [
        ("table7/tau_*", "negative_threshold", {0.01, 0.02, 0.05, 0.08, 0.1, 0.2}),
        ("table8/alpha1_*", "consistency_weight", {0.0, 0.05, 0.1, 0.2, 0.5, 1.0}),
        ("table9/alpha2_*", "negative_weight", {0.0, 0.1, 0.5, 1.0, 1.5, 2.0}),
    ],
)
def test_a_sweep_of_a_weight_differs_in_it_alone(pattern: str, key: str, values: set[float]) -> None:
    rows = [row for row in ROWS if Path(row).match(pattern)]
    assert {getattr(module(composed(row)).objective, key) for row in rows} == values
    for row in rows:
        assert differences("table1/ra", row) <= {f"objective.{key}"}


@pytest.mark.parametrize(
    ("row", "consistency", "negative", "score"),
    [
        ("rand", 0.0, 0.0, "RandomScore"),
        ("a", 0.0, 0.0, "ImpurityOnly"),
        ("b", 0.0, 0.0, "UncertaintyOnly"),
        ("c", 0.0, 0.0, "RipuScore"),
        ("d", 0.1, 0.0, "RipuScore"),
        ("e", 0.0, 1.0, "RipuScore"),
        ("f", 0.1, 1.0, "RipuScore"),
    ],
)
@pytest.mark.parametrize("task", ["gtav", "synthia"])
def test_the_ablation(task: str, row: str, consistency: float, negative: float, score: str) -> None:
    cfg = composed(f"table3/{task}_{row}")
    made = module(cfg)
    assert (made.objective.consistency_weight, made.objective.negative_weight) == (consistency, negative)
    assert type(instantiate(cfg.acquisition)).__name__ == score


@pytest.mark.parametrize("mode", ["ra", "pa"])
def test_the_k_sweep(mode: str) -> None:
    for k in (1, 2, 4, 8, 16, 32):
        query = spec_of(composed(f"fig6/{mode}_k{k}")).query
        assert (query.pixel, query.radius) == (mode == "pa", k)
        assert query.suppress_radius == (k if mode == "pa" else 2 * k)


def test_rows_that_stand_in_two_tables_are_one_run() -> None:
    assert not differences("table3/gtav_f", "table1/ra")
    assert not differences("table11/ent_pa", "table4/ent_pa")
    assert not differences("table13/source_free", "table5/synthia_ra")


def test_a_row_on_generated_data_keeps_what_it_is_about() -> None:
    cfg = compose("experiment=table4/sconf_pa", "dataset=streets", "paths.output_dir=run")
    checked_spec(cfg)
    assert (cfg.dataset.name, cfg.trainer.max_steps, cfg.mode.radius) == ("streets", 750, 8)
    assert cfg.model._target_ == "ripu.models.smp.SmpNetwork"
    assert (cfg.objective.consistency_weight, cfg.objective.negative_weight) == (0.0, 0.0)
    assert cfg.acquisition._target_ == "ripu.acquisition.SoftmaxConfidence"
