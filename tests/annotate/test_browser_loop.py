"""The whole way with the real commands: a run asks, a browser answers by keys and closes, the run resumes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forks

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx

import browser
import trees
from annotation_page import is_saved, keys_for, qid_of
from ripu.labelstore import LabelReader
from ripu.run.assembly.data import load_parts
from running import call, command, environment, same_weights, spec, tiny

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROUNDS = ("selection_steps=[3,5]", "pretrain_steps=2")
pytestmark = pytest.mark.slow


def revealed(run: Path) -> dict[tuple[str, int], bytes]:
    store = LabelReader(run / "labels")
    return {
        (image.image_id, number): store.revealed_label(image.image_id, number).tobytes()
        for image in store.images
        for number in range(store.num_rounds + 1)
    }


def answer_round(page: Page, address: str, truth: dict[str, Any]) -> int:
    """Answer every question of the open round by keys, and close it; return the number of questions."""
    base, _, key = address.partition("#")
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}) as client:
        about = client.get("/api/run").json()
        letters = {one["id"]: one["key"] for one in about["classes"]} | {255: "v"}
        known: dict[str, dict[str, Any]] = {}
        page.goto(address)
        count = 0
        while count < about["questions"]:
            qid = qid_of(page)
            if qid not in known:
                found = client.get("/api/next?n=64&by=ann").json()["questions"]
                known |= {one["qid"]: one for one in found}
            question = known[qid]
            labels = [int(truth[question["image"]][row, column]) for row, column in question["pixels"]]
            for key_press in keys_for(question, labels, letters):
                page.keyboard.press(key_press)
            count += 1
            if count < about["questions"]:
                page.locator(f"body[data-ready=true]:not([data-qid='{qid}'])").wait_for()
        is_saved(page)
        page.locator("#close").click()
        page.locator("#close-yes").click()
        page.get_by_text("closed").first.wait_for()
    return count


@pytest.mark.parametrize("mode", ["pa", "ra"])
def test_a_browser_answers_a_whole_run(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    trees.write_camvid(data)
    budget = ("mode=pa", "budget=8") if mode == "pa" else ("mode=ra", "budget=0.05")
    reference, run = tmp_path / "truth", tmp_path / "run"
    done = call("ripu.train", *tiny(data, reference, *ROUNDS, *budget), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = tiny(data, run, *ROUNDS, *budget, "oracle=human")
    scenes = load_parts(spec(*words).dataset, parts=("target",))["target"]
    truth = {scene.image_id: scenes.require_label(index) for index, scene in enumerate(scenes.scenes)}
    with browser.start_browser() as chromium:
        for number in range(2):
            asked = call("ripu.train", *words, *(["resume=true"] if number else []), cwd=tmp_path)
            assert asked.returncode == 75, asked.stderr
            server = forks.start(
                command("ripu.annotate", str(run), "--as", "ann"),
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert server.stdout is not None
                address = server.stdout.readline().split()[1]
                page = chromium.new_page(viewport={"width": 1366, "height": 768})
                page.set_default_timeout(20_000)
                assert answer_round(page, address, truth) > 0
                page.close()
            finally:
                server.terminate()
                server.wait(20)
    done = call("ripu.train", *words, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(run, reference)
    assert revealed(run) == revealed(reference)
