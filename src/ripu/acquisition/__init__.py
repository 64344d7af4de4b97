"""Acquisition scores: how much the label of a pixel or region would help.

A score is a frozen dataclass that is called as ``score(logits, size, keys)`` (plus ``images=`` if it ``needs_image``)
and returns :class:`ScoreMaps`; see :class:`Acquisition`. It has parameters, but no state, device or random generator.
It may contain other scores, depend on the round, know the whole pool and the source, and read features of the network.
A new one is one file here and one YAML file in ``conf/acquisition`` with its ``_target_``; the tests find it there.

Legend of all files: B batch, C classes, H W size of the maps, h w size of the logits, R rows of a strip.
"""

from ripu.acquisition.anchors import AnchorDistance
from ripu.acquisition.canny_entropy import CannyEntropy
from ripu.acquisition.class_balanced import ClassBalanced
from ripu.acquisition.color_clusters import ColorClusters
from ripu.acquisition.density import DensityRatio, DensityToUncertain
from ripu.acquisition.domain_entropy import DomainEntropy
from ripu.acquisition.hyperbolic import HyperbolicRadius
from ripu.acquisition.impurity_only import ImpurityOnly
from ripu.acquisition.inconsistency import Inconsistency
from ripu.acquisition.interface import Acquisition, Features, ScoreMaps
from ripu.acquisition.margin import Margin
from ripu.acquisition.margin_balanced import MarginBalanced
from ripu.acquisition.pixelpick import DiverseToUncertain, PixelPick
from ripu.acquisition.random import RandomScore
from ripu.acquisition.ripu import RipuScore, ripu_maps, ripu_score
from ripu.acquisition.softmax_confidence import SoftmaxConfidence
from ripu.acquisition.uncertainty_only import UncertaintyOnly

__all__ = [
    "Acquisition",
    "AnchorDistance",
    "CannyEntropy",
    "ClassBalanced",
    "ColorClusters",
    "DensityRatio",
    "DensityToUncertain",
    "DiverseToUncertain",
    "DomainEntropy",
    "Features",
    "HyperbolicRadius",
    "ImpurityOnly",
    "Inconsistency",
    "Margin",
    "MarginBalanced",
    "PixelPick",
    "RandomScore",
    "RipuScore",
    "ScoreMaps",
    "SoftmaxConfidence",
    "UncertaintyOnly",
    "ripu_maps",
    "ripu_score",
]
