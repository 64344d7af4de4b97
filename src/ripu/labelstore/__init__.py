"""The on-disk label ledger of a run: rounds of picks, answers, and what is revealed as of each round.

Annotation is the expensive thing: nothing that was answered is lost or asked twice, and a reader sees all of a round
or none of it. The format is described in docs/labelstore.md. numpy and the standard library only.
"""

from ripu.labelstore.accounts import RoundAccount, StoreStats, Tally, store_stats
from ripu.labelstore.audit import verify_store
from ripu.labelstore.compare import StoreDiff, diff_stores
from ripu.labelstore.errors import (
    AnswerConflictError,
    BadLabelError,
    BadPickError,
    CorruptStoreError,
    LabelStoreError,
    OverBudgetError,
    RevealedTwiceError,
    RoundConflictError,
    RoundOrderError,
    ShardMissingError,
    StoreExistsError,
    StoreLockedError,
    StoreMissingError,
    StoreWriteError,
    UnknownImageError,
)
from ripu.labelstore.reader import NO_ROUND, LabelReader
from ripu.labelstore.records import VOID, ImageAnswers, ImagePicks, Regions, Round, TargetImage, square_regions
from ripu.labelstore.store import LabelStore

__all__ = [
    "NO_ROUND",
    "VOID",
    "AnswerConflictError",
    "BadLabelError",
    "BadPickError",
    "CorruptStoreError",
    "ImageAnswers",
    "ImagePicks",
    "LabelReader",
    "LabelStore",
    "LabelStoreError",
    "OverBudgetError",
    "Regions",
    "RevealedTwiceError",
    "Round",
    "RoundAccount",
    "RoundConflictError",
    "RoundOrderError",
    "ShardMissingError",
    "StoreDiff",
    "StoreExistsError",
    "StoreLockedError",
    "StoreMissingError",
    "StoreStats",
    "StoreWriteError",
    "Tally",
    "TargetImage",
    "UnknownImageError",
    "diff_stores",
    "square_regions",
    "store_stats",
    "verify_store",
]
