"""The on-disk label ledger of a run: rounds of picks, answers, and what is revealed as of each round.

Annotation is the expensive thing: nothing that was answered is lost or asked twice, and a reader sees all of a round
or none of it. The format is described in docs/labelstore.md. numpy and the standard library only.
"""

from ripu.labelstore.accounts import RoundAccount, StoreStats, Tally, all_planned_picks, store_stats
from ripu.labelstore.audit import verify_store
from ripu.labelstore.carried import Carried, Mask, carried_images, carried_rounds, check_parent, mask_round
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
from ripu.labelstore.reader import BEFORE, NO_ROUND, LabelReader
from ripu.labelstore.records import (
    VOID,
    ImageAnswers,
    ImagePicks,
    Regions,
    Round,
    TargetImage,
    regions_of,
    square_regions,
)
from ripu.labelstore.store import LabelStore

__all__ = [
    "BEFORE",
    "NO_ROUND",
    "VOID",
    "AnswerConflictError",
    "BadLabelError",
    "BadPickError",
    "Carried",
    "CorruptStoreError",
    "ImageAnswers",
    "ImagePicks",
    "LabelReader",
    "LabelStore",
    "LabelStoreError",
    "Mask",
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
    "all_planned_picks",
    "carried_images",
    "carried_rounds",
    "check_parent",
    "diff_stores",
    "mask_round",
    "regions_of",
    "square_regions",
    "store_stats",
    "verify_store",
]
