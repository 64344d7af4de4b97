"""Printed commands: the shell and Hydra read back the very words."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ripu.io.console import argument, command_line, override

FOLDERS = [
    "outputs/run-1",
    "/data/mode=ra",
    "multirun/mode=ra,seed=1",
    "my run",
    "runs[1]{x}(y)",
    "Übung/straße",
    "it's",
    'say "so"',
    "back\\slash",
    "ends with\\",
    "\\'",
    "null",
    "1e5",
    "007",
    "$HOME",
    "${seed}",
    "a:b",
    "~/runs",
    "tab\tbed",
    "semi;colon & more | <x> `y` #z !",
]


def read_back(word: str) -> object:
    """The value that Hydra puts into a configuration."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(word)
    value = parsed.value()
    text = value.text if hasattr(value, "text") else value
    return OmegaConf.create({"key": text, "seed": 0}).key


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_survives_shell_and_hydra(folder: str) -> None:
    assert read_back(override("paths.output_dir", folder)) == folder
    words = shlex.split(command_line("train", [override("paths.output_dir", folder), "resume=true"]))
    assert words[:3] == ["python", "-m", "ripu.train"]
    assert read_back(words[3]) == folder
    assert shlex.split(argument("start.run", folder)) == [override("start.run", folder)]


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_text_survives(text: str) -> None:
    if text != "???":  # which means a missing value to OmegaConf, however it is written
        assert read_back(shlex.split(argument("key", text))[0]) == text
