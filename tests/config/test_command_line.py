"""Command lines: what cannot be run is refused in one line and soon, and texts may hold any sign."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ripu.config.checks import checked_spec
from ripu.config.command_line import check_command_line, quote_texts
from ripu.io.errors import ConfigError
from running import call, tiny


def refused(*words: str, config_name: str = "train") -> str:
    """Return the line with which a command line is refused."""
    check = checked_spec if config_name == "train" else lambda cfg: None
    with pytest.raises(ValueError) as caught:
        check_command_line(list(words), config_name, check)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def warned(*words: str) -> list[str]:
    return check_command_line(list(words), "train", checked_spec)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["seeed=3"], ["seeed=3", "did you mean seed?"]),
        (["objective.tau=0.1"], ["objective.tau", "did you mean objective.negative_threshold?"]),
        (["radius=3"], ["did you mean mode.radius"]),
        (["trainer.max_step=3"], ["did you mean trainer.max_steps?"]),
        (["objective.xyz=1"], ["objective has consistency_weight, negative_weight, negative_threshold"]),
        (["logger.wandb.offline=false"], ["logger.wandb.offline"]),
        (["region.pixels=100"], ["there is no key region.pixels"]),
        (["dataset=gtaw"], ["dataset=gtaw is unknown; did you mean gtav? The options are acdc, "]),
        (["mode=xy"], ["mode=xy is unknown; the options are images, pa, ra"]),
        (["optimisers/sgd=1"], ["no option group optimisers/sgd"]),
        (["+foo=1"], ["nothing reads the key foo"]),
        (["++data.num_worker=1"], ["nothing reads the key data.num_worker", "did you mean data.num_workers?"]),
        (["+dataset.recipe.max_step=1"], ["did you mean dataset.recipe.max_steps?"]),
        (["+mode.extra.deep=1"], ["mode.extra.deep"]),
        (["+seed=1"], ["seed exists already; leave out the +"]),
        (["+acquisition.numeric=exact"], ["RipuScore has no argument numeric; did you mean acquisition.numerics?"]),
        (["~logger"], ["~logger removes logger"]),
        (["seed"], ["seed has no value; write KEY=VALUE"]),
        (["budget=[1,"], ["budget=[1, cannot be read"]),
        (["seed=0,1"], ["add -m", "seed=[0,1]"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_unknown_keys_and_options(words: list[str], parts: list[str]) -> None:
    line = refused(*words)
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["seed=abc"], "seed=abc is not allowed; it must be a whole number"),
        (["seed=1.0"], "seed=1.0 is not allowed"),
        (["seed=null"], "seed=null is not allowed"),
        (["resume=1"], "resume=1 is not allowed; it must be true or false"),
        (["budget=-1"], "budget=-1 is not allowed"),
        (["budget=much"], "budget=much is not allowed"),
        (["mode=pa", "budget=0.02"], "mode=pa takes whole pixels"),
        (["mode=ra", "budget=40"], "mode=ra takes a share"),
        (["mode.radius=-1"], "mode.radius=-1 is not allowed"),
        (["mode.radius=1.5"], "mode.radius=1.5 is not allowed"),
        (["objective.negative_threshold=1"], "tau"),
        (["objective.consistency_weight=true"], "objective.consistency_weight=true is not allowed"),
        (["selection_steps=5"], "selection_steps=5 is not allowed; it must be a list"),
        (["selection_steps=[300,200]"], "must increase"),
        (["selection_steps=[200,751]"], "trainer.max_steps=750"),
        (["trainer.precision=bf16"], "32-true, bf16-mixed, 16-mixed"),
        (["trainer.accelerator=cpuu"], "did you mean cpu?"),
        (["trainer.devices=0"], "trainer.devices=0 is not allowed"),
        (["trainer.devices=[0,0]"], "distinct device numbers"),
        (["trainer.devices=[0,1]", "trainer.accelerator=cpu"], "where it is the number of processes"),
        (["optimizer.poly_horizon_factor=0.5"], "would train at rate 0"),
        (["trainer.devices=-1", "trainer.accelerator=cpu"], "where it is the number of processes"),
        (["data.num_workers=100000"], "from 0 to 1024"),
        (["trainer.compile=maybe"], "trainer.compile=maybe is not allowed; it must be true or false"),
        (["protocol.boundary_detector=laplace"], "did you mean laplacian?"),
        (["protocol.supervised_average=mean"], "labelled, all"),
        (["dataset.num_classes=18"], "has 19 classes"),
        (["dataset.recipe.selection_fractions=[0.5,0.4]"], "increasing fractions"),
        (["checkpoint.keep=0"], "checkpoint.keep=0 is not allowed"),
        (["checkpoint.every_steps=0"], "checkpoint.every_steps=0"),
        (["evaluation.flip=3"], "evaluation.flip=3 is not allowed; it must be true or false"),
        (["budget=0.9", "mode.suppress_radius=8"], "only 648 fit into it at mode.suppress_radius=8"),
        (["mode=pa", "budget=40000"], "pixels of a 160 x 320 image"),
        (["paths.output_dir=${nowhere.at_all}"], "paths.output_dir"),
        (["model._target_=ripu.models.smp.SmpNetwrk", "+model.x=1"], "did you mean SmpNetwork?"),
        (["trainer.max_steps=99999999999999999999999"], "from 1 to 10**9"),
        (["seed={a:1}"], "seed={'a': 1} is not allowed; it must be a whole number"),
        (["data.target_size=[100000,100000]"], "at most 2**27 pixels"),
        (["data.source_batch=10000000"], "from 1 to 65536"),
        (["objective.negative_threshold=nan"], "objective.negative_threshold=nan is not allowed"),
        (["optimizer.learning_rate=inf"], "optimizer.learning_rate=inf is not allowed"),
        (["dataset=null"], "dataset=null chooses nothing; leave it out, or choose one of acdc"),
        (["acquisition._target_=os.system"], "acquisition._target_=os.system is not a score"),
        (["acquisition._target_=nothing.here"], "acquisition._target_=nothing.here cannot be found"),
        (["trainer.strategy=ddpp"], "did you mean ddp?"),
        (["trainer.accelerator=tpu"], "it must be one of auto, cpu, gpu, cuda, mps"),
        (["paths.output_dir=null"], "paths.output_dir=null is not allowed"),
        (["paths.data_root=null"], "paths.data_root=null is not allowed"),
        ([f"paths.output_dir={__file__}/run"], "test_command_line.py is a file; name a folder"),
        (
            ["paths.data_root=d", "paths.output_dir=d/streets/seed0/gtav/run"],
            "lies in the data set (dataset.source.root=",
        ),
        (["logger=wandb", "logger.wandb.mode=offlin"], "did you mean offline?"),
        (["dataset.static_mask=/nope.png"], "dataset.static_mask=/nope.png does not exist"),
        (
            ["data.unreadable=skipp"],
            "data.unreadable=skipp is not allowed; it must be one of stop, skip; did you mean skip?",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_wrong_values(words: list[str], part: str) -> None:
    assert part in refused(*words)


def test_a_key_that_is_given_twice_is_named() -> None:
    assert warned("seed=1", "seed=2") == ["seed is given 2 times; the last one counts"]


def test_what_an_object_refuses_is_one_line_too(tmp_path: Path) -> None:
    done = call("ripu.train", "region=rectangles", "region.height=0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == ["error: region.height=0 must be a whole number of pixels, 1 or more"]


def test_every_job_of_a_sweep_is_checked_before_the_first() -> None:
    line = refused("-m", "mode=ra,pa", "budget=0.02")
    assert line.startswith("job 1 of the sweep (mode=pa budget=0.02): budget=0.02 is not a number of pixels")
    assert "mode=pb is unknown" in refused("-m", "mode=ra,pb")
    assert "seed=-1 is not allowed" in refused("-m", "seed=0,1,-1", "--cfg", "job")
    assert warned("-m", "mode=ra,pa", "seed=0,1") == []


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["setting=source_only", "objective.negative_weight=2"], "objective.negative_weight"),
        (["setting=source_only", "acquisition=entropy"], "acquisition"),
        (["setting=source_only", "data.target_batch=4"], "data.target_batch"),
        (["setting=fully_supervised", "mode=pa"], "mode"),
        (["region=rectangles", "mode.radius=2", "mode.suppress_radius=4"], "mode.radius"),
        (["objective.negative_weight=0", "objective.negative_threshold=0.1"], "objective.negative_threshold"),
        (["protocol.boundary_only=false", "protocol.boundary_detector=laplacian"], "protocol.boundary_detector"),
        (["protocol.pixel_grid=training"], "protocol.pixel_grid"),
        (
            ["setting=source_free", "model.checkpoint=x", "objective.consistency_weight=0.3"],
            "objective.consistency_weight",
        ),
        (["dataset.recipe.source_free.max_steps=9"], "dataset.recipe.source_free.max_steps"),
        (["model=deeplabv2_r101", "model.checkpoint=x", "model.weights=null"], "model.weights"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_what_has_no_effect_is_named(words: list[str], key: str) -> None:
    assert any(line.startswith(f"{key} has no effect: ") for line in warned(*words))


def test_an_image_cap_without_a_shared_budget_is_refused() -> None:
    assert "mode.image_cap=3" in refused("mode.image_cap=3")


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=gtav", "mode=pa", "budget=40"],
        ["dataset=camvid", "setting=source_only"],
        ["logger=wandb", "logger.wandb.project=mine"],
        ["+dataset.recipe.source_sampling=class_balanced"],
        ["region=rectangles", "region.width=8"],
        ["model=smp", "model.weights=null", "model.architecture=Unet"],
        ["data.transforms=[]", "trainer.devices=[0]", "trainer.deterministic=warn"],
        ["dataset=folder", "dataset.classes={road: [1,2,3], car: [4,5,6]}", "dataset.ids={7: road, 26: car}"],
        ["--cfg", "job"],
    ],
    ids=" ".join,
)
def test_what_can_be_run_passes_without_a_warning(words: list[str]) -> None:
    assert warned(*words) == []


def test_a_yaml_file_of_the_user_is_read_as_strictly(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    mine = tmp_path / "dataset" / "mine.yaml"
    own = "defaults: [folder, _self_]\nclasses: [road, car]\nroot: /data\nhere: train\n"
    own += "source:\n  images: ${dataset.here}\n"
    words = ["--config-dir", str(tmp_path), "dataset=mine"]
    mine.write_text(own)
    assert warned(*words) == []
    mine.write_text(own + "recipe:\n  max_step: 10\n")
    assert "dataset.recipe.max_step=10: nothing reads" in refused(*words)
    mine.write_text(own + "  label: truth\n")
    assert "load_folder has no argument label; did you mean dataset.source.labels" in refused(*words)
    mine.write_text(own + "recipe:\n  max_steps: ten\n")
    assert "max_steps=ten is not allowed" in refused(*words)
    assert "is not a folder" in refused("--config-dir", str(tmp_path / "none"), "dataset=mine")


@pytest.mark.parametrize(
    ("name", "words", "part"),
    [
        ("evaluate", [], "checkpoint is not given"),
        ("evaluate", ["checkpoint=x", "batchh=3"], "did you mean batch?"),
        ("evaluate", ["checkpoint=x", "flip=7"], "flip=7 is not allowed; it must be true or false"),
        ("replay", ["run=x", "acquisition=entrop"], "did you mean entropy?"),
        ("replay", ["run=x", "mode.radius=-2"], "mode.radius=-2 is not allowed"),
        ("replay", ["run=x", "rounds=0"], "rounds=0 is not allowed"),
        ("evaluate", ["checkpoint=null"], "checkpoint=null is not allowed"),
        ("evaluate", ["checkpoint=[1,2]"], "checkpoint=[1, 2] is not allowed"),
        ("evaluate", ["checkpoint=x", "unreadable=no"], "it must be one of stop, skip"),
        ("predict", ["checkpoint=x", "input=[a,b]", "output=z"], "input=['a', 'b'] is not allowed"),
        ("replay", ["run=x", "accelerator=tpu"], "accelerator=tpu is not allowed"),
    ],
)
def test_other_commands(name: str, words: list[str], part: str) -> None:
    assert part in refused(*words, config_name=name)


def test_a_replay_gives_a_part_and_the_run_the_rest() -> None:
    words = ["run=x", "mode=pa", "acquisition=entropy", "region=rectangles", "budget=40"]
    assert check_command_line(words, "replay", lambda cfg: None) == []


@pytest.mark.parametrize("content", [b"name: [mine\n", b"\tname: mine\n"])
def test_a_yaml_that_cannot_be_read_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        check_command_line(["--config-dir", str(tmp_path), "dataset=mine"], "train", checked_spec)
    assert "\n" not in str(caught.value)


def test_a_command_line_is_refused_without_torch_and_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    done = call("ripu.train", "mode=pa", "budget=0.02", cwd=tmp_path)
    assert time.monotonic() - began < 30
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: budget=0.02 is not a number of pixels; mode=pa takes whole pixels per image (the paper: 40), mode=ra a "
        "share of the image"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_yaml_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    path = tmp_path / "dataset" / "mine.yaml"
    path.write_text("defaults: [folder, _self_]\nroot: /Stra\u00dfen\n", encoding="cp1252")
    line = refused("dataset=mine", "--config-dir", str(tmp_path))
    assert line.startswith(f"{path} is not text in UTF-8 (")
    assert line.endswith("; save it as UTF-8")


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
def test_other_words_stay_as_they_are(word: str) -> None:
    assert quote_texts([word], "train") == [word]


def test_texts_of_every_command_and_of_new_keys() -> None:
    assert quote_texts(["checkpoint=a=b", "paths.data_root=ü"], "evaluate") == [
        "checkpoint='a=b'",
        "paths.data_root='ü'",
    ]
    words = ["model.checkpoint=a=b", "dataset.source.images=c=d/*.png", "+dataset.source.list_file=e=f"]
    assert quote_texts(words, "train") == [
        "model.checkpoint='a=b'", "dataset.source.images='c=d/*.png'", "+dataset.source.list_file='e=f'"
    ]  # fmt: skip
    assert quote_texts(["--config-dir", "a=b", "seed=1"], "train") == ["seed=1", "--config-dir", "a=b"]


def test_options_may_stand_anywhere() -> None:
    words = ["seed=1", "--config-dir", "a=b", "a=b", "-m", "mode=ra,pa"]
    assert quote_texts(words, "train") == ["seed=1", "a=b", "mode=ra,pa", "--config-dir", "a=b", "-m"]
    # An option whose value may be left out would take a key behind it for its value
    assert quote_texts(["mode=pa", "--info"], "train") == ["mode=pa", "--info"]
    assert "did you mean budget" in refused("seed=1", "--config-dir", str(Path(__file__).parent), "buget=2")


def test_commas_in_a_sweep_mean_several_values() -> None:
    assert quote_texts(["-m", "paths.data_root=a=1,b=2"], "train") == ["paths.data_root=a=1,b=2", "-m"]
    assert quote_texts(["-m", "paths.data_root=a=1"], "train") == ["paths.data_root='a=1'", "-m"]


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


def test_the_command_reads_what_was_quoted(tmp_path: Path) -> None:
    done = call("ripu.train", "paths.output_dir=a=[ü]", "--cfg", "job", "--package", "paths", cwd=tmp_path)
    assert "output_dir: a=[ü]" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_run_in_a_folder_with_signs_in_its_name(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "mode=ra [ü] (1)"
    words = tiny(
        data_root, run, "selection_steps=[1]", "pretrain_steps=1", "trainer.max_steps=2", "evaluation.gallery=0"
    )
    done = call("ripu.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "results.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
