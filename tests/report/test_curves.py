"""Curves over runs, and the names of their lines."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from ripu.report import curves
from ripu.report.curves import add_legend, curve_points, window_sweep
from ripu.report.plots import start
from written_runs import rows_of, write_run


def test_the_sweep_over_k_needs_a_second_k(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    rows, _ = rows_of(tmp_path / "runs")
    assert window_sweep(rows, tmp_path / "out") == []
    assert curve_points(rows[0]) == [(10, 0.0, [30.0]), (40, pytest.approx(2.2), [50.0])]


def test_the_sweep_over_k_joins_runs_that_differ_only_in_k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = ("objective.negative_weight=0", "mode.radius=4")
    write_run(tmp_path / "k1", miou=60.0)
    write_run(tmp_path / "k2", "mode.radius=2", miou=61.0)
    write_run(tmp_path / "apart", "mode.radius=2", "mode.suppress_radius=1", miou=10.0)
    write_run(tmp_path / "free", "setting=source_free", "mode.radius=9", f"model.checkpoint={tmp_path}", miou=20.0)
    write_run(tmp_path / "shared", "mode.budget_per=dataset", "mode.radius=4", miou=30.0)
    write_run(tmp_path / "plain", *fewer, miou=40.0)
    drawn: list[Any] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure.axes[0]) or [path])
    assert len(window_sweep(rows_of(tmp_path)[0], tmp_path / "out")) == 1
    (line,) = drawn[0].get_legend_handles_labels()[0]
    assert line.lines[0].get_xdata().tolist() == [1, 2]
    assert line.lines[0].get_ydata().tolist() == [60.0, 61.0]


@pytest.mark.parametrize("num_lines", [1, 3, 40])
def test_long_names_leave_room_for_the_curves(num_lines: int) -> None:
    figure, axis = start(figsize=(7.2, 4.4))
    for number in range(num_lines):
        weights = " ".join(f"objective.weight_{letter}={number}" for letter in "abcdef")
        axis.plot([0, 1], [0, 1], label=f"camvid ra active RipuScore 0.022 {weights} region._target_=a.B{number} (n=3)")
    add_legend(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    box, legend = axis.get_window_extent(), figure.legends[0].get_window_extent()
    assert box.width > 0.8 * figure.bbox.width
    assert box.height > 300
    assert not box.overlaps(legend)
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width
