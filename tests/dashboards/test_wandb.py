"""W&B: the content of an offline run's log, and that no server holds up training."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image

import wandb_file
from ripu.config.spec import make_spec
from ripu.dashboards.wandb import WandbBoard, choose_mode, has_key, is_reachable
from ripu.datasets.taxonomy import CAMVID11
from ripu.labelstore import LabelStore
from ripu.run.assembly.data import make_scenes
from running import train_here

KEY = "a" * 40


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that logs to W&B offline; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        folder = tmp_path_factory.mktemp("wandb") / "run"
        train_here(data_root, folder, "logger=wandb")
        yield folder


def test_scalars_config_and_axes_of_an_offline_run(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    content = wandb_file.read(wandb_file.only(run))
    assert content.exit_code == 0
    assert content.run.run_id == (run / "wandb_id").read_text().strip()
    assert content.run.run_group == "camvid-ra-active-0.022"
    assert set(content.run.tags) == {"camvid", "ra", "active", "budget 0.022"}
    assert content.config["mode"]["name"] == "ra"
    assert content.config["trainer"]["max_steps"] == 7
    for key in ("train/source_ce", "train/target_ce", "train/consistency", "train/negative", "lr/backbone", "lr/head"):
        assert content.rows(key), key
    for key in ("train/images_per_second", "system/memory_gib"):
        assert all(row[key] > 0 for row in content.rows(key)), key
    every = [
        *results["evaluations"],
        results,
    ]  # what a table of runs shows is the last value, which is the end of the run
    assert [row["val/mIoU"] for row in content.rows("val/mIoU")] == pytest.approx([one["mIoU"] for one in every])
    steps = [*(one["step"] for one in results["evaluations"]), results["max_steps"]]
    assert [row["trainer/global_step"] for row in content.rows("val/mIoU")] == steps
    assert [row["val/iou/road"] for row in content.rows("val/iou/road")] == pytest.approx(
        [one["per_class_iou"]["road"] for one in every]
    )
    for key in ("labelled_fraction", "mIoU"):
        curve = [row[f"al/{key}"] for row in content.rows("al/mIoU")]
        assert curve == pytest.approx([*(one[key] for one in results["evaluations"]), results[key]])
    rounds = content.rows("al/picks")
    for row, one in zip(rounds, results["rounds"], strict=True):
        assert row["al/labelled_fraction"] == one["labelled_fraction"]
        assert row["al/mean_impurity"] == one["mean_impurity"]
        assert row["al/mean_uncertainty"] == one["mean_uncertainty"]
        assert {name: row[f"al/pixels/{name}"] for name in one["class_pixels"]} == one["class_pixels"]
        assert row["al/seconds"] > 0
        assert row["al/images_per_second"] > 0
    assert "al/overlap" in rounds[1]
    assert content.rows("al/over_truth/road")
    drawn = {name for row in content.history for name in row if name.startswith("al/")} - {"al/labelled_fraction"}
    assert {content.axes[name] for name in drawn} == {"al/labelled_fraction"}
    assert content.axes["*"] == "trainer/global_step"


def test_pictures_masks_tables_and_labels_of_an_offline_run(run: Path) -> None:
    content = wandb_file.read(wandb_file.only(run))
    files = wandb_file.only(run).parent / "files"
    for panel, layers in (("panel/val", {"truth", "prediction", "queried"}), ("panel/target", {"truth", "prediction"})):
        rows = content.rows(f"{panel}/filenames")
        assert len(rows) == 4  # three evaluations and the test
        for row in rows:
            (name,) = row[f"{panel}/filenames"]
            assert Image.open(files / name).size == (96, 64)
            (masks,) = row[f"{panel}/all_masks"]
            assert set(masks) >= layers
            values = {layer: np.asarray(Image.open(files / mask["path"]).convert("L")) for layer, mask in masks.items()}
            assert set(np.unique(values["truth"])) <= {*range(11), 255}
            assert values["prediction"].max() < 11
        assert set(masks) == {"truth", "prediction", "queried"}
    assert values["queried"].max() == 2  # of the second round
    for key, columns in (("round/classes", 5), ("round/images", 9), ("val/confusion_table", 3)):
        row = content.rows(f"{key}/path")[-1]
        table = json.loads((files / row[f"{key}/path"]).read_text())
        assert len(table["columns"]) == columns
        if key == "round/images":
            scores = [line[2] for line in table["data"]]
            assert len(scores) == 3
            assert scores == sorted(scores, reverse=True)
            (whole,) = [
                entry
                for artifact in content.artifacts
                for entry in artifact.manifest.contents
                if entry.path == "round/images.table.json"
            ][-1:]
            pictures = [line[-1] for line in json.loads(Path(whole.local_path).read_text())["data"]]
            assert [set(picture["masks"]) for picture in pictures] == [{"queried"}] * 3
        elif key == "round/classes":
            assert [line[0] for line in table["data"]] == list(CAMVID11.class_names)
            assert sum(line[3] for line in table["data"]) == pytest.approx(100.0)
            assert sum(line[4] for line in table["data"]) == pytest.approx(100.0)
        else:
            labelled = sum(int((label != 255).sum()) for label in truths(run))
            assert sum(line[2] for line in table["data"]) == labelled
    labels = [one for one in content.artifacts if one.type == "labels"]
    assert [sorted(one.aliases) for one in labels] == [["latest", "round-1"], ["latest", "round-2"]]
    assert len({one.name for one in labels}) == 1
    stored = {path.name for path in (run / "labels").iterdir()} - {"lock"}
    assert {entry.path for entry in labels[-1].manifest.contents} == stored
    assert all(Path(entry.local_path).is_relative_to(run) for one in labels for entry in one.manifest.contents)
    assert not [one for one in content.artifacts if one.type == "model"]
    assert len(LabelStore.open(run / "labels").rounds) == 2


def test_a_round_before_the_first_step_is_shown(
    run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("setting=source_free", "selection_steps=[0,3]", f"model.checkpoint={run / 'checkpoints' / 'final.ckpt'}")
    results = train_here(data_root, tmp_path / "run", "logger=wandb", *words)
    content = wandb_file.read(wandb_file.only(tmp_path / "run"))
    curve = [row["al/labelled_fraction"] for row in content.rows("al/mIoU")]
    assert curve == pytest.approx([*(one["labelled_fraction"] for one in results["evaluations"]), curve[-1]])
    assert curve[0] == 0.0 < curve[1]
    assert [row["trainer/global_step"] for row in content.rows("round/classes/path")] == [0, 3]
    labels = [one for one in content.artifacts if one.type == "labels"]
    assert [sorted(one.aliases) for one in labels] == [["latest", "round-1"], ["latest", "round-2"]]


def truths(run: Path) -> Iterator[Any]:
    """The validation labels of a run."""
    val = make_scenes(make_spec(yaml.safe_load((run / "config.yaml").read_text()))).val  # type: ignore[arg-type]
    return (val.read_label(index) for index in range(len(val)))


def test_a_resumed_run_continues_the_same_wandb_run(
    run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    train_here(data_root, tmp_path / "run", "resume=true", "logger=wandb", "logger.wandb.keep_checkpoints=true")
    content = wandb_file.read(wandb_file.only(tmp_path / "run"))
    assert content.run.run_id == (run / "wandb_id").read_text().strip()
    assert [one.name for one in content.artifacts if one.type == "model"] == [f"network-{content.run.run_id}"]
    assert wandb.run is None
    assert "WANDB_DATA_DIR" not in os.environ


_BUCKET = {"id": "1", "name": "a", "displayName": "a", "sweepName": None, "historyLineCount": 0}
_PROJECT = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}
_ANSWERS = {
    "RunResumeStatus": {"model": {**_PROJECT, "bucket": None}},
    "UpsertBucket": {"upsertBucket": {"bucket": {**_BUCKET, "project": _PROJECT}, "inserted": True}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "Viewer": {"viewer": {"id": "1", "entity": "e", "username": "e", "flags": "{}", "teams": {"edges": []}}},
    "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": None}},
}
"""What a server has to say to let a run begin."""


class _Server:
    """A server on this machine that answers GET, and POST with an error or not at all; ``answers``: by operation."""

    def __init__(self, *, hangs: bool, answers: Mapping[str, Any] = MappingProxyType({})) -> None:
        released = self.released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(404)
                self.end_headers()

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                for operation, data in answers.items():
                    if operation.encode() in asked:
                        text = json.dumps({"data": data}).encode()
                        self.send_response(200)
                        self.send_header("Content-Type", "application/json")
                        self.send_header("Content-Length", str(len(text)))
                        self.end_headers()
                        self.wfile.write(text)
                        return
                if hangs:
                    released.wait(60)
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.url

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


def test_the_mode_is_decided_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and says nothing
        nobody = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert choose_mode("auto", nobody)[0] == "offline"  # without a key nobody is asked
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        began = time.monotonic()
        for asked in ("auto", "online"):
            mode, reason = choose_mode(asked, nobody)
            assert (mode, reason) == ("offline", f"{nobody} does not answer")
        assert not is_reachable("http://no-such-host.invalid", 1.0)
        assert time.monotonic() - began < 10
    with _Server(hangs=False) as url:
        assert choose_mode("auto", url) == ("online", "")
        assert choose_mode("offline", url) == ("offline", "")
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert choose_mode("auto", url) == ("disabled", "")
    with pytest.raises(ValueError, match=r"logger.wandb.mode=on is not allowed"):
        choose_mode("on", url)


def test_the_key_is_found_in_the_environment_or_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not has_key("https://api.example.org")
    (tmp_path / "netrc").write_text(f"machine api.example.org\n  login user\n  password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert has_key("https://api.example.org")
    assert not has_key("https://api.other.org")


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "refuses"])
def test_an_unhelpful_server_leaves_an_offline_run(
    hangs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with _Server(hangs=hangs) as url:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", url)
        board = WandbBoard(str(tmp_path), "project", "name", "group", start_seconds=2)
        began = time.monotonic()
        board.log_metrics({"train/loss": 1.5}, step=3)
        board.finish()
        assert time.monotonic() - began < 40
    assert "W&B offline: " in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in caplog.text
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert wandb_file.read(log).rows("train/loss")[0]["train/loss"] == 1.5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["is mute", "is gone"])
def test_a_server_that_goes_away_does_not_hold_up_training(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()  # which else remembers another key
    with ExitStack() as stack:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", stack.enter_context(_Server(hangs=True, answers=_ANSWERS)))
        board = WandbBoard(str(tmp_path), "project", "name", "group", finish_seconds=2)
        board.log_metrics({"train/loss": 1.5}, step=3)
        (log,) = tmp_path.glob("wandb/run-*/run-*.wandb")  # it is online
        if how == "is gone":
            stack.close()
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "store.json").write_text("{}")
        began = time.monotonic()
        for number in range(3):  # each table and each label store used to wait for an answer
            board.show_confusion("val/confusion", np.eye(2, dtype=np.int64), ("road", "car"), number)
            board.keep_labels(tmp_path / "labels", {"round": number + 1}, number)
        board.log_metrics({"train/loss": 0.5}, step=4)
        assert time.monotonic() - began < 20
        board.finish()
        assert time.monotonic() - began < 60
    assert (
        f"W&B: not all was uploaded within 2 s; upload with: wandb sync {tmp_path}/wandb/run-"
        in capsys.readouterr().out
    )
    assert wandb.run is None
    assert log.exists()


def test_an_error_of_wandb_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    board = WandbBoard(str(tmp_path), "project", "name", "group")
    board.log_metrics({"train/loss": 1.5}, step=3)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nobody is there\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(board.experiment, "log", fail)
        board.log_metrics({"train/loss": 1.0}, step=4)
        board.show_confusion("val/confusion", np.eye(2, dtype=np.int64), ("road", "car"), 4)
    board.finish()
    assert caplog.text.count(f"W&B did not accept everything (nobody is there); the run continues, see {tmp_path}") == 1
