"""Reports of runs whose files were damaged or made to do harm: each file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bombs import bomb
from ripu.datasets.errors import SceneError
from ripu.report.__main__ import main
from ripu.report.gallery import picture_url
from ripu.report.page import try_page
from ripu.report.pictures import _kept_prediction
from ripu.report.rundata import RunData, RunError, read_run


def test_an_image_bomb_in_a_run_is_refused(tmp_path: Path) -> None:

    data: Any = SimpleNamespace(folder=tmp_path, run=tmp_path)
    bomb(tmp_path / "bomb.png", 12_000, 12_000)
    with pytest.raises(SceneError, match=r"bomb\.png claims"):
        picture_url(data, "bomb.png", 100)
    with pytest.raises(SceneError, match=r"bomb\.png claims"):
        RunData.picture(data, "bomb.png")


def write_npz(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def recorded(run: Path) -> Path:
    """Write the parts of a run that a page is made from; return its folder ``report``."""
    folder = run / "report"
    folder.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    gallery = {
        "class_names": ["a", "b"],
        "class_colors": [[0, 0, 0], [9, 9, 9]],
        "images": [{"index": 0, "id": "x", "height": 4, "width": 5}],
        "val_ids": ["v"],
    }
    (folder / "gallery.json").write_text(json.dumps(gallery))
    one = {"step": 3, "picks": 1, "labelled_fraction": 0.1, "class_pixels": {"a": 1, "b": 0}}
    (folder / "progress.json").write_text(json.dumps({"evaluations": [], "rounds": [one]}))
    write_npz(folder / "target-00000-round-000.npz", prediction=np.zeros((4, 5), np.uint8))
    counts = {"confusion": np.eye(2, dtype=np.int64), "bins": np.zeros((15, 3)), "images": np.zeros((1, 3))}
    write_npz(folder / "evaluation-00000003-rank0.npz", **counts, world_size=1)
    return folder


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("target-00000-round-000.npz", {"prediction": np.zeros((20_000, 20_000), np.uint8)}),
        ("target-00000-round-000.npz", {"prediction": np.zeros((4, 5), np.int64)}),
        ("target-00000-round-000.npz", {"prediction": np.array([[{}]], dtype=object)}),
        ("target-00000-round-000.npz", {"score": np.zeros((4, 5), np.uint8)}),
        ("evaluation-00000003-rank0.npz", {"confusion": np.zeros((2, 3), np.int64)}),
        ("evaluation-00000003-rank0.npz", {"bins": np.zeros((15, 2))}),
        ("evaluation-00000003-rank0.npz", {"images": np.zeros((1, 2))}),
        ("evaluation-00000003-rank0.npz", {"world_size": 10**9}),
        ("evaluation-00000003-rank0.npz", {"world_size": 2}),
    ],
)
def test_a_wrong_array_is_named(
    name: str, arrays: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path) / name

    def read() -> None:
        data = read_run(tmp_path)
        for image in data.gallery:
            data.maps(image, 0)

    read()
    assert main([str(tmp_path), "--html"]) == 0
    with np.load(path) as file:
        before = {key: file[key] for key in file.files} if name.startswith("evaluation") else {}
    write_npz(path, **(before | arrays))
    with pytest.raises(RunError, match=r"evaluation-00000003-rank[01]|target-00000-round-000") as error:
        read()
    assert "remove" in str(error.value)
    assert main([str(tmp_path), "--html"]) == 2
    assert str(error.value) in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ['[{"step": 3}]', "[3]", '{"a": 1}', '[{"step": "x", "picks": 1}]'])
def test_malformed_progress_is_an_error_but_never_stops_training(
    rounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded(tmp_path) / "progress.json").write_text(f'{{"rounds": {rounds}, "evaluations": []}}')
    try_page(tmp_path)  # training only logs the problem
    assert main([str(tmp_path), "--html"]) == 2
    assert capsys.readouterr().err.startswith("\nerror: ")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"class_names": [1], "class_colors": [[0, 0, 0]]}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 300]]}',
        '{"class_names": ["a"], "class_colors": []}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "images": [{"id": "x", "index": 0, "height": 0, "width": '
        "5}]}",
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "images": [{"id": "x"}]}',
        '{"class_names": ["a"], "class_colors": [[0, 0, 0]], "val_ids": {}}',
    ],
)
def test_a_malformed_gallery_is_named_but_never_stops_training(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded(tmp_path) / "gallery.json").write_text(text)
    try_page(tmp_path)  # training only logs the problem
    assert main([str(tmp_path), "--html"]) == 2
    assert "gallery.json" in capsys.readouterr().err


def test_an_unusable_prediction_is_left_out_of_its_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "val-00000.png"
    assert _kept_prediction(path, (4, 5)) is None
    assert not caplog.text
    Image.fromarray(np.full((4, 5), 3, np.uint8)).save(path)
    kept = _kept_prediction(path, (4, 5))
    assert kept is not None
    assert (kept == 3).all()
    assert _kept_prediction(path, (5, 4)) is None
    bomb(path, 12_000, 12_000)
    assert _kept_prediction(path, (12_000, 12_000)) is None
    path.write_bytes(b"")
    assert _kept_prediction(path, (4, 5)) is None
    assert caplog.text.count("the picture is made without it") == 3
