import io
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from annotation import IMAGES, SIZE, make_run, open_session, picture, true_labels
from ripu.annotate.door import MOST_BODY_BYTES
from ripu.annotate.errors import AnnotationError
from ripu.annotate.images import Images
from ripu.annotate.open_round import Settings
from ripu.annotate.server import make_app

ORIGIN = {"Origin": "http://127.0.0.1:8000"}


def read(number):
    if number == 2:
        raise AnnotationError("photo.png is missing; restore it")
    return picture(number)


def make_client(session, key="key"):
    app = make_app(session, Images(session.store, read), {"key": None, "ann's": "ann"}, frozenset({"127.0.0.1:8000"}))
    return TestClient(app, base_url="http://127.0.0.1:8000", headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def client(session):
    return make_client(session)


def post(client, path, headers=ORIGIN, **body):
    return client.post(path, json=body, headers=headers)


def answers_to(questions, session, prefix="c"):
    return [
        {
            "client_id": f"{prefix}{one['qid']}",
            "qid": one["qid"],
            "labels": true_labels(session.questions.question(one["qid"])).tolist(),
            "ms": 900,
        }
        for one in questions
    ]


def test_the_contract_of_outside_scripts(client, session):
    about = client.get("/api/run").json()
    assert (about["round"], about["state"], about["questions"], about["answered"], about["radius"]) == (
        0,
        "open",
        120,
        0,
        1,
    )
    assert about["classes"][0] == {"id": 0, "name": "road", "color": [128, 64, 128], "key": "r", "example": None}
    while True:
        found = client.get("/api/next?n=8&by=ann").json()
        if not found["questions"]:
            break
        assert len(found["questions"]) <= 8
        for one in found["questions"]:
            assert set(one) >= {"qid", "image", "number", "pixels", "suggestion"}
        saved = post(client, "/api/answers", by="ann", round=0, answers=answers_to(found["questions"], session))
        assert saved.json() == {"saved": len(found["questions"])}
    assert found["done"] is True
    stats = client.get("/api/stats").json()
    assert (stats["answered"], stats["left"], stats["seconds_per_answer"]) == (120, 0, 0.9)
    assert client.get("/api/run").json()["classes"][0]["example"] is not None
    assert post(client, "/api/close", by="ann").json()["answered"] == 120
    assert post(client, "/api/answers", by="ann", answers=[]).status_code == 423
    assert client.get("/api/next?by=ann").status_code == 423
    assert post(client, "/api/reopen", by="ann").json() == {"reopened": True}


def test_saving_is_idempotent_and_undo_takes_back(client, session):
    question = client.get("/api/next?n=1&by=ann").json()["questions"][0]
    body = answers_to([question], session)
    for _ in range(3):
        assert post(client, "/api/answers", by="ann", answers=body).json() == {"saved": 1}
    assert client.get("/api/stats").json()["answered"] == 1
    assert post(client, "/api/undo", by="bob", client_id=body[0]["client_id"]).json() == {"undone": False}
    assert post(client, "/api/undo", by="ann", client_id=body[0]["client_id"]).json() == {"undone": True}
    assert client.get("/api/stats").json()["answered"] == 0


def test_unsure_needs_a_word(client):
    question = client.get("/api/next?n=1&by=ann").json()["questions"][0]
    one = {"client_id": "x", "qid": question["qid"], "labels": None}
    assert post(client, "/api/answers", by="ann", answers=[one]).status_code == 422
    assert post(client, "/api/answers", by="ann", answers=[{**one, "unsure": True}]).status_code == 200
    assert client.get("/api/stats").json()["unsure"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [9] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [254] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0]}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [True] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0.5] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "0-9-0", "labels": [0] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "../x", "labels": [0] * 9}]}, 422),
        ({"answers": [{"client_id": "a", "qid": "5-0-0", "labels": [0] * 9}]}, 409),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0] * 9}], "round": 4}, 409),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0] * 9}], "classes": "other"}, 409),
        ({"answers": [{"client_id": "", "qid": "0-0-0", "labels": [0] * 9}]}, 400),
        ({"answers": [{"client_id": "\ud800", "qid": "0-0-0", "labels": [0] * 9}]}, 400),
        ({"answers": [{"client_id": "a" * 101, "qid": "0-0-0", "labels": [0] * 9}]}, 400),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0] * 9, "ms": -1}]}, 400),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0] * 9, "ms": float("inf")}]}, 400),
        ({"answers": [{"client_id": "a", "qid": "0-0-0", "labels": [0] * 9, "suggestion": "yes"}]}, 400),
        ({"answers": ["x"]}, 400),
        ({"answers": {}}, 400),
        ({"answers": [{}] * 501}, 400),
        ({"answers": [], "round": "0"}, 400),
        ({"answers": [], "by": ""}, 400),
        ({"answers": [], "by": "a\nb"}, 400),
        ({"answers": [], "by": "a" * 81}, 400),
        ({"answers": [], "by": 7}, 400),
    ],
)
def test_bad_answers_are_refused_with_a_sentence(client, body, status):
    given = {"by": "ann", **body}
    answer = client.post(
        "/api/answers", content=json.dumps(given), headers={**ORIGIN, "Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 10
    assert client.get("/api/stats").json()["answered"] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_not_json_is_refused(client, content):
    headers = {**ORIGIN, "Content-Type": "application/json"}
    assert client.post("/api/answers", content=content, headers=headers).status_code == 400


def test_large_bodies_are_refused_declared_or_not(client):
    headers = {**ORIGIN, "Content-Type": "application/json"}
    assert client.post("/api/answers", content=b" " * (MOST_BODY_BYTES + 1), headers=headers).status_code == 413

    def chunks():
        for _ in range(20):
            yield b" " * 100_000

    assert client.post("/api/answers", content=chunks(), headers=headers).status_code in (400, 413)


def test_a_wrong_key_host_origin_or_type_is_refused(client, session):
    for header in ({"Authorization": ""}, {"Authorization": "Bearer x"}, {"Authorization": "Basic key"}):
        assert client.get("/api/run", headers=header).status_code == 401
    assert client.get("/api/image/0/overview", headers={"Authorization": ""}).status_code == 401
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:9", "localhost:8000.evil.example"):
        assert client.get("/", headers={"Host": host}).status_code == 403
    for origin in ("http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001"):
        assert post(client, "/api/close", headers={"Origin": origin}, by="x").status_code == 403
    assert client.post("/api/close", content=b"{}", headers={**ORIGIN, "Content-Type": "text/plain"}).status_code == 415
    assert client.delete("/api/close", headers=ORIGIN).status_code in (405, 415)
    assert session.state == "open"


def test_each_answer_has_the_headers_of_a_safe_page(client):
    for path in ("/", "/static/page.js", "/api/run", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/..%5cserver.py", "/static/", "/../x"],
)
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


def test_a_token_of_a_person_answers_as_that_person(session):
    client = make_client(session, "ann's")
    assert client.get("/api/run").json()["me"] == "ann"
    question = client.get("/api/next?n=1&by=bob").json()["questions"][0]
    post(client, "/api/answers", by="bob", answers=answers_to([question], session))
    assert [one["by"] for one in client.get("/api/stats").json()["annotators"]] == ["ann"]


def test_pictures_come_by_number(client):
    crop = client.get("/api/image/0/crop?row=-5&column=50&height=20&width=30")
    assert crop.headers["content-type"] == "image/png"
    assert (crop.headers["x-row"], crop.headers["x-column"]) == ("0", "50")
    pixels = np.asarray(Image.open(io.BytesIO(crop.content)))
    assert np.array_equal(pixels, picture(0)[:15, 50:])
    overview = client.get("/api/image/0/overview")
    assert Image.open(io.BytesIO(overview.content)).size == SIZE[::-1]
    assert overview.headers["x-scale"] == "1.0"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/image/9/overview", 404),
        ("/api/image/2/overview", 422),  # its file is missing
        ("/api/image/x/overview", 404),
        pytest.param(f"/api/image/{'9' * 5000}/crop?row=0&column=0&height=9&width=9", 404, id="5,000 digits"),
        ("/api/image/0/crop?row=0&column=0&height=0&width=9", 422),
        ("/api/image/0/crop?row=900&column=0&height=9&width=9", 422),
        ("/api/image/0/crop?row=0&column=0&height=9", 400),
        ("/api/image/0/crop?row=0&column=0&height=99999999999999&width=9", 400),
        ("/api/next?n=0&by=ann", 400),
        ("/api/next?n=65&by=ann", 400),
        ("/api/next?n=8", 400),
    ],
)
def test_bad_requests_are_refused_with_a_sentence(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 10


def test_a_missing_image_is_asked_about_without_splits_by_colour(client, session):
    asked = client.get("/api/next?n=64&by=ann").json()["questions"]
    assert 2 in {one["number"] for one in asked}
    assert all(one["splits"] for one in asked if len(one["pixels"]) > 1)


def test_conflicts_are_a_queue_with_the_answers(client, session):
    question = client.get("/api/next?n=1&by=ann").json()["questions"][0]
    size = len(question["pixels"])
    for by, label in (("ann", 0), ("bob", 1)):
        post(
            client, "/api/answers", by=by, answers=[{"client_id": by, "qid": question["qid"], "labels": [label] * size}]
        )
    (found,) = client.get("/api/next?by=cem&queue=conflicts").json()["questions"]
    assert [(one["by"], one["labels"][0]) for one in found["answers"]] == [("ann", 0), ("bob", 1)]


def test_before_the_first_round_the_page_waits(tmp_path):
    from ripu.labelstore import LabelStore

    LabelStore.create(tmp_path / "labels", IMAGES, ("road", "roof", "sky")).close()
    session = open_session(tmp_path)
    client = make_client(session)
    assert client.get("/api/run").json()["state"] == "waiting"
    assert client.get("/api/next?by=ann").status_code == 423
    session.close_journal()


def test_a_full_disk_is_507_and_says_so(client, session):
    pages = session.journal._db.execute("PRAGMA page_count").fetchone()[0]
    session.journal._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    statuses = set()
    for number in range(300):
        found = client.get("/api/next?n=2&by=ann")
        if found.status_code == 200 and found.json()["questions"]:
            answers = answers_to(found.json()["questions"], session, f"{number}-")
            found = post(client, "/api/answers", by="ann", answers=answers)
        statuses.add(found.status_code)
        if found.status_code == 507:
            assert "free some space" in found.json()["error"]
            break
    assert statuses == {200, 507}


def test_suggestions_are_off_unless_asked_for(tmp_path):
    from ripu.annotate.suggestions import is_blind
    from ripu.labelstore import LabelStore
    from ripu.labelstore.predictions import write_predictions

    make_run(tmp_path)
    store = LabelStore.open(tmp_path / "labels")
    spec = store.rounds[0]
    labels = [(image.image_id, np.zeros(len(store.asked(image.image_id, 0).indices), np.uint8)) for image in IMAGES]
    write_predictions(tmp_path / "annotation", store, spec, 0, labels)
    for suggest in (False, True):
        session = open_session(tmp_path, Settings(suggest=suggest))
        client = make_client(session)
        questions = client.get("/api/next?n=64&by=ann").json()["questions"]
        for one in questions:
            is_shown = suggest and not is_blind(one["qid"])
            assert one["suggestion"] == ({"label": 0} if is_shown else None)
            assert one["blind"] is (suggest and is_blind(one["qid"]))
        if suggest:
            body = answers_to(questions, session)
            for one, question in zip(body, questions, strict=True):
                one["suggestion"] = "blind" if question["blind"] else "shown"
            post(client, "/api/answers", by="ann", answers=body)
            counts = client.get("/api/stats").json()["suggestions"]
            assert counts["blind"]["answers"] + counts["shown"]["answers"] == len(questions)
            wanted = sum(not any(one["labels"]) for one in body)
            assert counts["blind"]["agree"] + counts["shown"]["agree"] == wanted
        session.close_journal()
