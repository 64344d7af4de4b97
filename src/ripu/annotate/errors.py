"""Errors of annotation."""

from __future__ import annotations

from ripu.io.errors import RipuError


class AnnotationError(RipuError, ValueError):
    """A fault in questions, answers or files of answers that the user can correct."""


class UnknownQuestionError(AnnotationError):
    """A question that the run has not asked."""


class UnknownImageError(AnnotationError):
    """An image that the run does not have."""


class WrongLabelsError(AnnotationError):
    """Labels that do not fit a question: wrong in number, or of an unknown class."""


class OtherRoundError(AnnotationError):
    """An answer to a round other than the open one, or given with other classes."""


class RoundClosedError(AnnotationError):
    """An answer to a round that is closed."""


class BadRequestError(AnnotationError):
    """A request to the annotation page that does not have the documented form."""
