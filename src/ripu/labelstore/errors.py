"""Errors of the label store: each names the file or value, the cause and the remedy."""

from __future__ import annotations

from ripu.io.errors import RipuError
from ripu.io.lock import LockedError
from ripu.io.writing import WriteError


class LabelStoreError(RipuError, ValueError):
    """Base of the errors of a label store."""


class StoreMissingError(LabelStoreError):
    """The folder contains no label store."""


class StoreExistsError(LabelStoreError):
    """The folder already contains a label store, or one of other images, classes or metadata."""


class CorruptStoreError(LabelStoreError):
    """A file of the store is missing, truncated or changed."""


class StoreLockedError(LabelStoreError, LockedError):
    """Another process writes to the store, or the store was opened for reading only."""


class StoreWriteError(LabelStoreError, WriteError):
    """A write failed, e.g. on a full disk; what was committed before is intact."""


class UnknownImageError(LabelStoreError):
    """The store was created without this image id."""


class BadPickError(LabelStoreError):
    """A pick, or a pixel that it asks about, is malformed or lies outside the image."""


class BadLabelError(LabelStoreError):
    """An answer is neither a class index nor 255 (void), or lies outside the image."""


class RevealedTwiceError(LabelStoreError):
    """A pick asks about a pixel that another pick of this or an earlier round asks about."""


class OverBudgetError(LabelStoreError):
    """An image has more picks than the round's budget."""


class RoundOrderError(LabelStoreError):
    """A round index or step is out of order, or the round does not exist."""


class RoundConflictError(LabelStoreError):
    """The round is already committed with other content, or the shards of a round contradict each other."""


class AnswerConflictError(LabelStoreError):
    """A pixel that has an answer is given a different one."""


class ShardMissingError(LabelStoreError):
    """A rank has not written its part of the round."""
