"""The table of keys and ``conf/`` describe the same keys, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripu.config import keys, validate
from ripu.config.key_messages import without_effect
from ripu.config.key_properties import GIVEN, Unused

COMMANDS = sorted(path.stem for path in Path(validate.config_dir()).glob("*.yaml"))
LEAVES = {key: types for name in COMMANDS for key, types in validate.known_keys(name).items()}
GROUPS = {leaf[:end] for leaf in LEAVES for end in range(len(leaf)) if leaf[end] == "."}


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_key_has_one_entry(leaf: str) -> None:
    entry = keys.entry_of(leaf)
    assert entry is not None
    exact = [one for one in keys.TABLE if one == leaf]
    wide = [one for one in keys.TABLE if one.endswith(".*") and f"{leaf}.".startswith(one[:-1])]
    assert [entry] == (exact or [max(wide, key=len)])


@pytest.mark.parametrize("entry", keys.TABLE)
def test_every_entry_stands_for_a_key(entry: str) -> None:
    if entry.endswith(".*"):
        assert [leaf for leaf in LEAVES if keys.entry_of(leaf) == entry]
    else:
        assert entry in LEAVES or entry in GROUPS


@pytest.mark.parametrize("entry", keys.TABLE)
def test_conditions_name_keys(entry: str) -> None:
    for unused in keys.TABLE[entry].unused:
        assert unused.when.keys() <= LEAVES.keys()
        lines = without_effect({**dict.fromkeys(LEAVES), **_first(unused)}.get, [entry.removesuffix(".*")])
        assert len(lines) == 1
        assert lines[0].startswith(f"{entry.removesuffix('.*')} has no effect: ")
        assert "{" not in lines[0]


def _first(unused: Unused) -> dict[str, object]:
    """Return values with which a condition holds."""
    return {
        key: "x" if wanted is GIVEN else wanted[0] if isinstance(wanted, tuple) else wanted
        for key, wanted in unused.when.items()
    }


def test_what_changes_results_may_not_change_on_resume() -> None:
    fixed = ("seed", "budget", "trainer.max_steps", "trainer.accumulate", "mode.radius", "data.source_batch", "model.x")
    free = (
        "resume",
        "paths.output_dir",
        "logger.wandb.mode",
        "trainer.precision",
        "evaluation.flip",
        "dataset.val.root",
    )
    assert not [key for key in fixed if keys.key_of(key).may_change]
    assert [key for key in free if keys.key_of(key).may_change] == list(free)


def test_what_rounds_ask_has_no_effect_before_them() -> None:
    asking = ("acquisition.radius", "budget", "mode.radius", "region._target_", "selection_steps", "logger.csv")
    training = ("seed", "model.encoder", "optimizer.momentum", "trainer.max_steps", "dataset.source.root", "unheard.of")
    assert not [key for key in asking if keys.key_of(key).before_rounds]
    assert [key for key in training if keys.key_of(key).before_rounds] == list(training)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("model", "network"), ("model.extra", ""), ("acquisition", "score"),
        ("acquisition.score.score", "score"), ("first_round.score", "score"),
        ("objective", "objective"), ("optimizer", "optimizer"), ("optimizer.extra", ""), ("region", "shape"),
        ("dataset.source", "loader"), ("dataset.taxonomy", "class table"), ("dataset.recipe.transforms.0", "any"),
        ("logger.wandb", "any"), ("setting", ""), ("", ""),
    ],
)  # fmt: skip
def test_kinds_of_objects(key: str, kind: str) -> None:
    assert keys.target_of(key) == kind


def test_words_of_the_user() -> None:
    assert keys.is_own_word("dataset.classes.road")
    assert keys.is_own_word("dataset.recipe.flip")
    assert not keys.is_own_word("dataset.class")
