"""Rows of tables: the name of a kind of run, and its overrides of ``ripu.train``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PLUG_INS = ("pixelpick", "diverse_to_uncertain", "margin_balanced", "class_balanced", "density")
"""Scores beyond the paper."""

ROWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "source only": ("setting=source_only",),
        "PA random": ("mode=pa", "acquisition=random"),
        "PA RIPU": ("mode=pa", "acquisition=ripu"),
        "PA pixelpick": ("mode=pa", "acquisition=pixelpick"),
        "RA random": ("mode=ra", "acquisition=random"),
        "RA entropy": ("mode=ra", "acquisition=entropy"),
        "RA RIPU": ("mode=ra", "acquisition=ripu"),
        "RA RIPU after random": ("mode=ra", "acquisition=ripu", "first_round=random"),
        "RA RIPU at 5 %": ("mode=ra", "acquisition=ripu", "budget=0.05"),
        "RA teacher": ("mode=ra", "objective=ripu_teacher"),
        **{f"RA {name}": ("mode=ra", f"acquisition={name}") for name in PLUG_INS},
        "source free": ("mode=ra", "setting=source_free"),
        "target only": ("mode=ra", "setting=target_only"),
        "all labels": ("setting=fully_supervised",),
        "CBST": ("method=cbst",),
        "MRKLD": ("method=mrkld",),
        "Seg-Uncertainty": ("method=seg_uncertainty",),
        "TPLD": ("method=tpld",),
        "DPL-Dual": ("method=dpl",),
        "ProDA": ("method=proda",),
        "ProDA stage 2": ("method=proda_distil",),
        "ProDA stage 3": ("method=proda_distil",),
        "URMA": ("method=urma",),
        "LD": ("method=ld",),
        "SFDA": ("method=sfda",),
        "WeakDA points": ("method=weakda",),
        "LabOR points": ("method=labor",),
        "LabOR mask": ("method=labor", "mode=ra", "mode.radius=0"),
        "HALO": ("method=halo", "mode=ra"),
        "AADA": ("method=aada",),
        "MADA": ("method=mada",),
    }
)

FROM_SOURCE_ONLY = frozenset({"source free", "URMA", "LD", "SFDA"})
"""Rows that start from the network of ``source only`` with the same seed."""

FROM_STAGE: Mapping[str, str] = MappingProxyType({"ProDA stage 2": "ProDA", "ProDA stage 3": "ProDA stage 2"})
"""Rows that learn from the network of another one with the same seed."""

FROM_TRANSLATED = frozenset({"DPL-Dual"})
"""Rows that read images in the style of the other domain, which are made once for a data set."""


def begins_with(row: str) -> tuple[str, str] | None:
    """Return the row whose network a row begins with, and the key that names its checkpoint; None without one.

    >>> begins_with("LD"), begins_with("ProDA stage 3"), begins_with("CBST")
    (('source only', 'model.checkpoint'), ('ProDA stage 2', 'method.previous'), None)
    """
    if row in FROM_SOURCE_ONLY:
        return "source only", "model.checkpoint"
    return (FROM_STAGE[row], "method.previous") if row in FROM_STAGE else None
