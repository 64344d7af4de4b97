"""Requests of the annotation page, read and checked: their bodies, numbers, annotators and answers."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from starlette.requests import Request

from ripu.annotate.errors import AnnotationError, BadRequestError, UnknownImageError
from ripu.annotate.journal import Answer
from ripu.annotate.questions import parse_qid

MOST_NAME = 80
"""Characters of an annotator's name, at most."""


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    Raises:
        BadRequestError: It brings none, or is larger than :data:`ripu.annotate.door.MOST_BODY_BYTES`.
    """
    data = await request.body()
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the request is not JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError("the request must be a JSON object")
    return body


def image_number(request: Request) -> int:
    """Return the number of the image in the path of a request.

    Raises:
        UnknownImageError: It is not a number.
    """
    text = request.path_params["number"]
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UnknownImageError(f"{text[:60]!r} is not the number of an image of this run")
    return int(text)


def whole_number(text: object, name: str, least: int, most: int) -> int:
    """Return the value of a parameter.

    Raises:
        BadRequestError: It is not a whole number from ``least`` to ``most``.
    """
    try:
        value = int(str(text)) if len(str(text)) < 12 else least - 1
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise BadRequestError(f"{name} must be a whole number from {least} to {most}")
    return value


def annotator_of(request: Request, given: object) -> str:
    """Return the annotator: the one that the token identifies, else the name in the request.

    Raises:
        BadRequestError: The request needs a name, and has none.
    """
    own: str | None = request.scope.get("annotator")
    if own is not None:
        return own
    if not isinstance(given, str) or not given.strip() or len(given) > MOST_NAME or not given.isprintable():
        raise BadRequestError(f"by must be the name of the annotator, at most {MOST_NAME} characters")
    return given.strip()


def answer_of(one: object, by: str) -> Answer:
    """Return one of the answers of a request, given by an annotator; docs/annotate.md describes the object.

    Raises:
        BadRequestError: It is not an object, or one of its parts has another form.
        AnnotationError: It has neither labels nor ``unsure``, or its labels are no train ids.
        UnknownQuestionError: ``qid`` is not the name of a question.
    """
    if not isinstance(one, dict):
        raise BadRequestError("an answer must be a JSON object")
    client_id, labels, ms, suggestion = (one.get(name) for name in ("client_id", "labels", "ms", "suggestion"))
    if not isinstance(client_id, str) or not 1 <= len(client_id) <= 100 or not client_id.isprintable():
        raise BadRequestError("client_id must be a string of 1 to 100 printable characters")
    round_index, image, pick = parse_qid(str(one.get("qid")))
    array = None
    if labels is not None:
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 255 for label in labels):
            raise AnnotationError("labels must be a list of train ids, 255 for void")
        array = np.asarray(labels, dtype=np.uint8)
    elif one.get("unsure") is not True:
        raise AnnotationError("labels are missing; give one per pixel, or unsure: true")
    if ms is not None and not (type(ms) in (int, float) and 0 <= ms < 1e9):
        raise BadRequestError("ms must be a number of milliseconds, at least 0")
    if suggestion not in (None, "accepted", "shown", "blind"):
        raise BadRequestError("suggestion must be accepted, shown, blind or null")
    whole_ms = None if ms is None else int(ms)
    return Answer(client_id, round_index, image, pick, by, array, whole_ms, suggestion, one.get("resolves") is True)
