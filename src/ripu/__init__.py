"""RIPU: active learning for domain-adaptive semantic segmentation by region impurity and prediction uncertainty."""

__version__ = "0.1.0"
