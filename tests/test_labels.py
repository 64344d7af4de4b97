"""The command line of the label store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ripu.datasets.taxonomy import CAMVID11, CITYSCAPES16, CITYSCAPES19
from ripu.labels import main
from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Regions, TargetImage

A, B = "aachen/000000", "../../x"


def make(run: Path, class_names: tuple[str, ...] = CITYSCAPES19.class_names, num_rounds: int = 2) -> LabelStore:
    """Two 5 x 8 images; round 0 asks three pixels of A, round 1 a region of A and a pixel of B."""
    images = [TargetImage(A, 5, 8), TargetImage(B, 5, 8)]
    with LabelStore.create(run / "labels", images, class_names, planned_picks=4) as store:
        records = [
            ImagePicks(A, np.array([[0, 0], [0, 1], [0, 2]])),
            ImageAnswers(A, np.arange(3), np.array([0, 10, 255])),
        ]
        store.add_round(store.begin_round(0, 10, 3), records)
        if num_rounds == 2:
            region = Regions.from_sets([[8, 9, 16]])
            records = [
                ImagePicks(A, np.array([[1, 0]]), regions=region),
                ImageAnswers(A, np.array([8, 9]), np.array([0, 2])),  # 16 is not answered yet
                ImagePicks(B, np.array([[4, 7]])),
                ImageAnswers(B, np.array([39]), np.array([2])),
            ]
            store.add_round(store.begin_round(1, 20, 1), records)
    return store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make(tmp_path / "run")
    return tmp_path / "run"


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", run) == 0
    assert call("verify", run / "labels") == 0
    assert "intact; 2 images, 2 rounds, 2 batches of answers" in capsys.readouterr().out
    path = next((run / "labels").glob("round-001-*"))
    path.write_bytes(path.read_bytes()[:-1])
    assert call("verify", run) == 1
    out = capsys.readouterr().out
    assert path.name in out
    assert "1 faults" in out
    assert call("stats", run) == 2
    assert path.name in capsys.readouterr().err


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("verify", "stats", "undo"):
        assert call(command, tmp_path) == 2
        assert "no label store here" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_stats_counts_picks_clicks_and_pixels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("stats", run, "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    total = stats["total"]
    assert (stats["num_images"], stats["num_pixels"]) == (2, 80)
    assert (total["picks"], total["clicks"]) == (5, 6)  # three pixels, a region of two classes, a pixel
    assert (total["asked_pixels"], total["answered_pixels"], total["missing_pixels"]) == (7, 6, 1)
    assert total["void_pixels"] == 1
    assert {name: n for name, n in total["class_pixels"].items() if n} == {"road": 2, "sky": 1, "building": 2}
    assert [(r["index"], r["step"], r["budget"], r["picks"], r["clicks"]) for r in stats["rounds"]] == [
        (0, 10, 3, 3, 3),
        (1, 20, 1, 2, 3),
    ]
    assert (total["answered_picks"], total["void_picks"], total["void_clicks"]) == (4, 1, 1)  # the region waits for one
    assert {name: n for name, n in total["class_clicks"].items() if n} == {"road": 2, "sky": 1, "building": 2}
    assert [one["left_picks"] for one in stats["rounds"]] == [None, None]  # regions have sizes of their own
    assert stats["left_pixels"] is None
    assert stats["images"][B]["picks"] == 1
    for part in (total, *stats["rounds"], *stats["images"].values()):
        assert part["asked_pixels"] == part["answered_pixels"] + part["missing_pixels"]
        assert part["answered_pixels"] == part["void_pixels"] + sum(part["class_pixels"].values())
        assert part["clicks"] == part["void_clicks"] + sum(part["class_clicks"].values())
    assert (stats["planned_picks"], stats["left_picks"], stats["unasked_answers"]) == (8, 3, 0)
    assert call("stats", run, "--images") == 0
    out = capsys.readouterr().out
    assert "planned 8 picks, spent 5, left 3" in out
    assert B in out
    assert call("stats", run, "--rounds", "1", "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["total"]["picks"] == 3
    assert stats["unasked_answers"] == 3
    assert (stats["rounds"][0]["left_picks"], stats["left_picks"], stats["left_pixels"]) == (2 * 3 - 3, 5, 5)
    assert [one["left_picks"] for one in stats["images"].values()] == [4 - 3, 4]
    assert call("stats", run, "--rounds", "3") == 2


def test_diff(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "other", num_rounds=1)
    assert call("diff", run, run, "--json") == 0
    same = json.loads(capsys.readouterr().out)
    assert [r["picks"]["iou"] for r in same["rounds"]] == [1, 1]
    assert same["classes"]["road"] == {"first": 2, "second": 2, "both": 2, "iou": 1}
    assert same["classes"]["car"]["iou"] is None
    assert call("diff", run, tmp_path / "other", "--json") == 0
    diff = json.loads(capsys.readouterr().out)
    assert len(diff["rounds"]) == 1
    assert diff["classes"]["road"] == {"first": 2, "second": 1, "both": 1, "iou": 0.5}
    assert diff["conflicts"] == 0
    assert call("diff", run, tmp_path / "other") == 0
    assert "2 images in both, 0 only in A, 0 only in B" in capsys.readouterr().out
    make(tmp_path / "camvid", CAMVID11.class_names)
    assert call("diff", run, tmp_path / "camvid") == 2


def test_export_stays_inside_its_folder(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "png"
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out.mkdir(parents=True)
    (out / "000000_aachen_000000.png").symlink_to(victim)
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    assert call("export", run, out, "--colour", "--ids", "label") == 0
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} == before
    assert victim.read_text() == "mine"
    names = json.loads((out / "images.json").read_text())
    assert names == {"000000_aachen_000000.png": A, "000001_.._.._x.png": B}
    label = np.full(40, 255)
    label[[0, 1, 2, 8, 9]] = [7, 23, 0, 7, 11]
    np.testing.assert_array_equal(np.array(Image.open(out / "000000_aachen_000000.png")).ravel(), label)
    assert np.array(Image.open(out / "000001_.._.._x_colour.png"))[4, 7].tolist() == [70, 70, 70]
    assert call("export", run, tmp_path / "train", "--rounds", "1") == 0
    label = np.full(40, 255)
    label[[0, 1]] = [0, 10]
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "train" / "000000_aachen_000000.png")).ravel(), label)


def test_export_chooses_the_class_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "two", CITYSCAPES16.class_names)
    assert call("export", tmp_path / "two", tmp_path / "a", "--colour") == 0
    assert call("export", tmp_path / "two", tmp_path / "b", "--ids", "label") == 2
    assert "choose with --taxonomy" in capsys.readouterr().err
    assert call("export", tmp_path / "two", tmp_path / "b", "--ids", "label", "--taxonomy", CITYSCAPES16.name) == 0
    make(tmp_path / "own", tuple(f"thing {i}" for i in range(11)))
    assert call("export", tmp_path / "own", tmp_path / "c") == 0
    assert call("export", tmp_path / "own", tmp_path / "c", "--colour") == 2
    assert "train ids need no table" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert call("export", tmp_path / "own", tmp_path / "file") == 2


OWN = {
    "name": "mine",
    "taxonomy": {"_target_": "ripu.datasets.folder.make_taxonomy"},
    "target": {
        "_target_": "ripu.datasets.folder.load_folder",
        "classes": {"road": [200, 0, 0], "car": [0, 200, 0], "tree": [0, 0, 200]},
        "ids": {7: "road", 8: "road", 26: "car", 0: "tree"},
        "ignore_ids": [255, 3],
        "color_map": None,
    },
}


def describe(run: Path, **target: Any) -> None:
    """The part of a run's config.yaml that says what its labels are."""
    dataset = {**OWN, "target": {**OWN["target"], **target}}  # type: ignore[dict-item]
    (run / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset}, sort_keys=False))


