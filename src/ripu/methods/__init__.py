"""The systems that the paper compares with, one file each; see docs/methods.md.

A method is an objective (:class:`ripu.objectives.Objective`) with a ``conf/method/*.yaml``, which says what it needs.
"""

from ripu.methods.aada import Aada
from ripu.methods.densification import Densification
from ripu.methods.dual_path import DualPath
from ripu.methods.halo import Halo
from ripu.methods.label_denoising import PositiveNegative
from ripu.methods.labor import Labor
from ripu.methods.mada import Mada
from ripu.methods.proda import Proda
from ripu.methods.proda_distil import ProdaDistil
from ripu.methods.seg_uncertainty import SegUncertainty
from ripu.methods.self_training import SelfTraining
from ripu.methods.source_free_prior import PriorEnforcing
from ripu.methods.uncertainty_reduction import UncertaintyReduction
from ripu.methods.weak_labels import WeakLabels

__all__ = [
    "Aada",
    "Densification",
    "DualPath",
    "Halo",
    "Labor",
    "Mada",
    "PositiveNegative",
    "PriorEnforcing",
    "Proda",
    "ProdaDistil",
    "SegUncertainty",
    "SelfTraining",
    "UncertaintyReduction",
    "WeakLabels",
]
