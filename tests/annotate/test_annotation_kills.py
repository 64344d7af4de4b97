"""Kill the server, a closing and a taking at seeded points: no acknowledged answer is lost, and none counts twice."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from annotation import IMAGES, make_run, open_session, picture, true_labels, truth
from ripu.annotate.journal import Answer
from ripu.annotate.questions import parse_qid
from ripu.labelstore import LabelStore
from ripu.labelstore.cut import Cut, is_closed, take_cut

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process to kill")]
KILLS = 20


def killed_after(seconds: float, work: Callable[[], None]) -> bool:
    """Do the work in a forked process that is killed after some seconds; return whether it got to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def request(port: int, method: str, path: str, body: object = None) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, found
    return found


def serve(run: Path, sock: socket.socket) -> None:
    from ripu.annotate.images import Images
    from ripu.annotate.server import Server, make_app

    session = open_session(run)
    session._clock = time.time
    Server(make_app(session, Images(session.store, picture), {"key": None}), sock=sock).run()


def test_an_acknowledged_answer_outlives_its_server(tmp_path):
    run = make_run(tmp_path, per_image=104)
    chance = random.Random(0)
    acknowledged: dict[str, str] = {}
    number = 0
    for _ in range(KILLS):
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # without it, asyncio leaves Nagle's delay on
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        child = os.fork()
        if child == 0:
            try:
                serve(run, sock)
            finally:
                os._exit(0)
        sock.close()
        end = time.monotonic() + 20
        while True:
            try:
                request(port, "GET", "/api/run")
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)
        stop = time.monotonic() + chance.uniform(0.05, 0.4)
        pid = os.fork()
        if pid == 0:
            time.sleep(max(0.0, stop - time.monotonic()))
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        try:
            while True:
                for one in request(port, "GET", "/api/next?n=3&by=ann")["questions"]:
                    name = f"c{number}"
                    number += 1
                    body = {"client_id": name, "qid": one["qid"], "labels": [1] * len(one["pixels"]), "ms": 5}
                    request(port, "POST", "/api/answers", {"by": "ann", "answers": [body]})
                    acknowledged[name] = one["qid"]
                if time.monotonic() > stop + 5:
                    break
        except (OSError, http.client.HTTPException):
            pass
        for process in (child, pid):
            os.waitpid(process, 0)
    session = open_session(run)
    kept = [one.client_id for one in session.journal.answers(0)]
    assert len(kept) == len(set(kept)) >= len(acknowledged) > KILLS
    assert set(acknowledged) <= set(kept)
    assert len(set(acknowledged.values())) == len(acknowledged)
    session.close_journal()


def answered_run(path: Path) -> Path:
    run = make_run(path)
    session = open_session(run)
    answers = [Answer(one.qid, *parse_qid(one.qid), "ann", true_labels(one), 900) for one in session.questions]
    session.save(answers)
    session.close_journal()
    return run


def test_a_killed_closing_leaves_the_round_open_or_closed(tmp_path):
    chance = random.Random(1)
    ends = set()
    longest = 0.06
    for number in range(KILLS):
        run = answered_run(tmp_path / str(number))

        def work(run=run):
            session = open_session(run)
            session.close("ann")

        if "closed" not in ends:  # a busy machine takes longer
            longest *= 1.3
        killed_after(chance.uniform(0.0, longest), work)
        session = open_session(run)
        ends.add(session.state)
        if session.state == "open":
            session.close("ann")
        cut = dict(Cut(session.folder, session.store, 0))
        assert sum(len(indices) for indices, _ in cut.values()) == sum(len(one.pixels) for one in session.questions)
        session.close_journal()
    assert ends == {"open", "closed"}


def test_a_killed_taking_is_finished_by_the_next(tmp_path):
    chance = random.Random(2)
    reference: set[bytes] = set()
    begun = set()
    longest = 0.05
    for number in range(KILLS):
        run = answered_run(tmp_path / str(number))
        session = open_session(run)
        session.close("ann")
        session.close_journal()

        def work(run=run):
            with LabelStore.open(run / "labels", write=True) as store:
                take_cut(store, run / "annotation", 0)

        if 1 not in begun:
            longest *= 1.3
        killed_after(chance.uniform(0.0, longest), work)
        with LabelStore.open(run / "labels", write=True) as store:
            begun.add(len(store.log.answers))
            assert is_closed(run / "annotation", 0)
            take_cut(store, run / "annotation", 0)
            assert len(store.log.answers) == 1
            assert store.verify() == []
            for index, image in enumerate(IMAGES):
                asked = store.asked_mask(image.image_id)
                assert np.array_equal(store.revealed_label(image.image_id), np.where(asked, truth(index), 255))
        reference.add(b"".join(path.read_bytes() for path in sorted((run / "labels").glob("answers*"))))
    assert len(reference) == 1
    assert begun == {0, 1}
