"""A browser, and a run whose annotation page is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import browser

if TYPE_CHECKING:  # its server needs libraries that may be missing
    from playwright.sync_api import Browser, BrowserContext

    from annotation import Clock
    from annotation_page import Served
    from ripu.annotate.session import Session

WIDE = {"width": 1366, "height": 768}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.start_browser() as started:
        yield started


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    opened = chromium.new_context(viewport=WIDE)
    opened.set_default_timeout(10_000)
    yield opened
    opened.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    import annotation

    return annotation.make_run(tmp_path / "run", per_image=8)


@pytest.fixture
def served(run: Path) -> Iterator[Served]:
    from annotation_page import serve

    with serve(run) as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    import annotation

    return annotation.Clock()


@pytest.fixture
def session(tmp_path: Path, clock: Clock) -> Iterator[Session]:
    import annotation

    opened = annotation.open_session(annotation.make_run(tmp_path), clock=clock)
    yield opened
    opened.close_journal()
