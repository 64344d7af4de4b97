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
    from ripu.run.trained import load
    from ripu.selection import greedy_picks
else:
    _NAMES = {
        "ripu.acquisition": ["ripu_score"],
        "ripu.functional": ["pixel_entropy", "region_impurity", "window_mean"],
        "ripu.labelstore": ["ImageAnswers", "ImagePicks", "LabelStore", "LabelStoreError", "TargetImage"],
        "ripu.losses": ["consistency_loss", "negative_learning_loss", "supervised_loss"],
        "ripu.run.trained": ["load"],
        "ripu.selection": ["greedy_picks"],
    }

    def __getattr__(name: str) -> object:
        """Import a public name from its home (PEP 562)."""
        from importlib import import_module

        for home, names in _NAMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(home), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names, imported or not."""
        return sorted({*globals(), *__all__})


__all__ = [
    "ImageAnswers",
    "ImagePicks",
    "LabelStore",
    "LabelStoreError",
    "TargetImage",
    "__version__",
    "consistency_loss",
    "greedy_picks",
    "load",
    "negative_learning_loss",
    "pixel_entropy",
    "region_impurity",
    "ripu_score",
    "supervised_loss",
    "window_mean",
]
