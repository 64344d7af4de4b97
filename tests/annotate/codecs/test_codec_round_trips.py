"""A round trip through each format keeps every answer; an import takes answers to queried pixels only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exchange import NASTY, REGIONS, Run
from ripu.annotate.codecs import FORMATS
from ripu.annotate.codecs.crops import window_of
from ripu.annotate.errors import AnnotationError
from ripu.annotate.import_report import ImportReport

ALL = sorted(FORMATS)


@pytest.mark.parametrize("regions", REGIONS)
@pytest.mark.parametrize("name", ALL)
def test_a_round_trip_brings_back_every_answer(tmp_path: Path, name: str, regions: str) -> None:
    run = Run(tmp_path / "labels", regions, NASTY)
    for index in range(2):
        out = tmp_path / f"round {index}"
        assert run.export(name, out, index) == len(run.questions_of(index))
        for _ in range(2):
            found, report = run.read(name, out)
            assert found == run.expected(index)
            assert report == ImportReport()


@pytest.mark.parametrize("name", ALL)
def test_an_export_without_answers_brings_none(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out", final=lambda question: None)
    found, report = run.read(name, tmp_path / "out")
    assert found == {}
    assert report == ImportReport()


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_written_over_the_work_of_people(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out")
    with pytest.raises(AnnotationError, match="not an empty folder; name another"):
        run.export(name, tmp_path / "out")


@pytest.mark.parametrize("name", ALL)
def test_an_export_that_fails_leaves_its_folder_free(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def read(number: int) -> np.ndarray:
        if number:
            raise AnnotationError("the image cannot be read")
        return Run.read_image(run, number)

    with monkeypatch.context() as patch:
        patch.setattr(run, "read_image", read)
        with pytest.raises(AnnotationError, match="cannot be read"):
            run.export(name, tmp_path / "out")
    assert run.export(name, tmp_path / "out")


@pytest.mark.parametrize("name", ALL)
def test_every_file_lies_in_the_folder(run: Run, tmp_path: Path, name: str) -> None:
    run.export(name, tmp_path / "out" / "deep")
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "labels" not in path.parts[:-1]]
    assert all((tmp_path / "out" / "deep") in path.parents for path in outside if "deep" in path.parts)
    assert {path.name for path in tmp_path.iterdir()} == {"labels", "out"}
    assert all(path.name.isascii() for path in (tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_is_named(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match=r"nowhere.*does not exist; check the path"):
        run.read(name, tmp_path / "nowhere")


def test_the_picture_keeps_the_asked_pixels(run: Run, tmp_path: Path) -> None:
    run.export("bundle", tmp_path / "out")
    for number, image in enumerate(run.images[:-1]):
        for question in run.questions_of(1).of_image(number):
            window = window_of(question, image)
            picture = np.asarray(Image.open(tmp_path / "out" / "crops" / f"{question.qid}.png"))
            assert picture.shape == (*window.picture_size, 3)
            for row, column in question.pixels.tolist():
                top, left = (row - window.top) * window.scale, (column - window.left) * window.scale
                block = picture[top : top + window.scale, left : left + window.scale]
                assert (block == run.read_image(number)[row, column]).all()
            assert (picture == 255).all(axis=-1).any()  # the line around them
