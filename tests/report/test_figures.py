"""The paper's figures for a run: drawn from what it recorded, and left out with a reason where that is not enough."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ripu.inference import palette
from ripu.report import figures
from ripu.report.__main__ import main, open_network
from ripu.report.figures import queried_labels, queried_picture, write_figures
from ripu.report.rundata import read_run
from ripu.run import restore
from running import train_here

NAMES = ("fig3_predictions", "fig4_queried", "fig5_classes", "fig7_edges", "fig8_features")


def test_every_figure_is_drawn_as_png_and_pdf(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_QUERIED", 20)
    monkeypatch.setattr(figures, "MOST_OTHERS", 40)
    names = NAMES if find_spec("sklearn") else NAMES[:-1]
    lines = write_figures(run, tmp_path, open_network)
    for name in names:
        assert str(tmp_path / f"{name}.pdf") in lines
        assert (tmp_path / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
        with Image.open(tmp_path / f"{name}.png") as file:
            assert min(file.size) > 100
            assert len(set(np.asarray(file.convert("L")).reshape(-1).tolist())) > 20


@pytest.mark.slow
def test_the_same_run_gives_the_same_files(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    for part in ("one", "other"):
        lines = write_figures(run, tmp_path / part, open_network)
        assert "fig8_features is left out: scikit-learn is not installed; pip install 'ripu[figures]'" in lines
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_queries_have_the_colour_of_their_round_or_class(run: Path) -> None:
    data = read_run(run)
    assert data.store is not None
    image = data.gallery[0]
    picture = queried_picture(data, image)
    rounds = data.store.revealed_round(image.image_id)
    for number in range(2):
        assert (picture[rounds == number] == palette.round_color(number)).all()
    classes = queried_picture(data, image, by_class=True)
    label = data.store.revealed_label(image.image_id)
    assert (classes[label == 3] == data.class_colors[3]).all()
    rest = classes[rounds == 255].astype(int)  # pale grey, on which dark classes can be told
    assert (rest == rest[:, :1]).all()
    assert rest.min() >= 165


def test_features_are_what_the_logits_are_linear_in(run: Path) -> None:
    _, module = restore.restore(run / "checkpoints" / "final.ckpt")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    features = figures.pixel_features(module, pixels, (32, 48))
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    module.eval()
    with torch.no_grad():
        logits = module.network.head(torch.from_numpy(features)[None])
        assert torch.allclose(logits, module(image), atol=1e-5)


def test_truth_and_queries_stay_together_at_another_size(run: Path) -> None:
    data = read_run(run)
    assert data.store is not None
    image = data.gallery[1]
    asked, truth = queried_labels(data, image, (image.height, image.width))
    np.testing.assert_array_equal(asked, data.store.asked_mask(image.image_id))
    label = data.store.revealed_label(image.image_id)
    np.testing.assert_array_equal(truth[label != 255], label[label != 255])
    rows, columns = (np.arange(size) * small // size for size, small in zip(label.shape, (9, 12), strict=True))
    cells = rows[:, None] * 12 + columns
    asked, truth = queried_labels(data, image, (9, 12))
    whole = data.picture(f"target-{image.index:05d}-truth.png")
    assert whole is not None
    for cell, (is_asked, one) in enumerate(zip(asked.ravel(), truth.ravel(), strict=True)):
        answered = {*label[(cells == cell) & data.store.asked_mask(image.image_id)].tolist()}
        assert bool(answered) == is_asked
        if answered:
            assert one in ((answered - {255}) or {255})
        else:
            row, column = divmod(cell, 12)
            middle = (2 * row + 1) * whole.shape[0] // 18, (2 * column + 1) * whole.shape[1] // 24
            assert one == whole[middle]


def test_a_figure_that_cannot_be_drawn_is_left_out_with_the_reason(run: Path, data_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "older"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "report")
    lines = write_figures(copy, tmp_path / "out", open_network)
    assert next(line for line in lines if "fig3" in line).endswith(
        "train with evaluation.gallery=12 (the default) or more"
    )
    assert (tmp_path / "out" / "fig5_classes.png").exists()
    train_here(data_root, tmp_path / "source", "setting=source_only", "evaluation.gallery=2")
    lines = write_figures(tmp_path / "source", tmp_path / "out2", open_network)
    assert (tmp_path / "out2" / "fig3_predictions.png").exists()
    drawn = sum(not line.partition(" is left out")[1] for line in lines)
    assert sum("queried nothing" in line or "scikit-learn" in line for line in lines) == len(lines) - drawn
    assert any("queried nothing" in line for line in lines)


@pytest.mark.slow
def test_several_runs_stand_side_by_side(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "other"):
        shutil.copytree(run, tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "checkpoints" / "final.ckpt").unlink()
    assert main([str(tmp_path / "runs"), "--figures", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for name in ("fig3_predictions", "fig4_queried"):
        assert str(tmp_path / "out" / f"{name}.pdf") in printed
        assert (tmp_path / "out" / "one" / f"{name}.png").exists()
    assert "final.ckpt does not exist" in printed or "scikit-learn is not installed" in printed
