"""The server of the annotation page: HTTP in front of a session, for this machine only unless told otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ripu.annotate.door import Door, error_response
from ripu.annotate.errors import AnnotationError, BadRequestError, OtherRoundError, RoundClosedError, UnknownImageError
from ripu.annotate.images import Images
from ripu.annotate.questions import Question
from ripu.annotate.requests import annotator_of, answer_of, body_of, image_number, whole_number
from ripu.annotate.session import Session
from ripu.annotate.splits import MOST_PIXELS, ranked_splits
from ripu.io.errors import RipuError
from ripu.io.writing import WriteError

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
MOST_ANSWERS = 500
MOST_QUESTIONS = 64
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


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
    return Starlette(routes=routes, middleware=[Middleware(Door, tokens=tokens, hosts=hosts)])


async def _page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    path = PAGE / name
    if Path(name).name != name or path.suffix not in _TYPES or not path.is_file():
        return error_response(404, "this file does not exist")
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def _answering(handle: Callable[[_Service, Request], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Turn the errors of a handler into responses with a status and a sentence."""

    async def handler(self: _Service, request: Request) -> Response:
        try:
            return await handle(self, request)
        except OtherRoundError as error:
            return error_response(409, str(error))
        except RoundClosedError as error:
            return error_response(423, str(error))
        except UnknownImageError as error:
            return error_response(404, str(error))
        except BadRequestError as error:
            return error_response(400, str(error))
        except WriteError as error:
            _log.error("%s", error)
            return error_response(507, str(error))
        except RipuError as error:
            return error_response(422, str(error))

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
        count = whole_number(request.query_params.get("n", "8"), "n", 1, MOST_QUESTIONS)
        by = annotator_of(request, request.query_params.get("by"))
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
        body = await body_of(request)
        by = annotator_of(request, body.get("by"))
        given = body.get("answers")
        if not isinstance(given, list) or len(given) > MOST_ANSWERS:
            raise BadRequestError(f"answers must be a list of at most {MOST_ANSWERS}")
        round_index = body.get("round")
        if round_index is not None and type(round_index) is not int:
            raise BadRequestError("round must be a whole number")
        classes = body.get("classes")
        saved = self.session.save(
            [answer_of(one, by) for one in given], round_index, classes if isinstance(classes, str) else None
        )
        return JSONResponse({"saved": saved})

    @_answering
    async def undo(self, request: Request) -> Response:
        body = await body_of(request)
        client_id = body.get("client_id")
        if not isinstance(client_id, str) or not client_id.isprintable():
            raise BadRequestError("client_id must be a string")
        return JSONResponse({"undone": self.session.undo(annotator_of(request, body.get("by")), client_id)})

    @_answering
    async def close(self, request: Request) -> Response:
        body = await body_of(request)
        return JSONResponse({"closed": True, **self.session.close(annotator_of(request, body.get("by")))})

    @_answering
    async def reopen(self, request: Request) -> Response:
        body = await body_of(request)
        self.session.reopen(annotator_of(request, body.get("by")))
        return JSONResponse({"reopened": True})

    @_answering
    async def stats(self, request: Request) -> Response:
        return JSONResponse({"state": self.session.state, **self.session.stats()})

    @_answering
    async def crop(self, request: Request) -> Response:
        query = request.query_params
        names = ("row", "column", "height", "width")
        row, column, height, width = (whole_number(query.get(name), name, -100_000, 100_000) for name in names)
        number = image_number(request)
        crop = await run_in_threadpool(self.images.crop, number, row, column, height, width)
        return Response(
            crop.data, media_type="image/png", headers={"X-Row": str(crop.row), "X-Column": str(crop.column)}
        )

    @_answering
    async def overview(self, request: Request) -> Response:
        data, scale = await run_in_threadpool(self.images.overview, image_number(request))
        return Response(data, media_type="image/jpeg", headers={"X-Scale": str(scale)})


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
