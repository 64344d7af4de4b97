"""Errors of the annotation room."""

from __future__ import annotations

from ripu.io.errors import RipuError


class AnnotationError(RipuError, ValueError):
    """Something about questions, answers or files of answers that a user can put right."""


class UnknownQuestionError(AnnotationError):
    """A question that the run has not asked."""


class WrongLabelsError(AnnotationError):
    """Labels that do not fit a question: their number, or a class that there is not."""


class OtherRoundError(AnnotationError):
    """An answer to another round than the one that is open, or with other classes."""


class RoundClosedError(AnnotationError):
    """An answer to a round that is closed."""
