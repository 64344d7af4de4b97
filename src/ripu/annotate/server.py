"""The server of the annotation page: HTTP in front of a session, for this machine only unless told otherwise."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ripu.annotate.errors import AnnotationError, OtherRoundError, RoundClosedError, UnknownImageError
from ripu.annotate.images import Images
from ripu.annotate.journal import Answer
from ripu.annotate.questions import Question, parse_qid
from ripu.annotate.session import Session
from ripu.annotate.splits import MOST_PIXELS, ranked_splits
from ripu.io.errors import RipuError
from ripu.io.writing import WriteError

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
MOST_BODY_BYTES = 1_000_000
MOST_ANSWERS = 500
MOST_QUESTIONS = 64
MOST_NAME = 80
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _BadRequest(AnnotationError):
    """A request that does not have the documented form."""


def make_app(
    session: Session, images: Images, tokens: Mapping[str, str | None], hosts: frozenset[str] | None = None
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        session: The session, used from the event loop only.
        images: The pictures.
        tokens: Token -> the annotator that it identifies; None if it may use any name.
        hosts: Allowed values of the Host header, with port; None for any (a socket with its own rights).
    """
    service = _Service(session, images)
    routes = [
        Route("/", _page),
        Route("/static/{name}", _page),
        Route("/api/run", service.run),
        Route("/api/next", service.next),
        Route("/api/stats", service.stats),
        Route("/api/answers", service.answers, methods=["POST"]),
        Route("/api/undo", service.undo, methods=["POST"]),
        Route("/api/close", service.close, methods=["POST"]),
        Route("/api/reopen", service.reopen, methods=["POST"]),
        Route("/api/image/{number}/crop", service.crop),
        Route("/api/image/{number}/overview", service.overview),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Door, tokens=tokens, hosts=hosts)])


async def _page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    path = PAGE / name
    if Path(name).name != name or path.suffix not in _TYPES or not path.is_file():
        return _error(404, "this file does not exist")
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


