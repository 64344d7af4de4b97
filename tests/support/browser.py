"""Pages in the system's Chromium, opened by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Start Chromium without a window; if it is missing, skip the test, or fail under RIPU_REQUIRE_BROWSER."""
    executable = next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        missing = f"none of {', '.join(NAMES)} is on PATH; install Chromium to open the page"
        pytest.fail(missing) if "RIPU_REQUIRE_BROWSER" in os.environ else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def complaints(page: Page) -> list[str]:
    """Return a list that fills with the page's errors, warnings and requests to anything but itself."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda said: found.append(said.text) if said.type in ("error", "warning", "assert") else None)

    def note(request: Request) -> None:
        if not request.is_navigation_request() and not request.url.startswith("data:"):
            found.append(request.url)

    page.on("request", note)
    return found
