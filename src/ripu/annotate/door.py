"""The door of the annotation page: host, origin, token and size of each request, before any handler sees it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ripu.annotate.errors import BadRequestError

MOST_BODY_BYTES = 1_000_000
"""A larger request is refused."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def error_response(status: int, message: str) -> JSONResponse:
    """Return a response that says in a sentence what is wrong."""
    return JSONResponse({"error": message}, status)


class Door:
    """Checks host, origin, token and size of each request, and adds headers to each response."""

    def __init__(self, app: ASGIApp, tokens: Mapping[str, str | None], hosts: frozenset[str] | None) -> None:
        """Guard an app; tokens and hosts are those of :func:`ripu.annotate.server.make_app`."""
        self._app, self._tokens, self._hosts = app, dict(tokens), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let the app answer it."""
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
                raise BadRequestError(
                    f"the request is larger than {MOST_BODY_BYTES} bytes; send fewer answers at a time"
                )
            return message

        await self._app(scope, limited, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if self._hosts is not None and (len(host) != 1 or host[0].lower() not in self._hosts):
            return error_response(403, "this host name is not allowed; open the address that the command printed")
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and (len(origin) != 1 or origin[0].lower() != f"http://{(host or [''])[0].lower()}"):
                return error_response(
                    403, "this request comes from another page; open the address that the command printed"
                )
            length = headers.get("content-length", ["0"])[0]
            if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
                return error_response(
                    413, f"the request is larger than {MOST_BODY_BYTES} bytes; send fewer answers at a time"
                )
            if headers.get("content-type", [""])[0].partition(";")[0].strip() != "application/json":
                return error_response(415, "send JSON (Content-Type: application/json)")
        if not scope["path"].startswith("/api/"):
            return None
        scheme, _, token = headers.get("authorization", [""])[0].partition(" ")
        known = [name for name in self._tokens if hmac.compare_digest(name.encode(), token.strip().encode("latin-1"))]
        if scheme.lower() != "bearer" or not known:
            response = error_response(
                401, "the key in the address is missing or old; open the address that the command printed"
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        scope["annotator"] = self._tokens[known[0]]
        return None