def test_export_of_ones_own_data_has_their_colours_and_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [TargetImage(A, 2, 3)]
    with LabelStore.create(tmp_path / "run" / "labels", images, ("road", "car", "tree"), planned_picks=4) as store:
        answers = ImageAnswers(A, np.arange(4), np.array([0, 1, 2, 255]))
        asked = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
        store.add_round(store.begin_round(0, 10, 4), [ImagePicks(A, asked), answers])

    def exported(out: str, *words: str) -> tuple[list[int], list[list[int]]]:
        assert call("export", tmp_path / "run", tmp_path / out, "--colour", *words) == 0
        stem = tmp_path / out / "000000_aachen_000000"
        with Image.open(f"{stem}.png") as ids, Image.open(f"{stem}_colour.png") as colors:
            return np.array(ids).ravel().tolist(), np.array(colors).reshape(-1, 3).tolist()

    describe(tmp_path / "run")
    painted = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert exported("train") == ([0, 1, 2, 255, 255, 255], painted)
    assert exported("label", "--ids", "label") == ([7, 26, 0, 3, 255, 255], painted)  # 0 is a class here, 3 is void
    describe(tmp_path / "run", ignore_ids=[255])
    assert exported("one", "--ids", "label", "--taxonomy", "mine")[0] == [7, 26, 0, 255, 255, 255]
    describe(tmp_path / "run", ids=None, ignore_ids=None)
    assert exported("plain", "--ids", "label")[0] == [0, 1, 2, 3, 255, 255]
    describe(tmp_path / "run", color_map="classes")
    assert exported("colours")[1] == painted
    assert call("export", tmp_path / "run", tmp_path / "x", "--ids", "label") == 2
    assert "are colours (dataset.color_map) and have no ids" in capsys.readouterr().err
    for text in ("{", "dataset: 3", "dataset: {taxonomy: {_target_: os.system}, target: {classes: echo}, name: x}"):
        (tmp_path / "run" / "config.yaml").write_text(text)
        assert call("export", tmp_path / "run", tmp_path / "x", "--colour") == 2
        assert "train ids need no table" in capsys.readouterr().err


