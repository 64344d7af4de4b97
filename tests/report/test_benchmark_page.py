"""The page of a benchmark: figures by hand, errors in one line, and the page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import browser
from ripu.report.__main__ import main
from ripu.report.benchmark import OURS, BenchmarkRow, Spread, make_rows, read_runs
from ripu.report.benchmark_page import write_benchmark
from running import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

STREETS, CAMVID = ["dataset=streets"], ["dataset=camvid"]


def line(row: str, seed: int, miou: float, overrides: list[str] = STREETS, **more: Any) -> dict[str, Any]:
    """A run of two rounds."""
    return {
        "row": row,
        "seed": seed,
        "overrides": overrides,
        "mIoU": miou,
        "labelled_fraction": 0.022,
        "seconds": {"training": 60.0 + seed, "evaluation": 3.0},
        "rounds": [[300, 0.011, miou - 2], [400, 0.022, miou]],
        "setting": "active",
        "mode": "ra",
        "clicks": [100 + 10 * seed, 250],
        "pixels": [900, 1800],
        "peak_memory_gib": {"process": 1.0 + seed, "device": None},
        **more,
    }


WITHOUT_ROUNDS: dict[str, Any] = {"labelled_fraction": 0.0, "rounds": [], "clicks": [], "pixels": []}
RUNS = [
    line(OURS, 0, 40.0),
    line(OURS, 1, 43.0),
    line(OURS, 2, 50.0),
    line("PA RIPU", 0, 39.0, mode="pa"),
    line("PA RIPU", 1, 39.0, mode="pa"),
    line("PA RIPU", 3, 60.0, mode="pa"),
    line("CBST", 0, 20.0, setting="unlabelled", **WITHOUT_ROUNDS),
    line("own idea", 0, 9.0, setting="source_free", peak_memory_gib={"process": 9.0, "device": 2.5}),
    line(OURS, 0, 30.0, CAMVID),
]


def rows_of(runs: list[dict[str, Any]]) -> dict[tuple[str, str], BenchmarkRow]:
    return {(row.name, row.dataset): row for row in make_rows(runs)}


def write(path: Path, runs: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(run) + "\n" for run in runs))
    return path


def test_figures_are_those_computed_by_hand() -> None:
    rows = rows_of(RUNS)
    ours, pixels = rows[OURS, "streets"], rows["PA RIPU", "streets"]
    # 40, 43, 50: deviations -4.333, -1.333, 5.667 from 44.333; squares 18.778 + 1.778 + 32.111 = 52.667; / 2; root
    assert ours.miou == Spread(pytest.approx(44.3333, abs=1e-4), pytest.approx(5.1316, abs=1e-4), 3)  # type: ignore[arg-type]
    assert ours.difference is None
    # seeds 0 and 1 are in both: 39 - 40 = -1 and 39 - 43 = -4
    assert pixels.difference == Spread(-2.5, pytest.approx(2.1213, abs=1e-4), 2)  # type: ignore[arg-type]
    assert rows["CBST", "streets"].miou == Spread(20.0, None, 1)
    assert rows["CBST", "streets"].difference == Spread(-20.0, None, 1)
    assert ours.seconds == 64.0  # the median of 63, 64 and 65
    assert ours.peak_gib == 3.0  # the largest of 1, 2 and 3
    assert ours.curve == ((110.0, pytest.approx(42.3333, abs=1e-4)), (250.0, pytest.approx(44.3333, abs=1e-4)))
    assert (ours.clicks, ours.pixels, ours.share) == (250.0, 1800.0, pytest.approx(0.022))
    assert (ours.gtav, ours.synthia) == (69.6, 70.1)


def test_every_system_is_on_every_data_set_and_unknown_is_none() -> None:
    rows = rows_of(RUNS)
    assert [name for name, _ in rows] == ["CBST", "PA RIPU", OURS, "own idea"] * 2
    assert rows["CBST", "camvid"].miou is None
    assert (rows["CBST", "camvid"].kind, rows["CBST", "camvid"].gtav) == ("self-training", 45.9)
    assert rows["CBST", "streets"].mode is None  # a run without rounds has none
    assert (rows["CBST", "streets"].clicks, rows["CBST", "streets"].pixels) == (0.0, 0.0)
    own = rows["own idea", "streets"]
    assert (own.kind, own.gtav, own.peak_gib) == ("source-free", None, 2.5)  # the GPU's, not that of the process


def test_a_record_without_the_newer_entries_has_what_it_has() -> None:
    newer = ("setting", "mode", "clicks", "pixels", "peak_memory_gib")
    runs = [{name: value for name, value in run.items() if name not in newer} for run in RUNS]
    row = rows_of(runs)[OURS, "streets"]
    assert row.miou is not None
    assert (row.setting, row.mode, row.clicks, row.peak_gib, row.curve) == (None, None, None, None, ())
    assert make_rows(read_runs(ROOT / "docs" / "studies" / "results.jsonl"))  # the record of the study


def test_the_last_of_equal_runs_counts() -> None:
    assert rows_of([*RUNS, line("CBST", 0, 25.0, **WITHOUT_ROUNDS)])["CBST", "streets"].miou == Spread(25.0, None, 1)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "is empty: no run is finished"),
        ('{"row": "RA RIPU", "se\n', 'line 1: \'{"row": "RA RIPU", "se\' is not JSON'),
        ("[1, 2]\n", "line 1: '[1, 2]' is not a run, and the file no record"),
        ('{"mIoU": 40.0}\n', "line 1 has no 'row'"),
        (json.dumps(line(OURS, 0, 40.0) | {"mIoU": float("nan")}), "line 1: mIoU=nan is not what"),
        (json.dumps(line(OURS, 0, 40.0) | {"seed": "0"}), "line 1: seed=0 is not what"),
        (json.dumps(line(OURS, 0, 40.0) | {"rounds": [[1, 2]]}), "line 1: rounds=[[1, 2]] is not what"),
        (json.dumps(line(OURS, 0, 40.0) | {"clicks": [1]}), "line 1: 1 values of clicks, but 2 rounds"),
        (json.dumps(line(OURS, 0, 40.0)) + "\n\n\x00\n", "line 3: '\\x00' is not JSON"),
    ],
)
def test_a_damaged_record_is_named_with_cause_and_remedy(
    content: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "benchmark.jsonl"
    record.write_text(content)
    assert main(["--benchmark", str(record)]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith(f"error: {record}")
    assert cause in told
    assert "scripts/benchmark.py" in told
    assert "\n" not in told
    assert not record.with_suffix(".html").exists()


def test_a_missing_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, cause in ((tmp_path / "none.jsonl", "does not exist"), (tmp_path, "is a folder")):
        assert main(["--benchmark", str(path)]) == 2
        assert f"error: {path} {cause}; name a record" in capsys.readouterr().err
    record = write(tmp_path / "record.html", RUNS)
    assert main(["--benchmark", str(record)]) == 2
    assert "would replace the record" in capsys.readouterr().err
    assert len(read_runs(record)) == len(RUNS)


@pytest.mark.parametrize(
    ("words", "said"), [(["--html"], "--html has no"), (["runs"], "runs has no"), ([], "name the output")]
)
def test_what_has_no_effect_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write(tmp_path / "benchmark.jsonl", RUNS)
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--benchmark", str(record)] if words else [])
    assert said in capsys.readouterr().err


def test_the_page_is_written_beside_the_record_or_into_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write(tmp_path / "benchmark.jsonl", [*RUNS, line("</script><script>alert(1)", 0, 1.0)])
    for out in ([], ["--out", str(tmp_path / "pages")]):
        assert main(["--benchmark", str(record), *out]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "benchmark.html"), str(tmp_path / "pages/benchmark.html")]
    page = (tmp_path / "benchmark.html").read_text()
    assert "<script>alert" not in page
    row = re.search(r'<th scope="row" class="text">PA RIPU</th>(.*?)</tr>', page)
    assert row is not None
    assert re.findall(r">([^<]*)</td>", row[1]) == [
        *("active", "streets", "active", "pa", "65.5", "66.1", "46.0 ± 12.1", "3", "-2.5 ± 2.1", "2"),
        *("250", "1,800", "2.20 %", "64", "4.00"),
    ]
    (open_row,) = re.findall(r'class="open"><th[^>]*>CBST</th>(.*?)</tr>', page)
    assert re.findall(r">([^<]*)</td>", open_row)[6:] == ["-"] * 9


def shown(page: Page) -> list[str]:
    """The first three cells of the rows that can be seen, in their order."""
    return [
        " / ".join(row.locator("th, td").nth(cell).inner_text() for cell in (0, 2, 7))
        for row in page.locator("#rows tbody tr:visible").all()
    ]


def sorted_by(page: Page) -> list[str]:
    heads = page.locator("#rows thead th").all()
    return [f"{one.inner_text()} {order}" for one in heads if (order := one.get_attribute("aria-sort")) != "none"]


OPEN = ["CBST / camvid / -", "PA RIPU / camvid / -", "own idea / camvid / -"]


def test_a_browser_sorts_by_click_and_by_key(tmp_path: Path) -> None:
    path = write_benchmark(write(tmp_path / "benchmark.jsonl", RUNS))
    known = [
        "PA RIPU / streets / 46.0 ± 12.1",
        "RA RIPU / streets / 44.3 ± 5.1",
        "RA RIPU / camvid / 30.0",
        "CBST / streets / 20.0",
        "own idea / streets / 9.0",
    ]
    with browser.start_browser() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        found = browser.complaints(page)
        page.goto(path.resolve().as_uri())
        assert sorted_by(page) == []
        button = page.get_by_role("button", name="mIoU", exact=True)
        button.click()
        assert shown(page) == known + OPEN
        assert sorted_by(page) == ["mIoU▼ descending"]
        page.keyboard.press("Enter")
        assert shown(page) == known[::-1] + OPEN  # what is not finished stays last
        assert sorted_by(page) == ["mIoU▲ ascending"]
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert sorted_by(page) == ["seeds▼ descending"]
        page.get_by_role("button", name="system").focus()
        page.keyboard.press("Enter")
        assert sorted_by(page) == ["system▲ ascending"]
        assert [one.split(" / ")[0] for one in shown(page)] == [
            name for name in ("CBST", "own idea", "PA RIPU", OURS) for _ in range(2)
        ]
        assert found == []


def test_a_browser_filters_rows_curves_and_legend(tmp_path: Path) -> None:
    path = write_benchmark(write(tmp_path / "benchmark.jsonl", RUNS))
    with browser.start_browser() as chromium:
        from playwright.sync_api import expect

        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        found = browser.complaints(page)
        page.goto(path.resolve().as_uri())
        status, curves, legend = (
            page.locator("#status"),
            page.locator(".curve:visible"),
            page.locator(".keys li:visible"),
        )
        assert status.inner_text() == "8 of 8 rows, 4 curves"
        assert legend.all_inner_texts() == ["PA RIPU", OURS, "own idea", "streets", "camvid"]
        page.get_by_label("text", exact=True).fill("ripu PA")
        assert shown(page) == ["PA RIPU / streets / 46.0 ± 12.1", "PA RIPU / camvid / -"]
        assert (curves.count(), legend.all_inner_texts()) == (1, ["PA RIPU", "streets"])
        page.get_by_label("finished rows only").press("Space")
        assert shown(page) == ["PA RIPU / streets / 46.0 ± 12.1"]
        page.get_by_role("button", name="show all").press("Enter")
        page.get_by_label("data set").select_option("camvid")
        page.get_by_label("kind of method").select_option("active")
        assert shown(page) == ["PA RIPU / camvid / -", "RA RIPU / camvid / 30.0"]
        assert (status.inner_text(), curves.count()) == ("2 of 8 rows, 1 curve", 1)
        page.get_by_label("text", exact=True).fill("nothing has this")
        assert status.inner_text() == "0 of 8 rows, 0 curves"
        page.get_by_role("button", name="show all").click()
        expect(status).to_have_text("8 of 8 rows, 4 curves")  # the form is reset before the page looks at it
        page.locator("#rows tbody tr").filter(has_text="PA RIPU").first.hover()
        expect(page.locator(".curve.lit")).to_have_count(1)
        assert found == []


def test_a_narrow_screen_scrolls_the_table_alone(tmp_path: Path) -> None:
    path = write_benchmark(write(tmp_path / "benchmark.jsonl", RUNS))
    with browser.start_browser() as chromium:
        page = chromium.new_page(viewport={"width": 390, "height": 844}, is_mobile=True)
        found = browser.complaints(page)
        page.goto(path.resolve().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#rows").is_visible()
        assert found == []


def test_without_clicks_there_is_no_picture(tmp_path: Path) -> None:
    page = write_benchmark(write(tmp_path / "benchmark.jsonl", [line("CBST", 0, 20.0, **WITHOUT_ROUNDS)])).read_text()
    assert "No run of the record has rounds with a number of clicks." in page
    assert "<svg" not in page
