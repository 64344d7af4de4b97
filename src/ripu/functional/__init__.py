"""The equations as pure functions on tensors. This package imports only torch."""

from ripu.functional.entropy import entropy_and_label, map_entropy_and_label, pixel_entropy
from ripu.functional.impurity import ImpurityKernel, region_impurity
from ripu.functional.parallel import for_each
from ripu.functional.pixels import check_finite, check_logits, map_pixels
from ripu.functional.windows import check_radius, running_sum, window_count, window_mean, window_mean_rows

__all__ = [
    "ImpurityKernel",
    "check_finite",
    "check_logits",
    "check_radius",
    "entropy_and_label",
    "for_each",
    "map_entropy_and_label",
    "map_pixels",
    "pixel_entropy",
    "region_impurity",
    "running_sum",
    "window_count",
    "window_mean",
    "window_mean_rows",
]
