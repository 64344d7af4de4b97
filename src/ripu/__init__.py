"""RIPU: active learning for domain-adaptive semantic segmentation by region impurity and prediction uncertainty.

The names in ``__all__`` are the public Python interface. Each is imported on first use, so that ``import ripu`` is
instant and a program that reads only the label store never loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ripu.acquisition import ripu_score
    from ripu.functional import pixel_entropy, region_impurity, window_mean
    from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, LabelStoreError, TargetImage
    from ripu.losses import consistency_loss, negative_learning_loss, supervised_loss
    from ripu.selection import greedy_picks
else:
    _HOME = {
        "region_impurity": "ripu.functional",
        "pixel_entropy": "ripu.functional",
        "window_mean": "ripu.functional",
        "supervised_loss": "ripu.losses",
        "consistency_loss": "ripu.losses",
        "negative_learning_loss": "ripu.losses",
        "ripu_score": "ripu.acquisition",
        "greedy_picks": "ripu.selection",
        "LabelStore": "ripu.labelstore",
        "LabelStoreError": "ripu.labelstore",
        "TargetImage": "ripu.labelstore",
        "ImagePicks": "ripu.labelstore",
        "ImageAnswers": "ripu.labelstore",
    }

    def __getattr__(name: str) -> object:
        """Import a public name from its home (PEP 562)."""
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value

    def __dir__() -> list[str]:
        """List the public names, imported or not."""
        return sorted({*globals(), *_HOME})


__all__ = [
    "ImageAnswers",
    "ImagePicks",
    "LabelStore",
    "LabelStoreError",
    "TargetImage",
    "__version__",
    "consistency_loss",
    "greedy_picks",
    "negative_learning_loss",
    "pixel_entropy",
    "region_impurity",
    "ripu_score",
    "supervised_loss",
    "window_mean",
]
