"""The equations as pure functions on tensors. This package imports torch alone."""

from ripu.functional.entropy import entropy_and_label, label_dtype, map_entropy_and_label, pixel_entropy
from ripu.functional.impurity import ImpurityKernel, region_impurity
from ripu.functional.parallel import for_each, split_rows, strip_rows
from ripu.functional.pixels import PixelKernel, check_logits, map_pixels
from ripu.functional.windows import axis_count, check_radius, running_sum, window_count, window_mean, window_mean_rows

__all__ = [
    "ImpurityKernel",
    "PixelKernel",
    "axis_count",
    "check_logits",
    "check_radius",
    "entropy_and_label",
    "for_each",
    "label_dtype",
    "map_entropy_and_label",
    "map_pixels",
    "pixel_entropy",
    "region_impurity",
    "running_sum",
    "split_rows",
    "strip_rows",
    "window_count",
    "window_mean",
    "window_mean_rows",
]
