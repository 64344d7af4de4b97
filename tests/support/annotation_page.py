"""The annotation page in a real browser, in front of a real server on a run of :mod:`annotation`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from numpy.typing import NDArray

import annotation
from ripu.annotate.images import Images
from ripu.annotate.server import Server, make_app
from ripu.annotate.session import Session, Settings

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

TOKEN = "key"  # noqa: S105


@dataclass
class Served:
    """A server at work."""

    port: int
    session: Session  # used by the server's thread alone; its questions may be read
    client: httpx.Client = field(repr=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/#{TOKEN}"

    def get(self, path: str) -> dict[str, Any]:
        content: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return content

    def post(self, path: str, **body: object) -> dict[str, Any]:
        content: dict[str, Any] = self.client.post(path, json=body).raise_for_status().json()
        return content

    def truth(self, qid: str) -> NDArray[np.uint8]:
        return annotation.true_labels(self.session.questions.question(qid))


@contextmanager
def serve(
    run: Path,
    settings: Settings | None = None,
    read: Callable[[int], NDArray[np.uint8]] = annotation.picture,
    port: int = 0,
) -> Iterator[Served]:
    """Serve a run from a thread, on a free port unless one is given."""
    found: list[Any] = []
    ready = threading.Event()

    def work() -> None:
        session = annotation.open_session(run, settings)  # SQLite wants to be used by one thread
        try:
            with socket.socket(proto=socket.IPPROTO_TCP) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
                sock.listen()
                own = sock.getsockname()[1]
                images = Images(session.store, read)
                app = make_app(
                    session, images, {TOKEN: "ann", "ben's": "ben", "any": None}, frozenset({f"127.0.0.1:{own}"})
                )
                server = Server(app, sock=sock)
                found.extend((own, session, server))
                ready.set()
                server.run()
        finally:
            ready.set()
            session.close_journal()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(20)
    own, session, server = found
    with httpx.Client(base_url=f"http://127.0.0.1:{own}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        try:
            yield Served(own, session, client)
        finally:
            server.stop()
            thread.join(20)


def show(context: BrowserContext, served: Served) -> Page:
    """Open the page in a tab."""
    page = context.new_page()
    page.goto(served.address)
    return page


def qid_of(page: Page) -> str:
    """Return the name of the question on the page, once its picture is there."""
    return str(page.locator("body[data-ready=true]").get_attribute("data-qid"))


def following(page: Page, before: str) -> str:
    """Wait for the question after one."""
    page.locator(f"body[data-ready=true]:not([data-qid='{before}'])").wait_for()
    return qid_of(page)


def questions_of(served: Served) -> dict[str, dict[str, Any]]:
    """Return the questions of the open round by name, as the page gets them."""
    return {one["qid"]: one for one in served.get("/api/next?n=64&by=ann")["questions"]}


def is_saved(page: Page) -> None:
    """Wait until the page says that everything is saved."""
    page.locator("#saved[data-state=saved]").wait_for()


def final_labels(run: Path) -> dict[str, list[int] | None]:
    """Return the answers of the newest round that count; the server must have ended."""
    session = annotation.open_session(run)
    try:
        found = {}
        for number in range(len(session.store.images)):
            for question in session.questions.of_image(number):
                labels = session.final_labels(question)
                found[question.qid] = None if labels is None else labels.tolist()
        return found
    finally:
        session.close_journal()


def keys_for(question: dict[str, Any], labels: list[int], letters: dict[int, str]) -> list[str]:
    """Return the fewest keys that give a window of at most 3 x 3 pixels these labels; letters: label -> letter."""
    classes = sorted(set(labels), key=labels.count)
    if len(classes) == 1:
        return [letters[labels[0]]]
    by_split: list[str] = []
    if len(classes) == 2:
        split = "".join("0" if label == labels[0] else "1" for label in labels)
        if split in question["splits"]:
            page, digit = divmod(question["splits"].index(split), 9)
            other = next(label for label in classes if label != labels[0])
            pages = ["ArrowDown"] * page
            by_split = [f"Shift+{letters[labels[0]].upper()}", letters[other], *pages, str(digit + 1)]
    top, left = (min(pixel[axis] for pixel in question["pixels"]) for axis in (0, 1))
    keys = []
    for label in classes[:-1]:
        keys.append(f"Shift+{letters[label].upper()}")
        keys += [
            str(7 - 3 * (row - top) + column - left)
            for (row, column), one in zip(question["pixels"], labels, strict=True)
            if one == label
        ]
    keys.append(letters[classes[-1]])
    return min(by_split or keys, keys, key=len)
