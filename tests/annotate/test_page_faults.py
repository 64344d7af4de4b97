"""The annotation page in a real browser when something goes wrong: what it keeps, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import annotation
from annotation_page import Served, following, is_saved, qid_of, questions_of, serve, show
from ripu.annotate.errors import AnnotationError

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route


def interrupt(page: Page, path: str, status: int | None, error: str = "no") -> None:
    """Let requests fail: with a status, or without an answer."""

    def handle(route: Route) -> None:
        if status is None:
            route.abort()
        else:
            route.fulfill(status=status, content_type="application/json", body=json.dumps({"error": error}))

    page.route(path, handle)


def hold(page: Page, path: str) -> Callable[[], None]:
    """Let requests wait until the function that is returned is called."""
    held: list[Route] = []
    is_held = True

    def handle(route: Route) -> None:
        if is_held:
            held.append(route)
        else:
            route.continue_()

    def release() -> None:
        nonlocal is_held
        is_held = False
        for route in held:
            route.continue_()

    page.route(path, handle)
    return release


def test_a_lost_server_and_a_refresh_lose_nothing(run: Path, context: BrowserContext) -> None:
    with serve(run) as served:
        page = show(context, served)
        qid = qid_of(page)
        port = served.port
    for key in "rosro":
        page.keyboard.press(key)
        qid = following(page, qid)
    page.locator("#saved", has_text="offline, 5 answers kept in this browser").wait_for()
    page.keyboard.press("Backspace")
    qid = following(page, qid)
    with serve(run, port=port) as served:
        page.evaluate("dispatchEvent(new Event('online'))")
        is_saved(page)
        assert served.get("/api/stats")["answered"] == 4
        interrupt(page, "**/api/answers", None)
        page.keyboard.press("s")
        following(page, qid)
        page.locator("#saved", has_text="offline, 1 answer kept in this browser").wait_for()
        page.unroute("**/api/answers")
        release = hold(page, "**/api/answers")
        page.reload()
        page.locator("#saved", has_text="saving 1").wait_for()
        release()
        is_saved(page)
        assert served.get("/api/stats")["answered"] == 5


def test_an_answer_that_was_saved_unheard_is_not_doubled(served: Served, context: BrowserContext) -> None:
    page = show(context, served)
    qid = qid_of(page)

    def swallow(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/answers", swallow, times=2)
    page.keyboard.press("r")
    second = following(page, qid)
    page.keyboard.press("Backspace")
    assert following(page, second) == qid
    page.keyboard.press("s")
    following(page, qid)
    is_saved(page)
    assert [set(one.labels.tolist()) for one in served.session.journal.answers(0)] == [{2}]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "text"), [(507, "the server's disk is full, 2 answers kept"), (500, "offline, 2 answers kept")]
)
def test_answers_wait_for_a_server_in_trouble(status: int, text: str, served: Served, context: BrowserContext) -> None:
    page = show(context, served)
    qid = qid_of(page)
    interrupt(page, "**/api/answers", status)
    for key in "rs":
        page.keyboard.press(key)
        qid = following(page, qid)
    page.locator("#saved", has_text=text).wait_for()
    page.unroute("**/api/answers")
    is_saved(page)
    assert served.get("/api/stats")["answered"] == 2


def test_a_refused_answer_is_put_aside_and_the_others_are_saved(served: Served, context: BrowserContext) -> None:
    page = show(context, served)
    first = qid_of(page)

    def refuse(route: Route) -> None:
        if first in str(route.request.post_data):
            route.fulfill(status=422, content_type="application/json", body='{"error": "label 9 is not a class"}')
        else:
            route.continue_()

    page.route("**/api/answers", refuse)
    qid = first
    for key in "rso":
        page.keyboard.press(key)
        qid = following(page, qid)
    page.get_by_text("1 answer could not be saved").wait_for()
    is_saved(page)
    assert served.get("/api/stats")["answered"] == 2
    page.get_by_role("button", name="Show them").click()
    page.get_by_text(f"question {first}, road: label 9 is not a class").wait_for()
    page.get_by_role("button", name="Discard them").click()
    assert not page.get_by_text("could not be saved").is_visible()
    page.unroute("**/api/answers")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert qid_of(page) == first
    page.keyboard.press("s")
    is_saved(page)
    assert served.get("/api/stats")["answered"] == 3


def test_questions_that_come_after_the_last_answer_are_asked(tmp_path: Path, context: BrowserContext) -> None:
    """The reply with further questions is under way until all questions of the first one are answered."""
    with serve(annotation.make_run(tmp_path / "run", radius=0, per_image=80)) as served:
        page = show(context, served)
        qid = qid_of(page)
        release = hold(page, "**/api/next?*")
        order = [one["qid"] for one in served.get("/api/next?n=64&by=ann")["questions"]]
        first = order[:48]
        for number, one in enumerate(first):
            assert qid == one
            page.keyboard.press("r")
            if number < len(first) - 1:
                qid = following(page, qid)
        page.get_by_role("heading", name="Fetching questions…").wait_for()
        is_saved(page)
        release()
        assert qid_of(page) == order[48]
        page.keyboard.press("r")
        assert following(page, order[48]) == order[49]
        is_saved(page)
        assert served.get("/api/stats")["answered"] == 49


def test_a_closed_round_keeps_late_answers(run: Path, served: Served, context: BrowserContext) -> None:
    page = show(context, served)
    qid = qid_of(page)
    served.post("/api/close", by="ann")
    page.keyboard.press("r")
    page.get_by_role("heading", name="This round is closed").wait_for()
    page.get_by_text("1 answer of yours came too late").wait_for()
    kept = page.locator("#saved", has_text="the round is closed, 1 answer kept in this browser")
    kept.wait_for()
    page.reload()
    kept.wait_for()
    served.post("/api/reopen", by="ann")
    assert qid_of(page) != qid
    is_saved(page)
    assert served.get("/api/stats")["answered"] == 1


def test_a_page_of_an_earlier_round_goes_on_with_the_new_one(
    run: Path, served: Served, context: BrowserContext
) -> None:
    page = show(context, served)
    qid = qid_of(page)
    interrupt(page, "**/api/answers", None)
    page.keyboard.press("r")
    following(page, qid)
    served.post("/api/close", by="ann")
    with annotation.LabelStore.open(run / "labels", write=True) as store:
        annotation.add_round(store, 1, per_image=8)
    page.unroute("**/api/answers")
    page.evaluate("dispatchEvent(new Event('online'))")
    page.get_by_text("round 2 of 5").wait_for()
    page.get_by_text("1 answer could not be saved").wait_for()
    page.locator("body[data-qid^='1-'][data-ready=true]").wait_for()
    page.get_by_role("button", name="Show them").click()
    page.get_by_text(f"question {qid}, road: it answers round 1, but round 2 is open now").wait_for()


def test_changed_classes_put_answers_aside(run: Path, context: BrowserContext) -> None:
    with serve(run) as served:
        page = show(context, served)
        qid = qid_of(page)
        interrupt(page, "**/api/answers", None)
        page.keyboard.press("r")
        following(page, qid)
        served.session.classes_digest = "other"
        page.unroute("**/api/answers")
        page.evaluate("dispatchEvent(new Event('online'))")
        page.get_by_text("1 answer could not be saved").wait_for()
        assert served.get("/api/stats")["answered"] == 0


def test_a_missing_image_is_named_and_skipped(run: Path, context: BrowserContext) -> None:
    def read(number: int) -> np.ndarray:
        if number == 1:
            raise AnnotationError("photo.png is missing; restore it")
        return annotation.picture(number)

    with serve(run, read=read) as served:
        page = show(context, served)
        answered = 0
        while page.locator("#panel-title").text_content() != "All questions are answered" and answered < 40:
            if page.get_by_text("photo.png is missing").is_visible():
                qid = page.locator("body").get_attribute("data-qid")
                page.keyboard.press("r")  # not without its picture
                assert page.locator("body").get_attribute("data-qid") == qid
                page.keyboard.press("u")
            elif page.locator("body[data-ready=true]").count():
                page.keyboard.press("r")
            else:
                continue
            answered += 1
        is_saved(page)
        stats = served.get("/api/stats")
        assert (stats["answered"], stats["unsure"]) == (16, 8)


def test_without_the_key_the_page_asks_for_the_address(served: Served, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.get_by_role("heading", name="Not signed in").wait_for()
    page.get_by_label("Address").fill(served.address)
    page.keyboard.press("Enter")
    qid_of(page)
    assert page.url.rstrip("#/") == f"http://127.0.0.1:{served.port}"
    page.reload()
    qid_of(page)
    page.goto(f"http://127.0.0.1:{served.port}/?#old")
    page.get_by_text("open the address that the command printed").wait_for()


def test_a_name_is_asked_once_and_no_round_is_waited_for(tmp_path: Path, context: BrowserContext) -> None:
    with annotation.LabelStore.create(tmp_path / "run" / "labels", annotation.IMAGES, annotation.CLASSES) as store:
        with serve(tmp_path / "run") as served:
            page = context.new_page()
            page.goto(served.address.replace("#key", "#any"))
            page.get_by_role("heading", name="No round is open yet").wait_for()
            annotation.add_round(store, 0, per_image=4)
            page.get_by_label("Name").fill("Zoë r s")
            page.keyboard.press("Enter")
            qid = qid_of(page)
            page.keyboard.press("r")
            following(page, qid)
            is_saved(page)
            assert [one["by"] for one in served.get("/api/stats")["annotators"]] == ["Zoë r s"]
            page.reload()
            qid_of(page)


def test_two_tabs_do_not_ask_the_same_twice(served: Served, context: BrowserContext) -> None:
    one, other = show(context, served), show(context, served)
    one.get_by_text("open in another tab").wait_for()
    qid = qid_of(one)
    assert qid_of(other) == qid
    one.keyboard.press("r")
    following(one, qid)
    following(other, qid)
    other.keyboard.press("s")
    is_saved(one)
    is_saved(other)
    assert served.get("/api/stats")["answered"] == 2


def test_conflicts_are_shown_with_their_answers_and_resolved(served: Served, context: BrowserContext) -> None:
    (qid, question), *_ = questions_of(served).items()
    with_token = {"Authorization": "Bearer ben's"}
    for token, label in (({}, 0), (with_token, 1)):
        body = {
            "round": 0,
            "answers": [{"client_id": f"c{label}", "qid": qid, "labels": [label] * len(question["pixels"])}],
        }
        served.client.post("/api/answers", json={"by": "x", **body}, headers=token).raise_for_status()
    page = show(context, served)
    page.get_by_role("button", name="1 conflict").click()
    page.locator(f"body[data-qid='{qid}'][data-ready=true]").wait_for()
    others = page.locator("#others").inner_text()
    assert "ben" in others
    assert "roof" in others
    page.keyboard.press("s")
    page.get_by_role("heading", name="No conflicts left").wait_for()
    is_saved(page)
    stats = served.get("/api/stats")
    assert (stats["answered"], stats["conflicts"]) == (1, 0)
    page.get_by_role("button", name="Back to the questions").last.click()
    assert qid_of(page) != qid
