"""The equations as pure functions on tensors. This package imports only torch."""

from ripu.functional.entropy import (
    entropy_and_label,
    join_views,
    label_dtype,
    map_confidence_and_label,
    map_entropy_and_label,
    mean_of_views,
    pixel_entropy,
)
from ripu.functional.impurity import ImpurityKernel, region_impurity
from ripu.functional.parallel import for_each
from ripu.functional.pixels import NonFiniteLogitsError, check_finite, check_logits, map_pixels
from ripu.functional.tables import window_table
from ripu.functional.windows import check_radius, running_sum, window_count, window_mean, window_mean_rows

__all__ = [
    "ImpurityKernel",
    "NonFiniteLogitsError",
    "check_finite",
    "check_logits",
    "check_radius",
    "entropy_and_label",
    "for_each",
    "join_views",
    "label_dtype",
    "map_confidence_and_label",
    "map_entropy_and_label",
    "map_pixels",
    "mean_of_views",
    "pixel_entropy",
    "region_impurity",
    "running_sum",
    "window_count",
    "window_mean",
    "window_mean_rows",
    "window_table",
]
