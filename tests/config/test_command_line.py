"""Texts that Hydra's grammar refuses are accepted as they are; every other word is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ripu.config.command_line import check_command_line, quote_texts
from running import call, tiny

TEXTS = [
    "/x/mode=ra", "a b=c", "[old] run/x", "{x}", "straße", "数据/a", "it's=here", "a(b)", "back\\slash=", "end=\\",
    "a#b@c!", 'say "a=b"', "x=y,z", "a=${mode.name}",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_path_may_hold_any_sign(text: str) -> None:
    (word,) = quote_texts([f"paths.output_dir={text}"], "train")
    assert OverridesParser.create().parse_override(word).value() == text
    assert check_command_line([word], "train", lambda cfg: None) == []


@pytest.mark.parametrize(
    "word",
    [
        "paths.output_dir=/x/y z", "seed=0", "seed=a=b", "budget=[1,", "data.transforms=[{a:", "paths.output_dir='a=b'",
        "paths.output_dir='a=b", "dataset.classes={road: [1", "dataset=gtav", "data.target_size=[64=", "resume",
        "protocol.pixel_grid=a=b", "-m",
    ],
)  # fmt: skip
def test_other_words_stay_what_they_are(word: str) -> None:
    assert quote_texts([word], "train") == [word]


def test_texts_of_every_command_and_of_ones_own_keys() -> None:
    assert quote_texts(["checkpoint=a=b", "paths.data_root=ü"], "evaluate") == [
        "checkpoint='a=b'",
        "paths.data_root='ü'",
    ]
    words = ["model.checkpoint=a=b", "dataset.source.images=c=d/*.png", "+dataset.source.list_file=e=f"]
    assert quote_texts(words, "train") == [
        "model.checkpoint='a=b'", "dataset.source.images='c=d/*.png'", "+dataset.source.list_file='e=f'"
    ]  # fmt: skip
    assert quote_texts(["--config-dir", "a=b", "seed=1"], "train") == ["--config-dir", "a=b", "seed=1"]


def test_commas_in_a_sweep_mean_several_values() -> None:
    assert quote_texts(["-m", "paths.data_root=a=1,b=2"], "train") == ["-m", "paths.data_root=a=1,b=2"]
    assert quote_texts(["-m", "paths.data_root=a=1"], "train") == ["-m", "paths.data_root='a=1'"]


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "replay", "doctor"])
def test_help_comes_without_torch(name: str, tmp_path: Path) -> None:
    program = (
        f"import runpy, sys\nsys.argv = ['ripu.{name}', '--help']\n"
        f"try:\n    runpy.run_module('ripu.{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'pytorch_lightning', 'albumentations', 'matplotlib'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "python -m" in done.stdout


def test_a_run_in_a_folder_with_signs_in_its_name(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "mode=ra [ü] (1)"
    words = tiny(
        data_root, run, "selection_steps=[1]", "pretrain_steps=1", "trainer.max_steps=2", "evaluation.gallery=0"
    )
    done = call("ripu.train", *[word for word in words if word != "trainer.max_steps=7"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "results.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
