"""Growth with the number of images: the files that are written, and every quantity of the tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

import size


@pytest.mark.parametrize(("height", "width"), [(64, 128), (100, 130), (40, 300)])
def test_files_have_the_size_that_is_asked_for(height: int, width: int, tmp_path: Path) -> None:
    size.write_data(tmp_path, targets=3, sources=9, height=height, width=width)
    found = {path.relative_to(tmp_path).parts[0]: 0 for path in tmp_path.rglob("*.png")}
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (width, height)
        found[path.relative_to(tmp_path).parts[0]] += 1
    assert (found["gtav"], found["cityscapes"]) == (2 * 9, 2 * (3 + size.VAL_IMAGES))


def test_the_parts_that_hold_every_entry_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, float] = {}
    for part in size.PARTS.values():
        found |= part(20, 2)
    assert found["index of a file, MB"] == 20 * 56 / 1e6
    assert all(value >= 0 for name, value in found.items() if name.endswith((", s", "an image", " us")))
    size.print_table([20, 40], [found, {}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | 20 | 40 |"
    assert len(lines) == 2 + len(found)


@pytest.mark.slow
def test_commands_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["size.py", "--runs", "3", "--source", "2", "--height", "70", "--width", "100"])
    assert size.main() == 0
    printed = capsys.readouterr().out
    for name in ("train", "resume", "labels verify", "report", "doctor"):
        assert f"| {name}, CPU s | " in printed
