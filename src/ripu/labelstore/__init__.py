"""The on-disk label ledger of a run: rounds of picks, answers, and what is revealed as of each round.

Annotation is the expensive part: no answer is lost or asked for twice, and a reader sees all of a round or none of it.
docs/labelstore.md describes the format.
"""

from ripu.labelstore.accounts import all_planned_picks, diff_stores
from ripu.labelstore.carried import Carried, Mask, carried_images, carried_rounds, check_parent, mask_round
from ripu.labelstore.errors import (
    CorruptStoreError,
    LabelStoreError,
    RoundConflictError,
    RoundOrderError,
    StoreMissingError,
)
from ripu.labelstore.reader import BEFORE, NO_ROUND, LabelReader
from ripu.labelstore.records import (
    VOID,
    ImageAnswers,
    ImagePicks,
    Regions,
    Round,
    TargetImage,
    export_name,
    regions_of,
    square_regions,
)
from ripu.labelstore.store import LabelStore

__all__ = [
    "BEFORE",
    "NO_ROUND",
    "VOID",
    "Carried",
    "CorruptStoreError",
    "ImageAnswers",
    "ImagePicks",
    "LabelReader",
    "LabelStore",
    "LabelStoreError",
    "Mask",
    "Regions",
    "Round",
    "RoundConflictError",
    "RoundOrderError",
    "StoreMissingError",
    "TargetImage",
    "all_planned_picks",
    "carried_images",
    "carried_rounds",
    "check_parent",
    "diff_stores",
    "export_name",
    "mask_round",
    "regions_of",
    "square_regions",
]