def test_export_takes_the_table_of_the_run(tmp_path: Path) -> None:
    make(tmp_path / "run", CITYSCAPES16.class_names)
    target = {"taxonomy": "cityscapes16"}
    config = {"dataset": {"name": "synthia", "taxonomy": "cityscapes16", "target": target}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert call("export", tmp_path / "run", tmp_path / "out", "--ids", "label") == 0
    ids = np.array(Image.open(tmp_path / "out" / "000000_aachen_000000.png")).ravel()
    assert ids[[0, 2]].tolist() == [7, 0]  # road and void of Cityscapes


def test_void_of_camvid_is_not_its_sky(tmp_path: Path) -> None:
    make(tmp_path / "run", CAMVID11.class_names)
    assert call("export", tmp_path / "run", tmp_path / "out", "--ids", "label") == 0
    ids = np.array(Image.open(tmp_path / "out" / "000000_aachen_000000.png")).ravel()
    assert ids[[0, 1, 2, 3]].tolist() == [0, 10, 11, 255]


def test_undo(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("undo", run) == 0
    assert "round 1 (step 20) is undone; 1 rounds" in capsys.readouterr().out
    assert LabelStore.open(run / "labels").num_rounds == 1
    assert call("undo", run) == 0
    assert call("undo", run) == 2
    assert "nothing to undo" in capsys.readouterr().err
    assert call("verify", run) == 0
    with LabelStore.open(run / "labels", write=True):
        assert call("undo", run) == 2
    assert "holds the lock already" in capsys.readouterr().err


def test_the_real_command_needs_no_torch(run: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from ripu.labels import main; status = main(sys.argv[1:]); "
        "assert not {'hydra', 'pytorch_lightning'} & set(sys.modules); sys.exit(status)"
    )
    own = run.with_name("own")
    LabelStore.create(own / "labels", [TargetImage(A, 5, 8)], ("road", "car", "tree")).close()
    describe(own)
    for arguments in (
        ["verify", run], ["stats", run],
        ["export", run, run / "out", "--colour"], ["export", own, own / "out", "--colour"],
    ):  # fmt: skip
        subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-m", "ripu.labels", "--help"], check=True, capture_output=True, text=True)
    assert "verify" in done.stdout
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ripu.labels", "--help"], capture_output=True, text=True
    )
    assert "numpy" not in done.stderr  # what --help does not need is not imported