class _Door:
    """Checks host, origin, token and size of each request, and adds headers to each response."""

    def __init__(self, app: ASGIApp, tokens: Mapping[str, str | None], hosts: frozenset[str] | None) -> None:
        self._app, self._tokens, self._hosts = app, dict(tokens), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
                ]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BODY_BYTES:
                raise _BadRequest(f"the request is larger than {MOST_BODY_BYTES} bytes; send fewer answers at a time")
            return message

        await self._app(scope, limited, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if self._hosts is not None and (len(host) != 1 or host[0].lower() not in self._hosts):
            return _error(403, "this host name is not allowed; open the address that the command printed")
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and (len(origin) != 1 or origin[0].lower() != f"http://{(host or [''])[0].lower()}"):
                return _error(403, "this request comes from another page; open the address that the command printed")
            length = headers.get("content-length", ["0"])[0]
            if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
                return _error(413, f"the request is larger than {MOST_BODY_BYTES} bytes; send fewer answers at a time")
            if headers.get("content-type", [""])[0].partition(";")[0].strip() != "application/json":
                return _error(415, "send JSON (Content-Type: application/json)")
        if not scope["path"].startswith("/api/"):
            return None
        scheme, _, token = headers.get("authorization", [""])[0].partition(" ")
        known = [name for name in self._tokens if hmac.compare_digest(name.encode(), token.strip().encode("latin-1"))]
        if scheme.lower() != "bearer" or not known:
            response = _error(
                401, "the key in the address is missing or old; open the address that the command printed"
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        scope["annotator"] = self._tokens[known[0]]
        return None


def _answering(handle: Callable[[_Service, Request], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Turn the errors of a handler into responses with a status and a sentence."""

    async def handler(self: _Service, request: Request) -> Response:
        try:
            return await handle(self, request)
        except OtherRoundError as error:
            return _error(409, str(error))
        except RoundClosedError as error:
            return _error(423, str(error))
        except UnknownImageError as error:
            return _error(404, str(error))
        except _BadRequest as error:
            return _error(400, str(error))
        except WriteError as error:
            _log.error("%s", error)
            return _error(507, str(error))
        except RipuError as error:
            return _error(422, str(error))

    return handler


class _Service:
    """The handlers. All of them run in the event loop, so that the session sees one request at a time."""

    def __init__(self, session: Session, images: Images) -> None:
        self.session, self.images = session, images

    @_answering
    async def run(self, request: Request) -> Response:
        session = self.session
        state = session.state
        about: dict[str, Any] = {
            "run": session.run.name,
            "id": session.journal.about("id"),
            "rounds": session.num_rounds,
            "state": state,
            "classes_digest": session.classes_digest,
            "suggest": session.settings.suggest,
            "me": request.scope.get("annotator"),
            "void_key": "v",
        }
        examples: Mapping[int, dict[str, int]] = {}
        if state != "waiting":
            current = session.current
            spec = current.questions.spec
            examples = {label: self._place(qid) for label, qid in current.examples.items()}
            about |= {
                "round": spec.index,
                "radius": spec.reveal_radius if "region" not in spec.info else None,
                **current.counts(),
            }
        classes = [
            {"id": one.id, "name": one.name, "color": one.color, "key": one.key, "example": examples.get(one.id)}
            for one in session.classes
        ]
        return JSONResponse({**about, "classes": classes})

    def _place(self, qid: str) -> dict[str, int]:
        question = self.session.questions.question(qid)
        row, column = question.pixels[len(question.pixels) // 2].tolist()
        return {"number": question.number, "row": row, "column": column}

    @_answering
    async def next(self, request: Request) -> Response:
        count = _number(request.query_params.get("n", "8"), "n", 1, MOST_QUESTIONS)
        by = _name(request, request.query_params.get("by"))
        session = self.session
        if request.query_params.get("queue") == "conflicts":
            pairs = session.conflicts(count)
            questions = [
                {
                    **await self._described(question),
                    "answers": [
                        {"by": one.by, "labels": None if one.labels is None else one.labels.tolist()} for one in answers
                    ],
                }
                for question, answers in pairs
            ]
            return JSONResponse(
                {"round": session.questions.round, "questions": questions, "done": not pairs, "wait_seconds": None}
            )
        found, seconds = session.next_questions(by, count)
        described = [await self._described(question) for question in found]
        return JSONResponse(
            {
                "round": session.questions.round,
                "questions": described,
                "done": not found and seconds is None,
                "wait_seconds": seconds,
            }
        )

    async def _described(self, question: Question) -> dict[str, Any]:
        about = self.session.store.images[question.number]
        labels, is_blind = self.session.current.suggestion(question)
        predicted = self.session.current.prediction(question)
        colors = None
        if 2 <= len(question.pixels) <= MOST_PIXELS:
            try:
                image = await run_in_threadpool(self.images.image, question.number)
                colors = image[question.pixels[:, 0], question.pixels[:, 1]]
            except AnnotationError:  # the page says so where it asks for the picture
                colors = None
        suggestion = None
        if labels is not None and (labels == labels[0]).all():
            suggestion = {"label": int(labels[0])}
        return {
            "qid": question.qid,
            "image": question.image_id,
            "number": question.number,
            "height": about.height,
            "width": about.width,
            "pixels": question.pixels.tolist(),
            "suggestion": suggestion,
            "blind": is_blind,
            "splits": ranked_splits(question.pixels, colors, predicted),
        }

    @_answering
    async def answers(self, request: Request) -> Response:
        body = await _body(request)
        by = _name(request, body.get("by"))
        given = body.get("answers")
        if not isinstance(given, list) or len(given) > MOST_ANSWERS:
            raise _BadRequest(f"answers must be a list of at most {MOST_ANSWERS}")
        round_index = body.get("round")
        if round_index is not None and type(round_index) is not int:
            raise _BadRequest("round must be a whole number")
        classes = body.get("classes")
        saved = self.session.save(
            [_answer(one, by) for one in given], round_index, classes if isinstance(classes, str) else None
        )
        return JSONResponse({"saved": saved})

    @_answering
    async def undo(self, request: Request) -> Response:
        body = await _body(request)
        client_id = body.get("client_id")
        if not isinstance(client_id, str) or not client_id.isprintable():
            raise _BadRequest("client_id must be a string")
        return JSONResponse({"undone": self.session.undo(_name(request, body.get("by")), client_id)})

    @_answering
    async def close(self, request: Request) -> Response:
        body = await _body(request)
        return JSONResponse({"closed": True, **self.session.close(_name(request, body.get("by")))})

    @_answering
    async def reopen(self, request: Request) -> Response:
        body = await _body(request)
        self.session.reopen(_name(request, body.get("by")))
        return JSONResponse({"reopened": True})

    @_answering
    async def stats(self, request: Request) -> Response:
        return JSONResponse({"state": self.session.state, **self.session.stats()})

    @_answering
    async def crop(self, request: Request) -> Response:
        query = request.query_params
        names = ("row", "column", "height", "width")
        row, column, height, width = (_number(query.get(name), name, -100_000, 100_000) for name in names)
        number = _image_number(request)
        crop = await run_in_threadpool(self.images.crop, number, row, column, height, width)
        return Response(
            crop.data, media_type="image/png", headers={"X-Row": str(crop.row), "X-Column": str(crop.column)}
        )

    @_answering
    async def overview(self, request: Request) -> Response:
        data, scale = await run_in_threadpool(self.images.overview, _image_number(request))
        return Response(data, media_type="image/jpeg", headers={"X-Scale": str(scale)})


async def _body(request: Request) -> dict[str, Any]:
    data = await request.body()
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _BadRequest("the request is not JSON") from error
    if not isinstance(body, dict):
        raise _BadRequest("the request must be a JSON object")
    return body


def _image_number(request: Request) -> int:
    text = request.path_params["number"]
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UnknownImageError(f"{text[:60]!r} is not the number of an image of this run")
    return int(text)


def _number(text: object, name: str, least: int, most: int) -> int:
    try:
        value = int(str(text)) if len(str(text)) < 12 else least - 1
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise _BadRequest(f"{name} must be a whole number from {least} to {most}")
    return value


def _name(request: Request, given: object) -> str:
    """Return the annotator: the one that the token identifies, else the name in the request."""
    own: str | None = request.scope.get("annotator")
    if own is not None:
        return own
    if not isinstance(given, str) or not given.strip() or len(given) > MOST_NAME or not given.isprintable():
        raise _BadRequest(f"by must be the name of the annotator, at most {MOST_NAME} characters")
    return given.strip()


def _answer(one: object, by: str) -> Answer:
    if not isinstance(one, dict):
        raise _BadRequest("an answer must be a JSON object")
    client_id, labels, ms, suggestion = (one.get(name) for name in ("client_id", "labels", "ms", "suggestion"))
    if not isinstance(client_id, str) or not 1 <= len(client_id) <= 100 or not client_id.isprintable():
        raise _BadRequest("client_id must be a string of 1 to 100 printable characters")
    round_index, image, pick = parse_qid(str(one.get("qid")))
    array = None
    if labels is not None:
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 255 for label in labels):
            raise AnnotationError("labels must be a list of train ids, 255 for void")
        array = np.asarray(labels, dtype=np.uint8)
    elif one.get("unsure") is not True:
        raise AnnotationError("labels are missing; give one per pixel, or unsure: true")
    if ms is not None and not (type(ms) in (int, float) and 0 <= ms < 1e9):
        raise _BadRequest("ms must be a number of milliseconds, at least 0")
    if suggestion not in (None, "accepted", "shown", "blind"):
        raise _BadRequest("suggestion must be accepted, shown, blind or null")
    seconds = None if ms is None else int(ms)
    return Answer(client_id, round_index, image, pick, by, array, seconds, suggestion, one.get("resolves") is True)


class Server:
    """A running server; :meth:`stop` ends it from another thread or a signal handler."""

    def __init__(self, app: ASGIApp, *, sock: Any = None, uds: str | None = None) -> None:
        """Prepare a server on an open socket, or on the path of a Unix socket."""
        import uvicorn

        config = uvicorn.Config(
            app, uds=uds, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
        )
        self._server, self._sock = uvicorn.Server(config), sock

    def run(self) -> None:
        """Serve until a signal or :meth:`stop`."""
        asyncio.run(self._server.serve(sockets=None if self._sock is None else [self._sock]))

    def stop(self) -> None:
        """Let :meth:`run` return after the requests in progress."""
        self._server.should_exit = True
